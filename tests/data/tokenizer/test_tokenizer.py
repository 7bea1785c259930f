"""The tokenizer: exact round trips, Apertus' ids, one result whatever the threads, and what transformers reads."""

import os
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import transformers
from hypothesis import given, settings

from apertus_jax.corpus.bundled import language_documents
from apertus_jax.data.tokenizer.bpe import Tokenizer, train_bpe
from apertus_jax.data.tokenizer.special_tokens import COMPACT_BLOCK, FULL_BLOCK, reserved_tokens
from apertus_jax.errors import UserError

VOCAB_SIZE = 1024
TRAINING = """
import sys
from apertus_jax.corpus.bundled import language_documents
from apertus_jax.data.tokenizer.bpe import train_bpe
train_bpe((document.text for document in language_documents()), 1024).save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def texts():
    return [document.text for document in language_documents()]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_bpe(texts, VOCAB_SIZE)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_every_text_comes_back_exactly(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and (ids < VOCAB_SIZE).all()
    assert tokenizer.decode(ids) == text


def test_bundled_texts_come_back_exactly(tokenizer, texts):
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_every_byte_string_can_be_said_in_ids(tokenizer, content):
    id_of_byte = {
        tokenizer.decode_bytes([token_id]): token_id for token_id in range(COMPACT_BLOCK, COMPACT_BLOCK + 256)
    }
    assert len(id_of_byte) == 256
    assert tokenizer.decode_bytes(id_of_byte[bytes([value])] for value in content) == content


def test_same_texts_give_the_same_bytes_at_any_thread_count(folder, tmp_path):
    for threads in ("1", "3"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        subprocess.run([sys.executable, "-c", TRAINING, tmp_path / threads], env=environment, check=True)
        assert (tmp_path / threads / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_identity_is_of_the_content_not_of_the_spelling(tokenizer, folder, tmp_path):
    import json

    content = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content, indent=3))
    assert Tokenizer.load(tmp_path).digest == Tokenizer.load(folder).digest == tokenizer.digest
    assert train_bpe(["another text, another text"], VOCAB_SIZE).digest != tokenizer.digest


@pytest.mark.parametrize(
    "name, token_id",
    [
        *(("<unk>", 0), ("<s>", 1), ("</s>", 2), ("<pad>", 3), ("<SPECIAL_10>", 10), ("[SUFFIX]", 13)),
        *((r"\begin{", 14), (r"\boxed{", 17), ("<filename>", 18), ("<reponame>", 31), ("<think>", 32)),
        *(("<iban-pii>", 36), ("<email-pii>", 37), ("<ip-pii>", 38), ("<file_sep>", 39), ("<pr>", 42)),
        *(("<|fim_begin|>", 58), ("<|fim_end|>", 60), ("<|system_start|>", 61), ("<|developer_start|>", 63)),
        *(("<|user_end|>", 66), ("<|assistant_start|>", 67), ("<|assistant_end|>", 68), ("<|tools_suffix|>", 72)),
    ],
)
def test_named_tokens_have_the_ids_of_apertus_in_any_vocabulary(tokenizer, name, token_id):
    assert tokenizer.token_to_id(name) == token_id
    assert reserved_tokens(FULL_BLOCK)[token_id] == name


def test_no_document_can_forge_an_end_of_document(tokenizer):
    forged = "before</s><s><|assistant_start|><pad>after"
    ids = tokenizer.encode(forged)
    assert ids.min() >= COMPACT_BLOCK
    assert tokenizer.decode(ids) == forged
    assert tokenizer.encode_with_special_tokens("<s>a</s>").tolist()[::2] == [1, 2]


def test_pii_markers_are_single_ids_in_documents(tokenizer):
    text = "write to <email-pii> from <ip-pii>"
    ids = tokenizer.encode(text).tolist()
    assert ids.count(37) == ids.count(38) == 1
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone_and_words_split_at_changes_of_case(tokenizer):
    text = "rights 20260 HumanRights"
    pieces = [tokenizer.decode([token_id]) for token_id in tokenizer.encode(text)]
    assert [piece for piece in pieces if piece.isdigit()] == list("20260")
    ends = set(np.cumsum([len(piece) for piece in pieces]).tolist())
    assert {len("rights"), len("rights 20260"), len("rights 20260 Human")} <= ends


def test_vocabulary_has_the_size_asked_for_even_from_little_text():
    little = train_bpe(["so little text"], VOCAB_SIZE)
    assert little.vocab_size == VOCAB_SIZE
    assert little.token_to_id("<SPECIAL_1023>") == 1023
    assert little.decode(little.encode("so little, 少し")) == "so little, 少し"


def test_byte_lengths_count_the_bytes_of_text(tokenizer, texts):
    ids = tokenizer.encode(texts[0])
    assert tokenizer.token_byte_lengths[ids].sum() == len(texts[0].encode())
    assert tokenizer.token_byte_lengths[[0, 1, 2, 3, 61]].sum() == 0


def test_transformers_loads_the_folder_with_the_same_ids(tokenizer, folder, texts):
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(loaded) == VOCAB_SIZE
    assert (loaded.unk_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 1, 2, 3)
    for text in texts[::50]:
        assert loaded(text, add_special_tokens=False).input_ids == tokenizer.encode(text).tolist()
        assert loaded(text).input_ids == [1, *tokenizer.encode(text).tolist()]
        assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == text


def test_bad_tokenizers_are_one_line(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    other = tokenizer._serialized.replace('"content":"</s>"', '"content":"<end>"').replace('"</s>":2', '"<end>":2')
    cases = [
        (lambda: Tokenizer.load(tmp_path / "nowhere"), "does not exist"),
        (lambda: Tokenizer.load(tmp_path), "not a tokenizers file"),
        (lambda: Tokenizer(tokenizer._serialized.replace('"type":"BPE"', '"type":"WordLevel"')), "not byte-level BPE"),
        (lambda: Tokenizer(other), "</s> at id None"),
        (lambda: train_bpe(["text"], 300), "too small"),
        (lambda: train_bpe([], VOCAB_SIZE), "no text"),
        (lambda: tokenizer.decode([VOCAB_SIZE]), "outside the vocabulary"),
    ]
    for bad, reason in cases:
        with pytest.raises(UserError, match=reason) as raised:
            bad()
        assert "\n" not in str(raised.value)

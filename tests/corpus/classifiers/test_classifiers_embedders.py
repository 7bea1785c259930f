"""Embedders: the hash against a plain reading of its definition, XLM-R against transformers, both against batching."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.classifiers import HashedNgramEmbedding, TransformerEmbedding
from apertus_jax.errors import UserError
from tests.processor_time import assert_linear, repeated

MASK = (1 << 64) - 1
TEXTS = [
    "The quick brown fox, over and over.",
    "Der Fluß ﬁel über die Brücke\n\n– 12 Mal.",
    "हिन्दी में एक छोटा वाक्य",
    "日本語の文章です。改行もあります",
    "😀 emoji 𝒜 and\x00 controls",
    "a",
    "",
    "  \n ",
]


def mix(value):
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) & MASK
    return value ^ (value >> 31)


def plain_embedding(text, dimensions):
    """The definition with Python integers, one n-gram after the other."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    if not words:
        return np.zeros(dimensions)
    fold = 0x9E3779B97F4A7C15
    points = [ord(character) for character in f" {' '.join(words)} "]
    hashes = []
    for length in (1, 2, 3, 4):
        for start in range(len(points) - length + 1):
            value = 0
            for point in points[start : start + length]:
                value = (value * fold + point + 1) & MASK
            hashes.append(mix(value ^ (length << 56)))
    runs, run = [], []
    for point in points:
        if point >= 0x20000 or unicodedata.category(chr(point))[0] in "LMN":
            run.append(point)
        elif run:
            runs, run = [*runs, run], []
    found = []
    for run in runs:
        letters = [mix((point * fold + place) & MASK) for place, point in enumerate(run)]
        found.append(mix((sum(letters) & MASK) ^ 0x5851F42D4C957F2D))
    pairs = zip(found, found[1:], strict=False)
    hashes += found + [mix(((first * fold + second) & MASK) ^ 0x14057B7EF767814F) for first, second in pairs]
    counts = [0] * dimensions
    for value in hashes:
        counts[(value >> 1) % dimensions] += 1 if value & 1 else -1
    values = [math.copysign(1 + math.log(abs(count)), count) if count else 0.0 for count in counts]
    length = math.sqrt(sum(value * value for value in values))
    return np.array(values) / (length or 1.0)


@pytest.mark.parametrize("text", TEXTS)
def test_hashed_ngrams_equal_their_definition(text):
    embedder = HashedNgramEmbedding(dimensions=512).build()
    found = embedder.embed(embedder.chunks(text))
    assert found.shape == (1, 512) and found.dtype == np.float16
    np.testing.assert_allclose(found[0].astype(float), plain_embedding(text, 512), rtol=1e-3, atol=1e-7)


@given(st.text(max_size=900), st.integers(64, 200))
@settings(max_examples=150, deadline=None)
def test_chunks_leave_nothing_out(text, size):
    chunks = HashedNgramEmbedding(chunk_characters=size).build().chunks(text)
    assert "".join(chunks) == text and chunks
    assert all(len(chunk) <= size for chunk in chunks)
    assert all(len(chunk) >= size * 7 // 8 for chunk in chunks[:-1])


def test_chunks_do_not_cut_words_where_there_is_space():
    text = "seven letters " * 100
    chunks = HashedNgramEmbedding(chunk_characters=100).build().chunks(text)
    assert all(chunk.endswith(" ") for chunk in chunks)


def test_hashed_vectors_do_not_depend_on_neighbours_or_process():
    embedder = HashedNgramEmbedding().build()
    together = embedder.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert together.tobytes() == alone.tobytes()
    code = (
        "import hashlib; from apertus_jax.corpus.classifiers import HashedNgramEmbedding as H;"
        f"print(hashlib.sha256(H().build().embed({TEXTS!r}).tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert digests.pop().strip() == hashlib.sha256(together.tobytes()).hexdigest()


@pytest.mark.parametrize("unit", ["\u0301\u0323", "a", "\u200b", "x ", "\ufdfa"])
@pytest.mark.timed
def test_hostile_text_takes_linear_time(unit):
    embedder = HashedNgramEmbedding().build()
    assert_linear(lambda text: embedder.embed(embedder.chunks(text)), repeated(unit), 10_000)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="1000 must be a power of two"):
        HashedNgramEmbedding(dimensions=1000)
    with pytest.raises(UserError, match="chunk_characters 3"):
        HashedNgramEmbedding(chunk_characters=3)


def test_importing_classifiers_imports_neither_torch_nor_jax():
    code = (
        "import sys, apertus_jax.corpus.classifiers as c; c.HashedNgramEmbedding().build();"
        "c.TransformerEmbedding(weights='x'); print([m for m in ('torch', 'transformers', 'jax') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny XLM-R with random weights and a tokenizer made here."""
    import tokenizers
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("xlmr")
    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    model.train_from_iterator(TEXTS, trainer)
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=model, **names)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(
        vocab_size=model.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=70,
    )
    transformers.XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def test_transformer_embedding_is_the_mean_over_the_mask(weights):
    import torch
    import transformers

    texts = [text for text in TEXTS if text.strip()]
    embedder = TransformerEmbedding(weights, max_tokens=64).build()
    found = np.concatenate([embedder.embed(embedder.chunks(text)) for text in texts])
    # The reference pads: one batch under an attention mask.
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights)
    model = transformers.AutoModel.from_pretrained(weights).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    with torch.inference_mode():
        hidden = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    expected = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    np.testing.assert_allclose(found.astype(np.float32), expected.numpy(), rtol=2e-3, atol=2e-3)


def test_long_text_keeps_its_overflowing_chunks(weights):
    embedder = TransformerEmbedding(weights, max_tokens=16).build()
    text = "The quick brown fox, over and over. " * 20
    chunks = embedder.chunks(text)
    whole = TransformerEmbedding(weights, max_tokens=4096).build().chunks(text)
    assert len(whole) == 1 and len(chunks) == math.ceil((len(whole[0]) - 2) / 14)
    assert all(len(chunk) <= 16 and (chunk[0], chunk[-1]) == (0, 2) for chunk in chunks)
    assert [token for chunk in chunks for token in chunk[1:-1]] == list(whole[0][1:-1])


def test_transformer_vectors_do_not_depend_on_neighbours(weights):
    embedder = TransformerEmbedding(weights, max_tokens=64).build()
    chunks = [embedder.chunks(text)[0] for text in TEXTS]
    alone = np.concatenate([embedder.embed([chunk]) for chunk in chunks])
    assert embedder.embed(chunks).tobytes() == alone.tobytes()


def test_transformer_identity_is_the_digest_of_weights_no_path(weights, tmp_path):
    first = TransformerEmbedding(weights).build().identity()
    copy = shutil.copytree(weights, tmp_path / "copy")
    assert TransformerEmbedding(str(copy)).build().identity() == first
    assert weights not in str(first) and first["implementation"] == "transformer"
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert TransformerEmbedding(str(copy)).build().identity() != first


def test_missing_weights_and_missing_packages_are_one_clear_line(weights, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="weights is empty"):
        TransformerEmbedding()
    with pytest.raises(UserError, match="is not a folder"):
        TransformerEmbedding(str(tmp_path / "nothing")).build()
    with pytest.raises(UserError, match="model with tokenizer") as caught:
        TransformerEmbedding(str(tmp_path)).build()
    assert "\n" not in str(caught.value)
    broken = shutil.copytree(weights, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match="model with tokenizer") as caught:
        TransformerEmbedding(str(broken)).build()
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="needs the package torch"):
        TransformerEmbedding(str(tmp_path)).build()


def test_a_model_folder_runs_no_code_and_no_pickle(weights, tmp_path):
    """Whatever its config.json asks for: Python beside the weights is not imported, weights are safetensors."""
    import torch

    code = shutil.copytree(weights, tmp_path / "code")
    config = json.loads((code / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (code / "config.json").write_text(json.dumps(config))
    (code / "mine.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    pickled = shutil.copytree(weights, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    for folder in (code, pickled):
        with pytest.raises(UserError, match="cannot be loaded as a model with tokenizer"):
            TransformerEmbedding(str(folder)).build()
    assert not (tmp_path / "owned").exists()

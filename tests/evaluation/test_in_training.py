"""The evaluators of the training loop against plain sums over the same documents."""

import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from apertus_jax import sharding
from apertus_jax.data import TokenStore, tokenize
from apertus_jax.errors import UserError
from apertus_jax.evaluation.in_training import HeldOutEvaluator, draw_documents, pooled_metrics
from apertus_jax.evaluation.losses import score_documents
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.model import ModelConfig, init_parameters

MODEL = ModelConfig(384, 32, 48, 2, 4, 2, max_position_embeddings=64)
LANGUAGES = ("eng_Latn", "deu_Latn", "ell_Grek")
WORDS = {"Latn": ("sun", "Mond", "river", "Stein", "bread"), "Grek": ("ήλιος", "πέτρα", "ψωμί", "άνεμος", "φως")}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("in_training")
    generator = np.random.default_rng(0)
    with (root / "texts.jsonl").open("w") as file:
        for number in range(90):
            language = LANGUAGES[number % 3]
            words = generator.choice(WORDS[language[-4:]], generator.integers(3, 90))
            row = {"id": str(number), "text": " ".join(words) + f" {number}", "language": language}
            file.write(json.dumps(row) + "\n")
    tokenize(str(root / "texts.jsonl"), root / "store", vocab_size=384, held_out_fraction=0.4)
    return TokenStore.open(root / "store")


@pytest.fixture(scope="module")
def params():
    return init_parameters(MODEL, jax.random.key(0))


def everything(store):
    """All held-out documents with their language and size, in the order of the store."""
    source = store.source("held_out")
    starts = source.document_starts
    documents = [np.asarray(source.tokens(int(a), int(b - a))) for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return documents, source.documents["language"].to_pylist(), source.documents["utf8_bytes"].to_numpy()


def test_held_out_source_gives_loss_and_bits_of_each_group(store, params):
    mesh, rules = sharding.make_mesh(sharding.MeshConfig(data=8)), sharding.PRESETS["cpu"]
    view = SimpleNamespace(config=MODEL, params=params, mesh=mesh, axis_rules=rules, store=store)
    evaluator = HeldOutEvaluator(1000, group_by="language", sequence_length=32, batch_tokens=512)
    evaluator.prepare(view)
    metrics = evaluator(view, consumed=0)
    documents, languages, utf8_bytes = everything(store)
    assert all(tokens[-1] == store.eod_id for tokens in documents)
    plain = LikelihoodScorer(MODEL, params, longest=32, batch_tokens=512, smallest_bucket=32)
    losses = score_documents(plain, documents)
    assert len(set(languages)) == 3
    for suffix, chosen in [
        ("", range(len(documents))),
        *((f"/{name}", [i for i, each in enumerate(languages) if each == name]) for name in LANGUAGES),
    ]:
        total = sum(losses[i].sum(dtype=np.float64) for i in chosen)
        assert metrics[f"loss{suffix}"] == pytest.approx(total / sum(len(losses[i]) for i in chosen), rel=1e-6)
        text = sum(losses[i][:-1].sum(dtype=np.float64) for i in chosen)  # </s> is no text
        bits = text / math.log(2) / sum(int(utf8_bytes[i]) for i in chosen)
        assert metrics[f"bits_per_byte{suffix}"] == pytest.approx(bits, rel=1e-6)
    assert len(metrics) == 8 and next(iter(metrics)) == "loss"


def test_sample_is_bounded_seeded_and_cut_at_document_starts(store):
    first = draw_documents(store, "held_out", 500, 40, "script", seed=1)
    assert sum(len(tokens) - 1 for tokens in first.documents) == 500
    assert all(tokens[0] == store.bod_id and 2 <= len(tokens) <= 40 for tokens in first.documents)
    assert set(first.groups) == {"Latn", "Grek"}
    same = draw_documents(store, "held_out", 500, 40, "script", seed=1)
    other = draw_documents(store, "held_out", 500, 40, "script", seed=2)
    assert all(map(np.array_equal, first.documents, same.documents))
    assert not all(map(np.array_equal, first.documents, other.documents))
    for tokens, sizes in zip(first.documents, first.token_bytes, strict=True):
        assert sizes.sum() == len(store.tokenizer.decode_bytes(tokens[1:], skip_special_tokens=True))


def test_pooled_figures_are_ratios_of_sums_largest_group_first():
    losses = [np.full(10, 1.0, np.float32), np.full(30, 2.0, np.float32), np.full(5, 4.0, np.float32)]
    metrics = pooled_metrics(["Latn", "Grek", ""], losses, [np.full(len(each), 2) for each in losses])
    assert list(metrics) == [
        "loss",
        "bits_per_byte",
        "loss/Grek",
        "bits_per_byte/Grek",
        "loss/Latn",
        "bits_per_byte/Latn",
    ]
    assert metrics["loss"] == pytest.approx(90 / 45) and metrics["loss/Grek"] == 2.0
    assert metrics["bits_per_byte"] == pytest.approx(90 / math.log(2) / 90)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"every_tokens": 0}, "every_tokens=0 must be at least 1"),
        ({"every_tokens": 1, "group_by": "country"}, "group_by='country' must be one of"),
        ({"every_tokens": 1, "tokens_per_document": 1}, "tokens_per_document=1 must be at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        HeldOutEvaluator(**fields)


def test_a_store_without_that_source_is_refused_before_training(store):
    with pytest.raises(UserError, match="no source 'test'"):
        HeldOutEvaluator(1000, source="test").prepare(SimpleNamespace(store=store))

"""Held-out losses against plain references."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from apertus_jax.errors import UserError
from apertus_jax.evaluation import held_out_metrics
from apertus_jax.evaluation.evaluate_command import evaluate
from apertus_jax.evaluation.held_out_metrics import Metric, group_losses
from apertus_jax.evaluation.intervals import loss_interval, ratio_interval
from apertus_jax.evaluation.losses import document_losses, own_entropy, unigram_losses
from apertus_jax.model import ModelConfig, Transformer, init_parameters
from apertus_jax.model.model_folder import save_model

MODEL = ModelConfig(512, 32, 48, 2, 4, 2)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: leaf * 3, init_parameters(MODEL, jax.random.key(0)))


def plain_losses(params, tokens):
    """Token losses of one text on its own, in one window; padded to one shape on the right."""
    padded = np.zeros((1, 64), np.int32)
    padded[0, : len(tokens) - 1] = tokens[:-1]
    logits = plain_forward(params, padded)[0, : len(tokens) - 1]
    return np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(tokens[1:])))


@jax.jit
def plain_forward(params, tokens):
    return Transformer(MODEL).apply({"params": params}, tokens)


def test_losses_in_buckets_equal_each_document_on_its_own(params):
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, 512, length).astype(np.int32) for length in (5, 40, 3, 61, 33)]
    found = document_losses(MODEL, params, documents, sequence_length=64, tokens_per_batch=128)
    for tokens, losses in zip(documents, found, strict=True):
        np.testing.assert_allclose(losses, plain_losses(params, tokens), rtol=2e-6)


def test_long_documents_have_every_token_predicted_once(params):
    tokens = np.random.default_rng(1).integers(0, 512, 101).astype(np.int32)
    (losses,) = document_losses(MODEL, params, [tokens], sequence_length=32, tokens_per_batch=64)
    whole = [plain_losses(params, tokens[start : start + 33]) for start in (0, 32, 64)]
    last = plain_losses(params, tokens[68:])[-4:]  # the last window reaches back for context
    np.testing.assert_allclose(losses, np.concatenate([*whole, last]), rtol=2e-6)
    assert len(losses) == 100


def test_unigram_is_the_smoothed_frequency_of_the_training_text():
    counts = np.array([0, 3, 1, 0])
    expected = -(math.log(4 / 8) + math.log(1 / 8))
    assert unigram_losses([np.array([2, 1, 3])], counts) == pytest.approx([expected])


def test_no_unigram_model_beats_the_texts_own_entropy():
    generator = np.random.default_rng(2)
    documents = [generator.zipf(1.5, 300) % 50 for _ in range(4)]
    own = own_entropy(documents, 50)
    labels = sum(len(each) - 1 for each in documents)
    for seed in range(20):
        counts = np.random.default_rng(seed).integers(0, 500, 50)
        assert unigram_losses(documents, counts).sum() / labels >= own
    exact = np.bincount(np.concatenate([each[1:] for each in documents]), minlength=50)
    assert unigram_losses(documents, exact * 10_000).sum() / labels == pytest.approx(own, rel=1e-3)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        sizes = generator.integers(20, 60, 40).astype(float)
        lower, upper = ratio_interval(generator.normal(2.0, 0.5, 40) * sizes, sizes, seed, resamples=300)
        covered += lower <= 2.0 <= upper
    assert 0.86 <= covered / 200 <= 0.99


def test_few_documents_are_resampled_in_blocks_and_say_so():
    losses = [np.random.default_rng(4).normal(3, 1, 640).astype(np.float32)]
    lower, upper, unit = loss_interval(losses, seed=0)
    assert unit == "blocks of 32 tokens" and lower < losses[0].mean() < upper
    *_, unit = loss_interval(losses * 8, seed=0)
    assert unit == "documents"


def test_groups_pool_tokens_not_documents():
    losses = [np.full(10, 1.0, np.float32), np.full(30, 2.0, np.float32)]
    (group,) = group_losses(["Latn", "Latn"], losses, np.array([20.0, 60.0]), [np.full(10, 2), np.full(30, 2)], seed=0)
    assert group["nats_per_token"] == pytest.approx(70 / 40)
    assert group["bits_per_byte"] == pytest.approx(70 / math.log(2) / 80)
    assert group["unigram_nats_per_token"] == pytest.approx(2.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from apertus_jax.data import tokenize
    from tests.tiny_experiment import write_documents

    root = tmp_path_factory.mktemp("evaluation")
    write_documents(root / "one.jsonl", 120, seed=1)
    tokenize(str(root / "one.jsonl"), root / "store", vocab_size=384, held_out_fraction=0.1)
    return root / "store"


def test_results_are_valid_json_and_a_second_call_reads_them(params, store, tmp_path):
    save_model(tmp_path / "model", ModelConfig(384, 32, 48, 2, 4, 2), parameters_of(384), store / "tokenizer")
    first = evaluate(str(tmp_path / "model"), str(store), str(tmp_path / "out"), sequence_length=64)
    text = (tmp_path / "out" / "results.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert first["pooled"]["nats_per_token"] == pytest.approx(math.log(384), rel=0.02), (
        "an untrained model knows nothing"
    )
    assert "no 13-gram is shared" in first["overlap"]
    assert evaluate(str(tmp_path / "model"), str(store), str(tmp_path / "out"), sequence_length=64) == first
    with pytest.raises(UserError, match="made with other sequence_length"):
        evaluate(str(tmp_path / "model"), str(store), str(tmp_path / "out"), sequence_length=32)


def test_a_metric_in_the_table_is_written_and_shown(params, store, tmp_path, monkeypatch, capsys):
    save_model(tmp_path / "model", ModelConfig(384, 32, 48, 2, 4, 2), parameters_of(384), store / "tokenizer")
    longest = Metric(lambda group: max(map(len, group.losses)), "longest here", "longest", "longest of all")
    monkeypatch.setitem(held_out_metrics.METRICS, "longest", longest)
    monkeypatch.setenv("COLUMNS", "200")
    given = (str(tmp_path / "model"), str(store), str(tmp_path / "out"))
    results = evaluate(*given, sequence_length=64, check_overlap=False)
    assert results["pooled"]["longest"] == max(row["longest"] for row in results["scripts"]) > 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert ">longest here</th>" in page and ">longest of all</th>" in page
    assert "longest" in capsys.readouterr().out


def parameters_of(vocab_size):
    """Fresh parameters for another vocabulary."""
    return init_parameters(ModelConfig(vocab_size, 32, 48, 2, 4, 2), jax.random.key(1))


def test_a_model_of_another_vocabulary_is_refused(store, tmp_path):
    save_model(tmp_path / "model", MODEL, init_parameters(MODEL, jax.random.key(0)))
    with pytest.raises(UserError, match="vocabulary 512 but .* has 384"):
        evaluate(str(tmp_path / "model"), str(store), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()

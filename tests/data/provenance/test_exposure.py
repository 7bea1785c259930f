"""Trained tokens by language against brute force over the batches themselves."""

import collections

import numpy as np
import pyarrow
import pytest

from apertus_jax.data.provenance.language_shares import language_exposure
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.data.sample_order.mixture import Mixture, MixtureStage
from apertus_jax.data.sample_order.sample_stream import build_stream
from apertus_jax.training.records.finish import _in_languages


class InMemorySource:
    """Documents of given lengths; every token of document i is the number i."""

    def __init__(self, lengths, languages):
        self.document_starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.num_documents = len(lengths)
        self.num_tokens = int(self.document_starts[-1])
        self.documents = pyarrow.table({"language": languages, "document_id": [str(i) for i in range(len(lengths))]})
        self.owner = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)

    def tokens(self, start, length):
        return self.owner[start : start + length]


@pytest.fixture
def stream():
    generator = np.random.default_rng(0)
    sources = {
        "a": InMemorySource(generator.integers(1, 40, 60), [f"l{i % 7:02d}_Latn" for i in range(60)]),
        "b": InMemorySource(generator.integers(1, 90, 20), ["eng_Latn"] * 20),
    }
    mixture = Mixture([MixtureStage(rates={"a": 0.6, "b": 0.4})])
    return build_stream(sources, mixture, BatchSchedule(4), sequence_length=16, seed=3)


def test_language_counts_equal_brute_force_over_the_tokens(stream):
    expected = collections.Counter()
    located = stream.locate(np.arange(200))
    for entry, _, sample in zip(*(part.tolist() for part in located), strict=True):
        source = stream.sources[entry].tokens
        owners = source.tokens(sample * 16, 17)[1:]
        expected.update(source.documents.column("language")[int(owner)].as_py() for owner in owners)
    exposure = language_exposure(stream, 200)
    assert exposure.exact and exposure.tokens == dict(expected)
    assert exposure.share("eng") == expected["eng_Latn"] / (200 * 16)


def test_long_runs_are_estimated_and_say_so(stream):
    estimate = language_exposure(stream, 100_000, max_samples=2000)
    assert not estimate.exact
    assert sum(estimate.tokens.values()) == pytest.approx(100_000 * 16, rel=1e-3)
    assert estimate.share("eng") == pytest.approx(0.4, abs=0.03)


def test_text_without_a_label_is_of_unknown_language():
    labels = ["eng_Latn", "en", "en-GB", "deu_Latn", "und", "und_Latn", "", None, "zxx", "not a label"]
    source = InMemorySource([21] * len(labels), labels)
    stream = build_stream({"a": source}, Mixture([MixtureStage(rates={"a": 1.0})]), BatchSchedule(1), 20, seed=0)
    exposure = language_exposure(stream, 10)
    counts = collections.Counter()
    for label, count in exposure.tokens.items():
        is_english = label in ("eng_Latn", "en", "en-GB")
        counts["english" if is_english else "other" if label == "deu_Latn" else "unknown"] += count
    assert exposure.shares() == {name: counts[name] / sum(counts.values()) for name in ("english", "other", "unknown")}
    assert counts["unknown"] > counts["english"] > counts["other"] > 0
    assert exposure.num_languages == 4  # labels that name a language


def test_last_line_of_a_run_tells_unknown_from_foreign():
    summary = {"languages": 3, "non_english_share": 0.25, "unknown_language_share": 0.0}
    assert _in_languages(summary) == "in 3 languages, 25 % not English"
    summary["unknown_language_share"] = 0.5
    assert _in_languages(summary) == "in 3 languages, 25 % not English, 50 % of unknown language"
    alone = {"languages": 0, "non_english_share": 0.0, "unknown_language_share": 1.0}
    assert _in_languages(alone) == "100 % of unknown language"

"""Trained tokens by language against brute force over the batches themselves."""

import collections

import numpy as np
import pyarrow
import pytest

from apertus_jax.data.batch_schedule import BatchSchedule
from apertus_jax.data.exposure import language_exposure
from apertus_jax.data.mixture import Mixture, MixtureStage
from apertus_jax.data.sample_stream import build_stream


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
    estimate = language_exposure(stream, 100_000, most_samples=2000)
    assert not estimate.exact
    assert sum(estimate.tokens.values()) == pytest.approx(100_000 * 16, rel=1e-3)
    assert estimate.share("eng") == pytest.approx(0.4, abs=0.03)

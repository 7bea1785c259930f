"""The published hash drops less than was meant; the document hash drops what was meant. Measured, not claimed."""

import pathlib
import runpy
import sys

import numpy as np
import pytest
from scipy import stats

from apertus_jax.errors import UserError
from apertus_jax.objectives import goldfish_mask, measure_drop_rate

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "goldfish_rates.py"


@pytest.fixture(scope="module")
def uniform_documents():
    return np.random.default_rng(0).integers(0, 131072, (200, 1024))


def test_published_hash_collapses_and_spares_the_first_labels(uniform_documents):
    measured = measure_drop_rate(uniform_documents, "megatron")
    assert 0.085 < measured.collapsed_share < 0.105
    assert 0.0145 < measured.rate < 0.0165
    assert measured.first_dropped == 0 and measured.first_labels == 200 * 49


def test_document_hash_drops_one_in_k_everywhere(uniform_documents):
    measured = measure_drop_rate(uniform_documents, "document")
    for dropped, labels in [(measured.dropped, measured.labels), (measured.first_dropped, measured.first_labels)]:
        low, high = stats.binom.ppf([1e-6, 1 - 1e-6], labels, 1 / 50)
        assert low <= dropped <= high
    assert measured.collapsed_share is None


def test_counts_do_not_depend_on_rows_measured_at_once(monkeypatch, uniform_documents):
    documents = uniform_documents[:7, :60]
    monkeypatch.setattr("apertus_jax.objectives.rates._LABELS_AT_ONCE", 120)
    measured = measure_drop_rate(documents, "document", k=3, h=5)
    drops = ~np.asarray(goldfish_mask(documents.astype(np.int32), 3, 5))
    assert (measured.dropped, measured.first_dropped) == (drops.sum(), drops[:, :4].sum())


@pytest.mark.parametrize("shape", [(8,), (0, 4)])
def test_documents_that_are_no_matrix_are_named(shape):
    with pytest.raises(UserError, match="documents of shape"):
        measure_drop_rate(np.zeros(shape, np.int64), "document")


def test_table_shows_both_strategies_under_the_real_vocabulary(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--tokens", "20000"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    for word in ("uniform", "Zipf", "English", "code", "megatron", "document", "2.00 % meant"):
        assert word in printed

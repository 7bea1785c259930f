"""Units of `prepare`: enough for all cores on a small corpus, and no kept byte depends on how many there are."""

import json

import pytest

from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.prepare import prepare
from apertus_jax.corpus.prepare.plan import make_plan
from apertus_jax.corpus.sources import Source, unit_size
from apertus_jax.storage import artifacts
from tests.corpus.prepare.prepare_inputs import AS_OF, small_policy, write_corpus
from tests.corpus.prepare.test_prepare import ledger_rows

SHARDS, SHARD_BYTES = 3, 2_000_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two megabytes in each of three files, few of their rows documents of their own."""
    root = tmp_path_factory.mktemp("corpus")
    for number in range(SHARDS):
        line = json.dumps({"id": f"{number}", "text": "word " * 2000}) + "\n"
        (root / f"part-{number}.jsonl").write_text(line * (SHARD_BYTES // len(line)))
    return root


def units(path, work, unit_bytes=0):
    return make_plan([Source(name="mine", path=str(path))], work, AS_OF, unit_bytes).units


def test_small_corpus_is_cut_for_several_cores(corpus, tmp_path):
    cut = units(corpus, tmp_path)
    assert unit_size([Source(name="mine", path=str(corpus))]) == 1_000_000
    assert len(cut) == 2 * SHARDS and max(unit.size for unit in cut) < 1_100_000
    assert len(units(corpus, tmp_path, 64_000_000)) == 1  # as it was


def test_size_of_units_follows_the_corpus_within_bounds(tmp_path):
    sizes = {}
    for total in (10, 40_000_000, 2_500_000_000):
        with (tmp_path / f"{total}.jsonl").open("wb") as file:
            file.truncate(total)  # a hole: nothing is stored
        sizes[total] = unit_size([Source(name="mine", path=str(tmp_path / f"{total}.jsonl"))])
    assert sizes == {10: 1_000_000, 40_000_000: 1_250_000, 2_500_000_000: 64_000_000}


def test_kept_bytes_do_not_depend_on_the_units(tmp_path):
    """Every document with every field, in its order, and every decision: 1 unit against 9 and against the default."""
    documents, found = write_corpus(tmp_path / "docs"), []
    for unit_bytes in (64_000_000, 6_000, 0):
        output = tmp_path / str(unit_bytes)
        options = {"launcher": "inline", "as_of": AS_OF, "progress": False, "unit_bytes": unit_bytes}
        prepare(str(output), small_policy(), str(documents), **options)
        manifest = artifacts.read_manifest(output, "prepared_corpus")
        found.append((len(manifest["summary"]["parts"]), list(read_documents(output)), ledger_rows(output)))
    (one, *first), (many, *second), (_, *third) = found
    assert one < many and first == second == third and len(first[0]) > 20

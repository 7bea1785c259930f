"""Clusters over a corpus: right, the same whatever the order, the files and the memory, and named by survivors."""

import hashlib
import itertools
import tracemalloc
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.duplicates import (
    DuplicateRule,
    DuplicateScoring,
    KeyWriter,
    OrdinalTable,
    choose_survivors,
    find_clusters,
    key_records,
    write_keys,
)
from apertus_jax.corpus.duplicates.external_sort import SMALLEST_MEMORY, RowSorter, sort_rows
from apertus_jax.corpus.duplicates.row_files import SortedLookup, group_sizes, grouped, rebatched
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.errors import UserError

BANDS = 3


def random_records(generator, count, distinct_keys, scopes=2):
    """Returns key records with few different keys, so that chains and stars of all kinds appear."""
    records = np.empty((count, 4 + BANDS), np.uint64)
    records[:, 0] = np.sort(generator.choice(10 * count, count, replace=False))
    records[:, 1] = generator.integers(0, scopes, count)
    records[:, 2] = 7
    records[:, 3] = generator.integers(0, 4 * distinct_keys, count)
    records[:, 4:] = generator.integers(0, distinct_keys, (count, BANDS)) + 1000 * np.arange(BANDS)
    # The same text has the same bands.
    for row in records:
        twin = records[(records[:, 3] == row[3])][0]
        row[4:] = twin[4:]
    return records


def brute_force(records):
    """Returns ordinal → (cluster, original, size, exact) by breadth-first search over shared keys."""
    holders = defaultdict(list)
    for row in records.tolist():
        holders["text", row[1], row[2], row[3]].append(row[0])
        for band, key in enumerate(row[4:]):
            holders[band, row[1], key].append(row[0])
    neighbours = defaultdict(set)
    for group in holders.values():
        for member in group:
            neighbours[member].update(group)
    original = {member: min(group) for key, group in holders.items() if key[0] == "text" for member in group}
    result, seen = {}, set()
    for start in records[:, 0].tolist():
        if start in seen:
            continue
        component, pending = {start}, [start]
        while pending:
            fresh = neighbours[pending.pop()] - component
            component |= fresh
            pending.extend(fresh)
        seen |= component
        if len(component) > 1:
            head = min(component)
            for member in component:
                result[member] = (head, original[member], len(component), original[member] == head)
    return result


def found(path):
    table = pq.read_table(path)
    assert table.column("ordinal").to_pylist() == sorted(table.column("ordinal").to_pylist())
    rows = zip(
        *(table.column(name).to_pylist() for name in ("ordinal", "cluster", "original", "size", "exact")), strict=True
    )
    return {ordinal: tuple(rest) for ordinal, *rest in rows}


@given(st.integers(0, 2**32), st.integers(1, 120), st.integers(2, 400))
@settings(max_examples=40, deadline=None)
def test_clusters_equal_brute_force(tmp_path_factory, seed, count, distinct_keys):
    folder = tmp_path_factory.mktemp("keys")
    records = random_records(np.random.default_rng(seed), count, distinct_keys)
    write_keys(folder / "a.keys", records, BANDS)
    summary = find_clusters([folder / "a.keys"], folder / "clusters.parquet", folder)
    expected = brute_force(records)
    assert found(folder / "clusters.parquet") == expected
    assert summary["documents"] == count
    assert summary["clustered_documents"] == len(expected)
    assert summary["clusters"] == len({row[0] for row in expected.values()})
    assert summary["largest_cluster"] == max((row[2] for row in expected.values()), default=0)


def test_same_bytes_for_any_files_order_and_memory(tmp_path, monkeypatch):
    records = random_records(np.random.default_rng(1), 6000, 5000)
    digests = set()
    monkeypatch.setattr("apertus_jax.corpus.duplicates.external_sort.FAN_IN", 3)
    monkeypatch.setattr("apertus_jax.corpus.duplicates.clusters.SMALLEST_MEMORY", 1)
    for workers, memory in itertools.product((1, 4, 16), (3 * SMALLEST_MEMORY, 1 << 20, 256 << 20)):
        paths = []
        for worker, part in enumerate(np.array_split(records, workers)):
            # Names against the order of ordinals, files in a shuffled order.
            paths.append(tmp_path / f"{workers}-{workers - worker:03d}.keys")
            write_keys(paths[-1], part, BANDS)
        np.random.default_rng(memory).shuffle(paths)
        find_clusters(paths, tmp_path / "out.parquet", tmp_path / "work", memory)
        digests.add(hashlib.blake2b((tmp_path / "out.parquet").read_bytes()).hexdigest())
        assert not list((tmp_path / "work").iterdir()), "temporary files are left"
    assert len(digests) == 1
    assert found(tmp_path / "out.parquet") == brute_force(records)


def test_chain_of_links_is_one_cluster_after_few_rounds(tmp_path):
    """Neighbours on a long chain share one band each; the chain is shuffled, so no order helps."""
    count = 3000
    place = np.random.default_rng(0).permutation(count).astype(np.uint64)
    records = np.zeros((count, 4 + 2), np.uint64)
    records[:, 0] = np.arange(count)
    records[:, 3] = np.arange(count) + 1
    records[:, 4] = place // 2 + 10_000
    records[:, 5] = (place + 1) // 2 + 20_000
    write_keys(tmp_path / "a.keys", records, 2)
    summary = find_clusters([tmp_path / "a.keys"], tmp_path / "out.parquet", tmp_path)
    assert summary["clusters"] == 1 and summary["largest_cluster"] == count
    assert summary["rounds"] <= 16


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    """Half of the documents are copies. Six times as many take no more memory; NumPy tells tracemalloc of its own."""
    monkeypatch.setattr("apertus_jax.corpus.duplicates.ordinal_tables.ROWS_PER_GROUP", 1024)
    monkeypatch.setattr("apertus_jax.corpus.duplicates.survivors.ORDINALS_AT_ONCE", 1024)
    generator = np.random.default_rng(0)
    peaks = []
    for count in (10, 4_000, 24_000):  # The first one imports.
        records = np.ones((count, 4 + BANDS), np.uint64)
        records[:, 0] = np.arange(count)
        records[:, 3] = generator.integers(0, count, count)
        records[:, 4:] = generator.integers(0, 8 * count, (count, BANDS))
        write_keys(tmp_path / "a.keys", records, BANDS)
        del records
        tracemalloc.start()
        summary = find_clusters([tmp_path / "a.keys"], tmp_path / "clusters.parquet", tmp_path, 1 << 20)
        survivors = tmp_path / "survivors.parquet"
        choose_survivors(tmp_path / "clusters.parquet", iter(range(count)), survivors, 1, True, tmp_path, 1 << 20)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert summary["clustered_documents"] >= count / 2 or count == 10
    assert peaks[2] < 1.3 * peaks[1]
    assert peaks[2] < 1 << 20


def test_group_longer_than_blocks_and_ends_at_borders(tmp_path):
    keys = np.repeat(np.array([1, 2, 2**63, 2**64 - 1], np.uint64), [1, 5000, 2, 1200])
    rows = np.stack([keys, np.arange(len(keys), dtype=np.uint64)], axis=1)
    for size in (1, 7, 1000, len(rows)):
        blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
        heads = np.concatenate([heads for _, heads, _ in grouped(blocks, 1)])
        ranks = np.concatenate([ranks for _, _, ranks in grouped(blocks, 1)])
        assert heads[:, 1].tolist() == np.repeat([0, 1, 5001, 5003], [1, 5000, 2, 1200]).tolist()
        assert (ranks == np.arange(len(rows)) - heads[:, 1].astype(int)).all()
        sizes = np.concatenate(list(group_sizes(blocks)))
        assert sizes.tolist() == [[1, 1], [2, 5000], [2**63, 2], [2**64 - 1, 1200]]
        assert (np.concatenate(list(rebatched(blocks, 999))) == rows).all()
        assert {len(block) for block in rebatched(blocks, 999)} <= {999, len(rows) % 999}


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_sort_on_disk_equals_sort_in_memory(tmp_path_factory, data):
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    columns = data.draw(st.integers(1, 4))
    rows = generator.integers(
        0, data.draw(st.sampled_from([3, 50, 2**64 - 1])), (data.draw(st.integers(0, 9000)), columns), np.uint64
    )
    distinct = data.draw(st.booleans())
    sorter = RowSorter(columns, tmp_path_factory.mktemp("runs"), SMALLEST_MEMORY, distinct)
    sorter._buffer = sorter._buffer[: data.draw(st.integers(16, 2000))]
    for part in np.array_split(rows, data.draw(st.integers(1, 9))):
        sorter.add(part)
    blocks = list(sorter.sorted_blocks())
    expected = sorted(map(tuple, rows.tolist()))
    expected = sorted(set(expected)) if distinct else expected
    assert [tuple(row) for block in blocks for row in block.tolist()] == expected
    assert [tuple(row) for row in sort_rows(rows).tolist()] == sorted(map(tuple, rows.tolist()))


@given(st.sets(st.integers(0, 300)), st.lists(st.integers(0, 300)), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_lookup_in_sorted_stream_equals_dictionary(present, wanted, rows_per_block, keys_per_call):
    rows = np.array([[key, key * 3 + 1] for key in sorted(present)], np.uint64).reshape(-1, 2)
    lookup = SortedLookup(rows[start : start + rows_per_block] for start in range(0, len(rows), rows_per_block))
    wanted = sorted(wanted)
    for start in range(0, len(wanted), keys_per_call):
        keys = wanted[start : start + keys_per_call]
        found, values = lookup.find(np.array(keys, np.uint64))
        assert found.tolist() == [key in present for key in keys]
        assert values.tolist() == [key * 3 + 1 if key in present else 0 for key in keys]


def survivors_by_hand(clusters, passing, keep, near):
    groups = defaultdict(list)
    for ordinal in sorted(set(passing) & clusters.keys()):
        groups[clusters[ordinal][0 if near else 1]].append(ordinal)
    return {
        member: (group[0], member in group[:keep], clusters[member][1] == clusters[group[0]][1])
        for group in groups.values()
        for member in group
    }


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("near", [True, False])
def test_survivors_are_the_smallest_passing_documents(tmp_path, keep, near):
    generator = np.random.default_rng(5)
    records = random_records(generator, 3000, 2500)
    write_keys(tmp_path / "a.keys", records, BANDS)
    find_clusters([tmp_path / "a.keys"], tmp_path / "clusters.parquet", tmp_path)
    passing = np.sort(generator.choice(records[:, 0], 2000, replace=False)).astype(np.int64)
    expected = survivors_by_hand(found(tmp_path / "clusters.parquet"), passing.tolist(), keep, near)
    outputs = set()
    for ordinals, memory in ((iter(passing.tolist()), 1 << 20), (np.array_split(passing, 7), 64 << 20)):
        output = tmp_path / "survivors.parquet"
        summary = choose_survivors(tmp_path / "clusters.parquet", ordinals, output, keep, near, tmp_path, memory)
        outputs.add(output.read_bytes())
        table = pq.read_table(output)
        rows = zip(
            *(table.column(name).to_pylist() for name in ("ordinal", "survivor", "survives", "exact")), strict=True
        )
        assert {ordinal: tuple(rest) for ordinal, *rest in rows} == expected
        assert summary["removed"] == sum(not row[1] for row in expected.values())
    assert len(outputs) == 1


def test_table_joins_with_the_documents_of_a_unit(tmp_path, monkeypatch):
    monkeypatch.setattr("apertus_jax.corpus.duplicates.ordinal_tables.ROWS_PER_GROUP", 50)
    records = random_records(np.random.default_rng(5), 900, 500)
    write_keys(tmp_path / "a.keys", records, BANDS)
    find_clusters([tmp_path / "a.keys"], tmp_path / "clusters.parquet", tmp_path)
    clusters = found(tmp_path / "clusters.parquet")
    table = OrdinalTable(tmp_path / "clusters.parquet")
    assert table.num_rows == len(clusters) > 100
    for first, stop in ((0, 10_000), (0, 1), (777, 3210), (8999, 9000), (20_000, 30_000)):
        rows = [tuple(row.values()) for row in table.between(first, stop).to_pylist()]
        assert rows == [(ordinal, *clusters[ordinal]) for ordinal in range(first, stop) if ordinal in clusters]


def test_corpus_without_duplicates_and_without_documents(tmp_path):
    write_keys(tmp_path / "none.keys", np.empty((0, 0), np.uint64), BANDS)
    records = random_records(np.random.default_rng(0), 3, 10**9)
    write_keys(tmp_path / "some.keys", records, BANDS)
    for paths, documents in (([], 0), ([tmp_path / "none.keys"], 0), ([tmp_path / "some.keys"], 3)):
        summary = find_clusters(paths, tmp_path / "out.parquet", tmp_path)
        assert summary["documents"] == documents and summary["clusters"] == 0
        assert OrdinalTable(tmp_path / "out.parquet").between(0, 10).num_rows == 0


def test_near_and_exact_copies_from_text_to_verdict(tmp_path):
    long = "The quick brown fox jumps over the lazy dog while forty two wise owls watch from a tree nearby tonight"
    texts = [
        "Something else entirely, with words of its own and nothing in common with the rest of them.",
        " ".join(long.split() * 3) + " first ending",
        "Nor has this one, which is here to be the third of six and to pass every rule there is.",
        " ".join(long.split() * 3) + " first ending",
        " ".join(long.split() * 3).upper() + " First, ending!",
        " ".join(long.split() * 3) + " last ending",
    ]
    options = DuplicateScoring(scope="global")
    documents = [RawDocument(str(n), text, "s", "f", n) for n, text in enumerate(texts)]
    rows = options.build().score(documents)
    records = key_records(rows, range(len(texts)), [options.scope_of("s", "eng_Latn")] * len(texts))
    write_keys(tmp_path / "a.keys", records)
    find_clusters([tmp_path / "a.keys"], tmp_path / "clusters.parquet", tmp_path)
    # Document 1 fails another rule, so a later one survives in its place.
    choose_survivors(tmp_path / "clusters.parquet", [0, 2, 3, 4, 5], tmp_path / "survivors.parquet")
    chosen = OrdinalTable(tmp_path / "survivors.parquet").between(0, 6).to_pylist()
    known = {row["ordinal"]: {f"duplicates_{name}": value for name, value in row.items()} for row in chosen}
    rule = DuplicateRule()
    verdicts = [rule.verdict(known.get(n, {}), {}) for n in range(6)]
    assert verdicts[:4] == [None] * 4 and {n: row["duplicates_survivor"] for n, row in known.items()} == {
        3: 3,
        4: 3,
        5: 3,
    }
    assert verdicts[4].reason == Reason.EXACT_DUPLICATE and "ordinal 3" in verdicts[4].detail
    assert verdicts[5].reason == Reason.NEAR_DUPLICATE and "ordinal 3" in verdicts[5].detail


def test_rule_without_near_keeps_near_copies():
    row = {"duplicates_survivor": 3, "duplicates_survives": False, "duplicates_exact": False}
    assert DuplicateRule(near=False).verdict(row, {}) is None
    assert DuplicateRule().verdict(row, {}).reason == Reason.NEAR_DUPLICATE
    assert DuplicateRule(exact=False, near=False).verdict({**row, "duplicates_exact": True}, {}) is None
    named = DuplicateRule().verdict({**row, "duplicates_exact": True, "duplicates_survivor_id": "ab12"}, {})
    assert named.reason == Reason.EXACT_DUPLICATE and "ab12" in named.detail
    with pytest.raises(UserError, match="near duplicates but not exact"):
        DuplicateRule(exact=False)
    with pytest.raises(UserError, match="keep is 0"):
        DuplicateRule(keep=0)


def test_damaged_and_doubled_key_files_are_named(tmp_path):
    records = random_records(np.random.default_rng(0), 50, 10)
    write_keys(tmp_path / "a.keys", records, BANDS)
    (tmp_path / "cut.keys").write_bytes((tmp_path / "a.keys").read_bytes()[:-8])
    (tmp_path / "text.keys").write_text("no keys here, only text and more text")
    write_keys(tmp_path / "twice.keys", records[10:], BANDS)
    write_keys(tmp_path / "other.keys", records[:, :-1], BANDS - 1)
    for names, message in (
        (["cut.keys"], "cut.keys does not have the 50 records"),
        (["text.keys"], "text.keys is not a key file"),
        (["missing.keys"], "missing.keys does not exist"),
        (["a.keys", "twice.keys"], "twice.keys repeats ordinals"),
        (["a.keys", "other.keys"], "other.keys has 2 bands"),
    ):
        with pytest.raises(UserError, match=message):
            find_clusters([tmp_path / name for name in names], tmp_path / "out.parquet", tmp_path)
    with pytest.raises(UserError, match="ordinals must ascend"), KeyWriter(tmp_path / "broken.keys", BANDS) as writer:
        writer.write(records)
        writer.write(records)
    with pytest.raises(UserError, match="does not have the 0 records"):
        find_clusters([tmp_path / "broken.keys"], tmp_path / "out.parquet", tmp_path)
    with pytest.raises(UserError, match="passing ordinals must ascend"):
        find_clusters([tmp_path / "a.keys"], tmp_path / "out.parquet", tmp_path)
        choose_survivors(tmp_path / "out.parquet", [5, 4], tmp_path / "survivors.parquet")

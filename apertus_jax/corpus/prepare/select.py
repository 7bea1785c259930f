"""Select stage: which duplicate stays, after every other rule has decided.

A copy that another rule keeps out cannot stand for the others, so the choice comes after the decisions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.corpus.duplicates import DuplicateRule, OrdinalTable, choose_survivors
from apertus_jax.corpus.duplicates.external_sort import RowSorter
from apertus_jax.corpus.duplicates.ordinal_tables import write_ordinal_table
from apertus_jax.corpus.prepare.aggregate import CLUSTERS_FILE, id_words, scratch_folder
from apertus_jax.corpus.prepare.plan import ROW_BITS, ordinal
from apertus_jax.corpus.prepare.tables import column_arrays

KIND = "prepare_selection"
DECISIONS_FILE = "decisions.parquet"
SURVIVORS_FILE, IDENTITIES_FILE = "survivors.parquet", "identities.parquet"
# For each document, the identity of the head of its cluster (HEAD) or of the copy that stays (SURVIVOR).
IDENTITY_COLUMNS = ("ordinal", "whose", "id_high", "id_low")
HEAD, SURVIVOR = 0, 1
LOWEST_BITS = np.uint64((1 << ROW_BITS) - 1)


def select(
    aggregated: epath.Path,
    decision_folders: Sequence[epath.Path],
    rule: DuplicateRule | None,
    folder: epath.Path,
    sort_bytes: int,
) -> dict[str, Any]:
    """Writes which copies survive, and the identities by which the ledger names them; returns a summary.

    Heads and survivors lie anywhere in the corpus. A join by sorting brings their identities to the documents that name
    them, so that each unit finds all it needs in one place.
    """
    clusters = aggregated / CLUSTERS_FILE
    if rule is None or not clusters.exists():
        return {}
    with scratch_folder(folder) as scratch:
        summary = choose_survivors(
            os.fspath(clusters),
            _passing(decision_folders),
            os.fspath(folder / SURVIVORS_FILE),
            rule.keep,
            rule.near,
            scratch,
            sort_bytes,
        )
        named = RowSorter(3, scratch, sort_bytes // 2)
        for whose, path in ((HEAD, clusters), (SURVIVOR, folder / SURVIVORS_FILE)):
            for block in OrdinalTable(os.fspath(path)).blocks():
                named.add(np.column_stack([block[:, 1], block[:, 0], np.full(len(block), whose, np.uint64)]))
        by_ordinal = RowSorter(len(IDENTITY_COLUMNS), scratch, sort_bytes // 2)
        for block, words in _with_identities(named.sorted_blocks(), decision_folders):
            by_ordinal.add(np.column_stack([block[:, 1:], words]))
        write_ordinal_table(os.fspath(folder / IDENTITIES_FILE), IDENTITY_COLUMNS, by_ordinal.sorted_blocks())
    return summary


class Selection:
    """The selection as the units of a corpus need it."""

    def __init__(self, aggregated: epath.Path, folder: epath.Path):
        """Opens the tables; a corpus without a search for duplicates has none."""
        self._tables = None
        if (folder / IDENTITIES_FILE).exists():
            paths = (aggregated / CLUSTERS_FILE, folder / SURVIVORS_FILE, folder / IDENTITIES_FILE)
            self._tables = tuple(OrdinalTable(os.fspath(path)) for path in paths)

    def of_unit(self, unit: int) -> dict[int, dict[str, Any]]:
        """Returns row number → what is known of its copies, for the documents of a unit that have any.

        `cluster` is the identity of the first copy, `size` their number; `duplicates_…` are the columns that
        `DuplicateRule` reads, absent for a copy that another rule kept out.
        """
        if self._tables is None:
            return {}
        first, stop = ordinal(unit, 0), ordinal(unit + 1, 0)
        clusters, survivors, identities = (table.between(first, stop).to_pylist() for table in self._tables)
        known = {row["ordinal"]: row for row in survivors}
        names = {(row["ordinal"], row["whose"]): _identity(row["id_high"], row["id_low"]) for row in identities}
        selection = {}
        for row in clusters:
            entry = {"cluster": names[row["ordinal"], HEAD], "size": row["size"]}
            if row["ordinal"] in known:
                survivor = known[row["ordinal"]]
                entry |= {f"duplicates_{name}": survivor[name] for name in ("survivor", "survives", "exact")}
                entry["duplicates_survivor_id"] = names[row["ordinal"], SURVIVOR]
            selection[row["ordinal"] - first] = entry
        return selection


def _identity(high: int, low: int) -> str:
    """Returns an identity of two words that a table holds as signed numbers."""
    mask = (1 << 64) - 1
    return f"{high & mask:016x}{low & mask:016x}"


def _passing(decision_folders: Sequence[epath.Path]) -> Iterator[np.ndarray]:
    """Yields the ordinals of documents that no rule kept out, ascending."""
    for unit, folder in enumerate(decision_folders):
        start = ordinal(unit, 0)
        for (reasons,) in column_arrays(folder / DECISIONS_FILE, ["reason"]):
            yield start + np.flatnonzero([not reason for reason in reasons])
            start += len(reasons)


def _with_identities(
    blocks: Iterator[np.ndarray], decision_folders: Sequence[epath.Path]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields rows whose first column is an ascending ordinal, and the identities uint64[n, 2] of these documents."""
    loaded, words = -1, np.empty((0, 2), np.uint64)
    for block in blocks:
        units = (block[:, 0] >> np.uint64(ROW_BITS)).astype(np.int64)
        for unit in np.unique(units):
            if unit != loaded:
                path = decision_folders[unit] / DECISIONS_FILE
                loaded, words = unit, np.concatenate([id_words(ids) for (ids,) in column_arrays(path, ["document_id"])])
            here = block[units == unit]
            yield here, words[(here[:, 0] & LOWEST_BITS).astype(np.int64)]

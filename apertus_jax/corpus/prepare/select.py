"""The select stage: which copy of each document stays, once every other rule has spoken.

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
SURVIVORS_FILE, NAMES_FILE = "survivors.parquet", "names.parquet"
NAME_COLUMNS = ("ordinal", "id_high", "id_low")
LOWEST_BITS = np.uint64((1 << ROW_BITS) - 1)


def select(
    aggregated: epath.Path,
    decision_folders: Sequence[epath.Path],
    rule: DuplicateRule | None,
    folder: epath.Path,
    sort_bytes: int,
) -> dict[str, Any]:
    """Writes which copies survive, and the identities by which the ledger names them; returns a summary."""
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
        wanted = RowSorter(1, scratch, sort_bytes, distinct=True)
        for path in (clusters, folder / SURVIVORS_FILE):
            for block in OrdinalTable(os.fspath(path)).blocks():
                wanted.add(np.ascontiguousarray(block[:, 1:2]))  # the head of the cluster; the copy that stays
        write_ordinal_table(
            os.fspath(folder / NAMES_FILE), NAME_COLUMNS, _named(wanted.sorted_blocks(), decision_folders)
        )
    return summary


class Selection:
    """The selection as the units of a corpus need it."""

    def __init__(self, aggregated: epath.Path, folder: epath.Path):
        """Opens the tables; a corpus without a search for duplicates has none."""
        self._tables = None
        if (folder / NAMES_FILE).exists():
            paths = (aggregated / CLUSTERS_FILE, folder / SURVIVORS_FILE, folder / NAMES_FILE)
            self._tables = tuple(OrdinalTable(os.fspath(path)) for path in paths)

    def of_unit(self, unit: int) -> dict[int, dict[str, Any]]:
        """Returns row number → what is known of its copies, for the documents of a unit that have any.

        `cluster` is the identity of the first copy, `size` their number; `duplicates_…` are the columns that
        `DuplicateRule` reads, absent for a copy that another rule kept out.
        """
        if self._tables is None:
            return {}
        clusters, survivors, _ = self._tables
        first, stop = ordinal(unit, 0), ordinal(unit + 1, 0)
        known = {row["ordinal"]: row for row in survivors.between(first, stop).to_pylist()}
        found = clusters.between(first, stop).to_pylist()
        names = self._names({row["cluster"] for row in found} | {row["survivor"] for row in known.values()})
        selection = {}
        for row in found:
            entry = {"cluster": names[row["cluster"]], "size": row["size"]}
            if row["ordinal"] in known:
                survivor = known[row["ordinal"]]
                entry |= {f"duplicates_{name}": survivor[name] for name in ("survivor", "survives", "exact")}
                entry["duplicates_survivor_id"] = names[survivor["survivor"]]
            selection[row["ordinal"] - first] = entry
        return selection

    def _names(self, ordinals: set[int]) -> dict[int, str]:
        """Returns ordinal → identity."""
        order = sorted(ordinals)
        columns = self._tables[2].columns_for(order)
        mask = (1 << 64) - 1
        return {
            number: f"{high & mask:016x}{low & mask:016x}"
            for number, high, low in zip(order, columns["id_high"], columns["id_low"], strict=True)
        }


def _passing(decision_folders: Sequence[epath.Path]) -> Iterator[np.ndarray]:
    """Yields the ordinals of documents that no rule kept out, ascending."""
    for unit, folder in enumerate(decision_folders):
        start = ordinal(unit, 0)
        for (reasons,) in column_arrays(folder / DECISIONS_FILE, ["reason"]):
            yield start + np.flatnonzero([not reason for reason in reasons])
            start += len(reasons)


def _named(ordinals: Iterator[np.ndarray], decision_folders: Sequence[epath.Path]) -> Iterator[np.ndarray]:
    """Yields rows uint64[n, 3] of ascending ordinals and the identities of their documents."""
    loaded, words = -1, np.empty((0, 2), np.uint64)
    for block in ordinals:
        column = block[:, 0]
        units = (column >> np.uint64(ROW_BITS)).astype(np.int64)
        for unit in np.unique(units):
            if unit != loaded:
                path = decision_folders[unit] / DECISIONS_FILE
                loaded, words = unit, np.concatenate([id_words(ids) for (ids,) in column_arrays(path, ["document_id"])])
            here = column[units == unit]
            yield np.column_stack([here, words[(here & LOWEST_BITS).astype(np.int64)]])

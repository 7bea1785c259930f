"""Survivors of duplicate clusters, chosen among the copies that pass all other rules."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from apertus_jax.corpus.duplicates.clusters import DEFAULT_MEMORY
from apertus_jax.corpus.duplicates.external_sort import RowSorter
from apertus_jax.corpus.duplicates.ordinal_tables import OrdinalTable, write_ordinal_table
from apertus_jax.corpus.duplicates.row_files import SortedLookup, grouped
from apertus_jax.errors import UserError

SURVIVOR_COLUMNS = ("ordinal", "survivor", "survives", "exact")
ORDINALS_AT_ONCE = 1 << 16


def choose_survivors(
    clusters: str | os.PathLike,
    passing_ordinals: Iterable[int] | Iterable[np.ndarray],
    output: str | os.PathLike,
    keep: int = 1,
    near: bool = True,
    work_folder: str | os.PathLike | None = None,
    memory_bytes: int = DEFAULT_MEMORY,
) -> dict[str, int]:
    """Keeps the `keep` smallest passing ordinals of each cluster; writes the Parquet file `output`, returns counts.

    `clusters` is a file of `find_clusters`, `passing_ordinals` ascend (single numbers or int64 arrays). With
    `near=False` only documents with the same text compete. The file has a row for each passing document of a cluster,
    sorted by ordinal: `ordinal`, `survivor` (the smallest ordinal that stays), `survives`, and `exact` (the text is
    that of the survivor). Documents without a row are in no cluster. Memory does not grow with the corpus.

    Raises:
      UserError: the ordinals do not ascend, or `keep` is not at least 1.
    """
    if keep < 1:
        raise UserError(f"keep is {keep}; at least one document of a cluster stays")
    if work_folder is not None:
        Path(work_folder).mkdir(parents=True, exist_ok=True)
    removed = 0
    with tempfile.TemporaryDirectory(dir=work_folder, prefix="survivors-") as folder:
        by_group = RowSorter(3, folder, memory_bytes // 3)
        lookup = SortedLookup(_ascending(passing_ordinals))
        for block in OrdinalTable(clusters).blocks():
            ordinal, cluster, original = block[:, 0], block[:, 1], block[:, 2]
            passes, _ = lookup.find(ordinal)
            by_group.add(np.stack([cluster if near else original, ordinal, original], axis=1)[passes])
        by_ordinal = RowSorter(len(SURVIVOR_COLUMNS), folder, memory_bytes // 3)
        for block, heads, ranks in grouped(by_group.sorted_blocks(), keys=1):
            survives = ranks < keep
            removed += int(len(block) - survives.sum())
            exact = block[:, 2] == heads[:, 2]
            by_ordinal.add(np.stack([block[:, 1], heads[:, 1], survives, exact], axis=1).astype(np.uint64))
        count = write_ordinal_table(output, SURVIVOR_COLUMNS, by_ordinal.sorted_blocks())
    return {"passing_in_clusters": count, "removed": removed}


def _ascending(ordinals: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yields ordinals as rows uint64[n, 1] and makes sure that they ascend."""
    last = -1
    for block in _blocks(iter(ordinals)):
        if not len(block):
            continue
        if int(block[0]) <= last or (block[1:] <= block[:-1]).any():
            raise UserError("passing ordinals must ascend; give them in the order of the units")
        last = int(block[-1])
        yield block.astype(np.uint64)[:, None]


def _blocks(ordinals: Iterator[Any]) -> Iterator[np.ndarray]:
    """Yields arrays as they come and single numbers in arrays int64[at most ORDINALS_AT_ONCE]."""
    first = list(itertools.islice(ordinals, 1))
    if first and isinstance(first[0], np.ndarray):
        yield from itertools.chain(first, ordinals)
        return
    numbers = itertools.chain(first, ordinals)
    while len(block := np.fromiter(itertools.islice(numbers, ORDINALS_AT_ONCE), np.int64)):
        yield block

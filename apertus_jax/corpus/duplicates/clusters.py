"""Duplicate clusters of a whole corpus in flat memory: every step sorts on disk or joins sorted streams.

1. Documents with equal exact keys in one scope hang on the smallest ordinal among them, their *original*.
2. Originals that share a band key in one scope are linked, each to the smallest: a star, not all pairs.
3. Connected components of these links: alternating large-star and small-star rounds (Kiveris et al., "Connected
   Components in MapReduce and Beyond", 2014) until nothing changes. A round is three sorts; no table of documents.
4. Copies join the cluster of their original. A cluster is named by its smallest ordinal.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apertus_jax.corpus.duplicates.external_sort import RowSorter
from apertus_jax.corpus.duplicates.keys import EXACT_HIGH, EXACT_LOW, FIXED_COLUMNS, ORDINAL, SCOPE, KeyFiles
from apertus_jax.corpus.duplicates.ordinal_tables import write_ordinal_table
from apertus_jax.corpus.duplicates.row_files import RowFile, SortedLookup, group_sizes, grouped
from apertus_jax.errors import UserError
from apertus_jax.mix64 import mix64

# More saves passes over the disk from some 10^8 documents on; at 10^6 and 3 * 10^6 it saved none of the time.
DEFAULT_MEMORY = 64 << 20
SMALLEST_MEMORY = 1 << 20
CLUSTER_COLUMNS = ("ordinal", "cluster", "original", "size", "exact")


class SortWorkspace:
    """A folder for temporary files and a share of memory for each sort; at most three sorts are open at once."""

    def __init__(self, folder: str, memory_bytes: int):
        self.folder = folder
        self._memory = memory_bytes

    def sorter(self, columns: int, distinct: bool = False) -> RowSorter:
        return RowSorter(columns, self.folder, self._memory // 3, distinct)

    def file(self, blocks: Iterable[np.ndarray], columns: int) -> RowFile:
        return RowFile(blocks, columns, self.folder, self.block_rows(columns))

    def block_rows(self, columns: int) -> int:
        return max(self._memory // 32 // (8 * columns), 64)


def find_clusters(
    key_files: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    work_folder: str | os.PathLike | None = None,
    memory_bytes: int = DEFAULT_MEMORY,
) -> dict[str, Any]:
    """Finds the clusters of duplicates of a corpus, writes them to the Parquet file `output`, returns a summary.

    The file has a row for each document of a cluster of two or more, sorted by ordinal: `ordinal`, `cluster` (its
    smallest ordinal), `original` (smallest ordinal with the same text), `size`, and `exact` (the text is that of the
    cluster's smallest ordinal). It depends on the key records alone: not on the order or number of files, nor on
    `memory_bytes`, the memory for sorting. `work_folder` is a local disk for about 20 bytes per document and band.

    Raises:
      UserError: a key file is damaged, or two of them hold the same ordinals.
    """
    if memory_bytes < SMALLEST_MEMORY:
        raise UserError(f"memory_bytes is {memory_bytes}; the search for duplicates needs at least {SMALLEST_MEMORY}")
    files = KeyFiles(key_files)
    if work_folder is not None:
        Path(work_folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work_folder, prefix="clusters-") as folder:
        workspace = SortWorkspace(folder, memory_bytes)
        copies, documents = _exact_copies(files, workspace)
        links = _band_links(files, copies, workspace)
        link_count = links.count
        labels, rounds = connected_components(links, workspace)
        members = _members(copies, labels, workspace)
        sizes = workspace.file(group_sizes(members.blocks()), 2)
        largest = max((int(block[:, 1].max()) for block in sizes.blocks()), default=0)
        count = write_ordinal_table(output, CLUSTER_COLUMNS, _cluster_rows(members, sizes, workspace))
        return {
            "documents": documents,
            "exact_copies": copies.count,
            "linked_originals": labels.count,
            "links": link_count,
            "clusters": sizes.count,
            "clustered_documents": count,
            "largest_cluster": largest,
            "rounds": rounds,
        }


def _exact_copies(files: KeyFiles, workspace: SortWorkspace) -> tuple[RowFile, int]:
    """Returns rows (copy, original) sorted by copy, and the number of documents."""
    by_key = workspace.sorter(3)
    documents = 0
    for block in files.blocks(workspace.block_rows(FIXED_COLUMNS + files.bands)):
        # The scope is mixed into the key: 128 bits stay enough to make an accidental meeting unthinkable.
        scope = mix64(block[:, SCOPE])
        by_key.add(np.stack([block[:, EXACT_HIGH] ^ scope, block[:, EXACT_LOW] ^ mix64(scope), block[:, ORDINAL]], 1))
        documents += len(block)
    by_copy = workspace.sorter(2)
    for block, heads, ranks in grouped(by_key.sorted_blocks(), keys=2):
        by_copy.add(np.stack([block[:, 2], heads[:, 2]], axis=1)[ranks > 0])
    return workspace.file(by_copy.sorted_blocks(), 2), documents


def _band_links(files: KeyFiles, copies: RowFile, workspace: SortWorkspace) -> RowFile:
    """Returns rows (larger, smaller) of originals that share a band key, sorted and without repetition."""
    by_band = workspace.sorter(2)
    lookup = SortedLookup(copies.blocks())
    for block in files.blocks(workspace.block_rows(FIXED_COLUMNS + files.bands)):
        is_copy, _ = lookup.find(block[:, ORDINAL])
        block = block[~is_copy]
        scope = mix64(block[:, SCOPE])
        for band in range(files.bands):
            key = mix64(block[:, FIXED_COLUMNS + band] ^ mix64(scope + np.uint64(band)))
            by_band.add(np.stack([key, block[:, ORDINAL]], axis=1))
    links = workspace.sorter(2, distinct=True)
    for block, heads, ranks in grouped(by_band.sorted_blocks(), keys=1):
        # Two bands of one document may hold the same key only by accident, but a document never links to itself.
        links.add(np.stack([block[:, 1], heads[:, 1]], axis=1)[(ranks > 0) & (block[:, 1] != heads[:, 1])])
    return workspace.file(links.sorted_blocks(), 2)


def connected_components(links: RowFile, workspace: SortWorkspace) -> tuple[RowFile, int]:
    """Returns rows (node, smallest node of its component) for all others than the smallest, and the number of rounds.

    `links` are rows (larger, smaller), sorted and distinct; the file is used up.
    """
    rounds = 0
    while True:
        both = workspace.sorter(2, distinct=True)
        for block in links.blocks():
            both.add(block)
            both.add(block[:, ::-1])
        downward = workspace.sorter(2, distinct=True)
        for block, heads, _ in grouped(both.sorted_blocks(), keys=1):
            smallest = np.minimum(block[:, 0], heads[:, 1])
            downward.add(np.stack([block[:, 1], smallest], axis=1)[block[:, 1] > block[:, 0]])
        stars = workspace.sorter(2, distinct=True)
        for block, heads, ranks in grouped(downward.sorted_blocks(), keys=1):
            stars.add(heads[ranks == 0])
            others = block[:, 1] != heads[:, 1]
            stars.add(np.stack([block[others, 1], heads[others, 1]], axis=1))
        following = workspace.file(stars.sorted_blocks(), 2)
        rounds += 1
        unchanged = following.digest == links.digest
        links.delete()
        if unchanged:
            return following, rounds
        links = following


def _members(copies: RowFile, labels: RowFile, workspace: SortWorkspace) -> RowFile:
    """Returns rows (cluster, ordinal, original) of all documents that are in a cluster, sorted."""
    members = workspace.sorter(3, distinct=True)
    for block in labels.blocks():
        node, cluster = block[:, 0], block[:, 1]
        members.add(np.stack([cluster, node, node], axis=1))
        members.add(_heads(cluster))
    by_original = workspace.sorter(2)
    for block in copies.blocks():
        by_original.add(block[:, ::-1])
    lookup = SortedLookup(labels.blocks())
    for block in by_original.sorted_blocks():
        original, copy = block[:, 0], block[:, 1]
        linked, label = lookup.find(original)
        cluster = np.where(linked, label, original)
        members.add(np.stack([cluster, copy, original], axis=1))
        members.add(np.stack([cluster, original, original], axis=1))
        members.add(_heads(cluster))
    return workspace.file(members.sorted_blocks(), 3)


def _heads(clusters: np.ndarray) -> np.ndarray:
    """Returns the rows (cluster, cluster, cluster) of the smallest documents of clusters."""
    return np.repeat(np.unique(clusters)[:, None], 3, axis=1)


def _cluster_rows(members: RowFile, sizes: RowFile, workspace: SortWorkspace) -> Iterator[np.ndarray]:
    """Yields the rows of the output, sorted by ordinal."""
    by_ordinal = workspace.sorter(len(CLUSTER_COLUMNS))
    lookup = SortedLookup(sizes.blocks())
    for block in members.blocks():
        cluster, ordinal, original = block.T
        _, size = lookup.find(cluster)
        exact = (original == cluster).astype(np.uint64)
        by_ordinal.add(np.stack([ordinal, cluster, original, size, exact], axis=1))
    yield from by_ordinal.sorted_blocks()

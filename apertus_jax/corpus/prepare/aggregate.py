"""Aggregate stage: statistics, repeated ids and duplicate clusters of the whole corpus."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.corpus.duplicates import find_clusters
from apertus_jax.corpus.duplicates.external_sort import RowSorter
from apertus_jax.corpus.prepare.plan import ordinal
from apertus_jax.corpus.prepare.policy import with_member
from apertus_jax.corpus.prepare.score import CONTENT_EVALUATED, KEYS_FILE, QUARANTINE_FILE, SCORES_FILE
from apertus_jax.corpus.prepare.tables import column_arrays, read_rows
from apertus_jax.corpus.scorer import Row, Rule, Sketch
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import read_json_object

LanguageOf = Callable[[Row], str | None]
LANGUAGE_COLUMNS = ("language_label", "language_declared")  # what a language is named from
STATISTICS_KIND, COPIES_KIND = "prepare_statistics", "prepare_copies"
STATISTICS_FILE = "statistics.json"
CLUSTERS_FILE = "clusters.parquet"
REPEATED_FILE = "repeated_ids.bin"  # uint64 ordinals of documents whose identity an earlier document has


def require_documents(score_folders: Sequence[epath.Path]) -> None:
    """Checks that there is anything to decide about.

    Raises:
      UserError: every row of the corpus is in quarantine; the first one is named.
    """
    if any(next(read_rows(each / SCORES_FILE, ["row"]), None) for each in score_folders):
        return
    first = next(itertools.chain.from_iterable(read_rows(each / QUARANTINE_FILE) for each in score_folders), None)
    if first is None:
        raise UserError("the sources hold no rows; correct prepare.sources or --input")
    raise UserError(
        f"no document of the sources can be read; the first row set aside is {first['file']}:{first['row']}, "
        f"{first['reason']} {first['detail']}".rstrip()
        + "; correct prepare.sources or --input"
    )


def write_statistics(
    rules: Sequence[Rule], language_of: LanguageOf, score_folders: Sequence[epath.Path], folder: epath.Path
) -> None:
    """Writes what rules need to know about the whole corpus; `language_of` names the language of a row of scores."""

    def rows_of(columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        return _rows(score_folders, columns, language_of)

    statistics = gather_statistics(rules, rows_of)
    (folder / STATISTICS_FILE).write_text(json.dumps(statistics, indent=1, sort_keys=True, ensure_ascii=False))


def gather_statistics(rules: Sequence[Rule], rows_of: Callable[[Sequence[str]], Iterable[Row]]) -> dict[str, Any]:
    """Returns the statistics that rules declare, name → result, from one pass over the corpus.

    Args:
      rules: those of the policy; a rule that has `statistics()` is asked for its sketches.
      rows_of: streams these columns of all documents whose text was looked at, and their `language`.
    """
    sketches: dict[str, Sketch] = {}
    for rule in with_member(rules, "statistics"):
        for name, sketch in rule.statistics().items():
            if name in sketches:
                sketches[name].widen(sketch)
            else:
                sketches[name] = sketch
    if not sketches:
        return {}
    each_row = list(sketches.values())
    columns = dict.fromkeys(column for sketch in each_row for column in sketch.columns)
    for row in rows_of(tuple(columns)):
        for sketch in each_row:
            sketch.add(row)
    return {name: sketch.result() for name, sketch in sketches.items()}


def find_copies(score_folders: Sequence[epath.Path], folder: epath.Path, sort_bytes: int) -> dict[str, Any]:
    """Writes which identities are repeated and which documents are copies of each other; returns a summary.

    Both follow from the scores alone, whatever the policy decides, and however much memory sorting may take.
    """
    with scratch_folder(folder) as scratch:
        repeated = _find_repeated_ids(score_folders, folder / REPEATED_FILE, scratch, sort_bytes)
        summary: dict[str, Any] = {"repeated_ids": repeated}
        keys = [os.fspath(each / KEYS_FILE) for each in score_folders if (each / KEYS_FILE).exists()]
        if keys:
            summary["clusters"] = find_clusters(keys, os.fspath(folder / CLUSTERS_FILE), scratch, sort_bytes)
    return summary


@contextlib.contextmanager
def scratch_folder(folder: epath.PathLike) -> Iterator[str]:
    """Gives a folder for sorting that is gone before the folder around it is committed."""
    scratch = epath.Path(folder) / "scratch"
    scratch.mkdir()
    try:
        yield os.fspath(scratch)
    finally:
        scratch.rmtree()


def read_statistics(folder: epath.PathLike) -> dict[str, Any]:
    """Returns what `write_statistics` found."""
    return read_json_object(epath.Path(folder) / STATISTICS_FILE)


def repeated_in_unit(folder: epath.PathLike, unit: int) -> set[int]:
    """Returns the row numbers of a unit whose identity an earlier document of the corpus has."""
    path = epath.Path(folder) / REPEATED_FILE
    if not path.stat().length:
        return set()
    every = np.memmap(os.fspath(path), np.uint64, mode="r")
    first, last = np.searchsorted(every, np.array([ordinal(unit, 0), ordinal(unit + 1, 0)], np.uint64))
    return {int(each) - ordinal(unit, 0) for each in every[first:last]}


def id_words(document_ids: Sequence[str]) -> np.ndarray:
    """Returns identities of 32 hexadecimal digits as uint64[n, 2], high word first."""
    return np.frombuffer(bytes.fromhex("".join(document_ids)), ">u8").reshape(-1, 2).astype(np.uint64)


def _rows(
    score_folders: Sequence[epath.Path], columns: Sequence[str], language_of: LanguageOf
) -> Iterator[dict[str, Any]]:
    """Streams some columns, and the language, of all documents whose text was looked at."""
    read = tuple(dict.fromkeys((*columns, *LANGUAGE_COLUMNS, CONTENT_EVALUATED)))
    for each in score_folders:
        for row in read_rows(each / SCORES_FILE, read):
            if row[CONTENT_EVALUATED]:
                yield row | {"language": language_of(row)}


def _find_repeated_ids(score_folders: Sequence[epath.Path], path: epath.Path, scratch: str, sort_bytes: int) -> int:
    """Writes the ordinals of all documents but the first of each identity, ascending; returns how many."""
    identities = RowSorter(3, scratch, sort_bytes)
    for unit, each in enumerate(score_folders):
        row = 0
        for (document_ids,) in column_arrays(each / SCORES_FILE, ["document_id"]):
            rows = np.empty((len(document_ids), 3), np.uint64)
            rows[:, :2] = id_words(document_ids)
            rows[:, 2] = np.arange(len(rows), dtype=np.uint64) + np.uint64(ordinal(unit, row))
            identities.add(rows)
            row += len(rows)
    repeated = RowSorter(1, scratch, sort_bytes)
    for block in _later_of_equal(identities.sorted_blocks()):
        repeated.add(block[:, 2:])
    count = 0
    with path.open("wb") as file:
        for block in repeated.sorted_blocks():
            file.write(np.ascontiguousarray(block, "<u8").tobytes())
            count += len(block)
    return count


def _later_of_equal(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the rows whose first two columns equal those of the row before; blocks are sorted."""
    before = None
    for block in blocks:
        joined = block if before is None else np.concatenate([before, block])
        same = (joined[1:, :2] == joined[:-1, :2]).all(axis=1)
        yield joined[1:][same]
        before = joined[-1:]

"""Planning of units: sources cut into pieces with the digests of their content, the same for any number of workers."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence

from apertus_jax.corpus.bundled import bundled_documents
from apertus_jax.corpus.sources import tables
from apertus_jax.corpus.sources.parquet import Table
from apertus_jax.corpus.sources.parts import Part, Unit
from apertus_jax.corpus.sources.quarantine import QuarantineReason, Unusable
from apertus_jax.corpus.sources.rows import MESSAGES
from apertus_jax.corpus.sources.source import BUNDLED, Source, locate, source_files
from apertus_jax.corpus.sources.streams import CheckedFile, Damage, expand
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

TARGET_BYTES = 64 << 20
# What `unit_size` aims at: enough units for the cores of one machine, none so small that its folders cost more than it.
UNITS_OF_CORPUS, SMALLEST_UNIT, LARGEST_UNIT = 32, 1_000_000, 64_000_000
WHOLE_FILE = "whole file"


def unit_size(sources: Sequence[Source]) -> int:
    """Returns the size of units, in bytes of the files, that lets all cores of a machine work on a small corpus too.

    It depends on the size of the files alone, never on the machine: the plan of a corpus is one wherever it is made.

    Raises:
      UserError: a source is missing or holds no documents.
    """
    total = 0
    for source in sources:
        if source.format == BUNDLED:
            total += sum(len(document.text.encode()) for document in bundled_documents())
        else:
            total += sum(locate(source, file).stat().length for file in source_files(source))
    return min(max(total // UNITS_OF_CORPUS, SMALLEST_UNIT), LARGEST_UNIT)


def plan_units(sources: Sequence[Source], target_bytes: int = TARGET_BYTES) -> list[Unit]:
    """Cuts sources into units of about `target_bytes` and digests their content, reading every file once.

    JSONL files are cut behind lines, Parquet files between row groups, other files stay whole; small neighbours
    share a unit. The plan depends on nothing but the files and `target_bytes`.

    Raises:
      UserError: a source is missing, holds no documents, or none of its files can be read.
    """
    if not isinstance(target_bytes, int) or target_bytes < 1:
        raise UserError(f"target_bytes = {target_bytes!r} must be a positive whole number")
    names = collections.Counter(source.name for source in sources)
    if repeated := sorted(name for name, count in names.items() if count > 1):
        raise UserError(f"source name {repeated[0]} stands for {names[repeated[0]]} sources; give each its own")
    units = []
    for index, source in enumerate(sources):
        parts = list(_plan_source(source, target_bytes))
        _check_usable(source, parts)
        units += [Unit(index, source.name, group) for group in _pack(parts, target_bytes)]
    return units


def _plan_source(source: Source, target_bytes: int) -> Iterator[Part]:
    """Yields the parts of a source in order."""
    if source.format == BUNDLED:
        yield from _plan_bundled(target_bytes)
        return
    for file, kind in source_files(source).items():
        if kind == "parquet":
            yield from _plan_parquet(source, file, target_bytes)
        elif kind == "jsonl" and not file.endswith((".gz", ".zst")):
            yield from _plan_lines(source, file, target_bytes)
        else:
            digest, size = _digest_file(source, file)
            if kind == "jsonl" and not _names_text(source, file):
                yield _without_text(source, file, size, digest)
            else:
                yield Part(file, kind, 0, size, 1, size, size, digest)


def _check_usable(source: Source, parts: Sequence[Part]) -> None:
    """Raises UserError when nothing of a source can be read."""
    if not parts:
        raise UserError(f"source {source.name}: the files at {source.path} are empty; put documents there")
    if all(part.defect for part in parts):
        first = parts[0]
        raise UserError(
            f"source {source.name}: none of its {len({part.file for part in parts})} files can be used; "
            f"{first.file}: {first.defect}, {first.detail}; correct the source's text_field, format or path"
        )


def _pack(parts: Iterable[Part], target_bytes: int) -> Iterator[tuple[Part, ...]]:
    """Groups neighbours as long as they stay within `target_bytes` together."""
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and size + part.size > target_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(part)
        size += part.size
    if group:
        yield tuple(group)


def _plan_bundled(target_bytes: int) -> Iterator[Part]:
    """Cuts the bundled corpus after every `target_bytes` of text."""
    start = size = 0
    number = -1
    for number, document in enumerate(bundled_documents()):
        size += len(document.text.encode())
        if size >= target_bytes:
            yield _bundled_part(start, number + 1, size)
            start, size = number + 1, 0
    if start <= number:
        yield _bundled_part(start, number + 1, size)


def _bundled_part(start: int, stop: int, size: int) -> Part:
    return Part(BUNDLED, BUNDLED, start, stop, start + 1, size, 0, tables.bundled_digest(start, stop))


def _plan_lines(source: Source, file: str, target_bytes: int) -> Iterator[Part]:
    """Cuts a JSONL file behind the first line end at or after each multiple of `target_bytes`."""
    cuts: list[tuple[int, int, str]] = []
    content = CheckedFile(locate(source, file))
    search = _KeySearch(source.text_field, MESSAGES)
    digest = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
    whole = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
    start = position = 0
    row = first_row = 1
    for piece in content.pieces():
        search.look(piece)
        whole.update(piece)
        view = memoryview(piece)
        offset = 0
        while offset < len(piece):
            # The last byte before the multiple may be a line feed, then the cut is exactly there.
            aim = (start // target_bytes + 1) * target_bytes
            feed = piece.find(b"\n", max(aim - 1 - position, offset))
            end = feed + 1 if feed >= 0 else len(piece)
            digest.update(view[offset:end])
            row += piece.count(b"\n", offset, end)
            offset = end
            if feed >= 0:
                stop = position + end
                cuts.append((stop, first_row, digest.hexdigest()))
                digest = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
                start, first_row = stop, row
        position += len(piece)
    if start < position:
        cuts.append((position, first_row, digest.hexdigest()))
    if position and not search.found:
        yield _without_text(source, file, position, whole.hexdigest())
    else:
        begins = [0, *(stop for stop, _, _ in cuts)]
        for begin, (stop, first, taken) in zip(begins, cuts, strict=False):
            yield Part(file, "jsonl", begin, stop, first, stop - begin, position, taken)


def _without_text(source: Source, file: str, size: int, digest: str) -> Part:
    """Returns the part that stands for a JSONL file in which no row can have a text."""
    detail = f"no row has a field {source.text_field}"
    return Part(file, "jsonl", 0, size, 1, size, size, digest, QuarantineReason.MISSING_COLUMN.value, detail)


def _plan_parquet(source: Source, file: str, target_bytes: int) -> Iterator[Part]:
    """Groups row groups up to `target_bytes`; one that would expand too far stands alone."""
    try:
        table = Table(source, file)
    except Unusable as problem:
        digest, size = _digest_file(source, file)
        yield Part(file, "parquet", 0, 0, 1, size, size, digest, problem.reason.value, problem.detail)
        return
    sizes = [table.compressed_bytes(group) for group in range(table.metadata.num_row_groups)]
    bombs = [table.is_bomb(group, source) for group in range(len(sizes))]
    rows = [table.metadata.row_group(group).num_rows for group in range(len(sizes))]
    starts = list(itertools.accumulate(rows, initial=1))
    file_size = table.path.stat().length
    start = 0
    for group in range(1, len(sizes) + 1):
        is_end = group == len(sizes)
        if is_end or bombs[group] or bombs[group - 1] or sum(sizes[start : group + 1]) > target_bytes:
            size, digest = sum(sizes[start:group]), table.digest(start, group)
            part = Part(file, "parquet", start, group, starts[start], size, file_size, digest)
            if bombs[start]:
                detail = f"row group {start} expands more than {source.limits.expansion} times, {rows[start]} rows"
                part = dataclasses.replace(part, defect=QuarantineReason.DECOMPRESSION_BOMB.value, detail=detail)
            yield part
            start = group
    table.close()


def _digest_file(source: Source, file: str) -> tuple[str, int]:
    """Returns digest and size of a file."""
    content = CheckedFile(locate(source, file))
    digest = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
    for piece in content.pieces():
        digest.update(piece)
    return digest.hexdigest(), content.position


def _names_text(source: Source, file: str) -> bool:
    """Returns whether a compressed JSONL file names the field of the text anywhere, or is too damaged to tell."""
    search = _KeySearch(source.text_field, MESSAGES)
    is_empty = True
    for chunk in expand(CheckedFile(locate(source, file)), file, source.limits):
        if isinstance(chunk, Damage):
            return True
        search.look(chunk)
        is_empty = is_empty and not chunk
        if search.found:
            return True
    return is_empty


class _KeySearch:
    """Looks for the name of one of some JSON fields in pieces of a file."""

    def __init__(self, *names: str):
        spelled = [json.dumps(name, ensure_ascii=ascii_only) for name in names for ascii_only in (True, False)]
        self._keys = tuple(dict.fromkeys(spelling.encode() for spelling in spelled))
        self._tail = b""
        self.found = False

    def look(self, piece: bytes) -> None:
        """Looks at the next piece."""
        if self.found:
            return
        seam = self._tail + piece[: max(map(len, self._keys))]
        self.found = any(key in seam or key in piece for key in self._keys)
        self._tail = piece[-max(map(len, self._keys)) :]

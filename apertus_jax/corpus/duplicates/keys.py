"""Key files of deduplication: what the clustering needs of the documents of one unit of work.

A file is a 24-byte head (magic, number of bands, number of records) and little-endian 64-bit words, one row for each
document: ordinal, scope, exact key (two words), band keys. Ordinals ascend within a file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from apertus_jax.corpus.duplicates.scoring import DuplicateScoring
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError

MAGIC = b"apkeys01"
HEAD = struct.Struct("<8sQQ")
FIXED_COLUMNS = 4
ORDINAL, SCOPE, EXACT_HIGH, EXACT_LOW = range(FIXED_COLUMNS)
LARGEST_ORDINAL = (1 << 63) - 1


def key_records(rows: Sequence[Row], ordinals: Sequence[int], scopes: Sequence[int]) -> np.ndarray:
    """Returns the key records uint64[documents, 4 + bands] of rows of scores, without rows that were not evaluated.

    `ordinals` and `scopes` (`DuplicateScoring.scope_of`) belong to the rows one by one.
    """
    records = [
        (ordinal, scope, int(key[:16], 16), int(key[16:], 16), *row["duplicates_bands"])
        for row, ordinal, scope in zip(rows, ordinals, scopes, strict=True)
        if (key := row["duplicates_exact_key"]) is not None
    ]
    return np.array(records, np.uint64) if records else np.empty((0, 0), np.uint64)


class KeyWriter:
    """Writes one key file in batches: `with KeyWriter(path) as writer: writer.write(records)`.

    The file is complete when the block ends without an error; the same records give the same bytes however they are
    grouped into batches.
    """

    def __init__(self, path: str | os.PathLike, bands: int = DuplicateScoring.bands):
        self.path = Path(path)
        self.bands = bands
        self.count = 0
        self._last = -1
        self._file = self.path.open("wb")
        self._file.write(HEAD.pack(MAGIC, bands, 0))

    def __enter__(self) -> KeyWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        else:
            # Without its head the file is refused by readers.
            self._file.close()

    def write(self, records: np.ndarray) -> None:
        """Appends records uint64[documents, 4 + bands].

        Raises:
          UserError: ordinals do not ascend, or the records have another number of bands than the file.
        """
        if not len(records):
            return
        if records.shape[1] != FIXED_COLUMNS + self.bands:
            bands = records.shape[1] - FIXED_COLUMNS
            raise UserError(f"{self.path}: records of {bands} bands in a file of {self.bands}; score with one setting")
        ordinals = records[:, ORDINAL]
        if int(ordinals[0]) <= self._last or (ordinals[1:] <= ordinals[:-1]).any() or ordinals[-1] > LARGEST_ORDINAL:
            raise UserError(f"{self.path}: ordinals must ascend from 0; write the documents of a unit in their order")
        self._last = int(ordinals[-1])
        self.count += len(records)
        self._file.write(np.ascontiguousarray(records, "<u8").tobytes())

    def close(self) -> None:
        """Writes the number of records into the head and closes the file."""
        if not self._file.closed:
            self._file.seek(0)
            self._file.write(HEAD.pack(MAGIC, self.bands, self.count))
            self._file.close()


def write_keys(path: str | os.PathLike, records: np.ndarray, bands: int = DuplicateScoring.bands) -> int:
    """Writes a whole key file of records uint64[documents, 4 + bands] and returns how many there are."""
    with KeyWriter(path, bands) as writer:
        writer.write(records)
    return writer.count


def read_head(path: str | os.PathLike) -> tuple[int, int]:
    """Returns (bands, records) of a key file.

    Raises:
      UserError: the file is missing, is not a key file, or is shorter than its head says.
    """
    file = Path(path)
    if not file.exists():
        raise UserError(f"key file {file} does not exist; score its unit again")
    with file.open("rb") as opened:
        head = opened.read(HEAD.size)
    if len(head) < HEAD.size or head[:8] != MAGIC:
        raise UserError(f"{file} is not a key file; score its unit again")
    _, bands, count = HEAD.unpack(head)
    if file.stat().st_size != HEAD.size + count * 8 * (FIXED_COLUMNS + bands):
        raise UserError(f"key file {file} does not have the {count} records of its head; score its unit again")
    return bands, count


class KeyFiles:
    """The key files of a corpus as one stream in the order of ordinals, whatever the order in which they are given."""

    def __init__(self, paths: Sequence[str | os.PathLike]):
        found = []
        self.bands = 0
        for path in sorted(map(Path, paths)):
            bands, count = read_head(path)
            if self.bands and bands != self.bands:
                raise UserError(f"key file {path} has {bands} bands, others have {self.bands}; score with one setting")
            self.bands = bands
            if count:
                with path.open("rb") as file:
                    file.seek(HEAD.size)
                    found.append((int.from_bytes(file.read(8), "little"), path))
        self.paths = [path for _, path in sorted(found)]

    def blocks(self, block_rows: int) -> Iterator[np.ndarray]:
        """Yields records uint64[at most block_rows, 4 + bands] with strictly ascending ordinals.

        Raises:
          UserError: the ordinals of two files overlap.
        """
        width = FIXED_COLUMNS + self.bands
        last = -1
        for path in self.paths:
            with path.open("rb") as file:
                file.seek(HEAD.size)
                while content := file.read(block_rows * width * 8):
                    block = np.frombuffer(content, "<u8").reshape(-1, width)
                    ordinals = block[:, ORDINAL]
                    if int(ordinals[0]) <= last or (ordinals[1:] <= ordinals[:-1]).any():
                        raise UserError(f"key file {path} repeats ordinals of another; give each unit's file once")
                    last = int(ordinals[-1])
                    yield block

"""Units of work: parts of files, each with the digest of its content."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from apertus_jax.storage import artifacts


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A piece of one file.

    Attributes:
      file: relative to the source's root.
      format: jsonl, parquet, warc, wet, text or bundled.
      start, stop: bytes of a JSONL or other file, row groups of a Parquet file, documents of the bundled corpus.
      first_row: number of its first row, from 1.
      size: bytes that it takes in the file.
      file_size: bytes of the whole file, so that one that grew is noticed.
      digest: of its content.
      defect: why it cannot be read at all, or nothing; `detail` says more.
    """

    file: str
    format: str
    start: int
    stop: int
    first_row: int
    size: int
    file_size: int
    digest: str
    defect: str = ""
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """One task's share of a source: parts of files, in order."""

    source_index: int
    source: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes that the unit takes in its files."""
        return sum(part.size for part in self.parts)

    @property
    def digest(self) -> str:
        """The digest of everything that the unit says, the digests of its content included."""
        return artifacts.digest_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Returns the unit as JSON values."""
        return {**dataclasses.asdict(self), "parts": [dataclasses.asdict(part) for part in self.parts]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Unit:
        """Returns the unit that `to_json` described."""
        return cls(value["source_index"], value["source"], tuple(Part(**part) for part in value["parts"]))

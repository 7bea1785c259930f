"""Index of benchmark items and protected texts, searched by shared runs of tokens."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.corpus.contamination.matching import token_ngram_hashes
from apertus_jax.corpus.documents import JSONL_SUFFIXES, NOT_A_LINE, jsonl_rows
from apertus_jax.corpus.duplicates.signatures import shingle_hashes
from apertus_jax.corpus.duplicates.words import normalized_words
from apertus_jax.errors import UserError
from apertus_jax.storage.artifacts import digest_bytes, digest_json
from apertus_jax.storage.listing import list_files, regular_file

FIELDS = ("benchmark", "item", "text")
FILTER_BITS_PER_GRAM = 8
LARGEST_FILTER_BITS = 28


@dataclasses.dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One prompt of a benchmark, or one text that must not be in the training data."""

    benchmark: str
    item: str
    text: str


def tokens_of(text: str) -> np.ndarray:
    """Returns the hashes uint64[tokens] of the normalised words of a text (`duplicates.words`)."""
    words = normalized_words(text)
    return shingle_hashes(words.encode(errors="surrogatepass"), 1) if words else np.empty(0, np.uint64)


def read_benchmarks(paths: Sequence[str | os.PathLike]) -> list[BenchmarkItem]:
    """Reads the items of JSONL files, or of all JSONL files below folders, sorted by benchmark and item.

    Raises:
      UserError: nothing is there, a row is not an item, or an item is there twice.
    """
    items: dict[tuple[str, str], BenchmarkItem] = {}
    for path in paths:
        for file in _files(Path(path)):
            for number, row in jsonl_rows(epath.Path(file), NOT_A_LINE):
                item = _item(row, f"{file}, row {number}")
                key = (item.benchmark, item.item)
                if items.setdefault(key, item) != item:
                    raise UserError(f"{file}, row {number}: {key[0]} item {key[1]} is there with another text; rename")
    return [items[key] for key in sorted(items)]


class BenchmarkIndex:
    """All runs of `ngram` tokens of the items, sorted by hash, with a bit table before them.

    Items shorter than a run cannot be found; `too_short` counts them.
    """

    def __init__(self, items: Sequence[BenchmarkItem], ngram: int):
        self.items = items
        self.ngram = ngram
        tokens = [tokens_of(item.text) for item in items]
        self._stops = np.cumsum([len(part) for part in tokens], dtype=np.int64)
        self._tokens = np.concatenate([*tokens, np.empty(0, np.uint64)])
        grams = [token_ngram_hashes(part, ngram) for part in tokens]
        self.too_short = sum(not len(part) for part in grams)
        hashes = np.concatenate([*grams, np.empty(0, np.uint64)])
        owners = np.repeat(np.arange(len(items), dtype=np.int32), [len(part) for part in grams])
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]
        bits = min(max((FILTER_BITS_PER_GRAM * len(hashes)).bit_length(), 10), LARGEST_FILTER_BITS)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[self._hashes >> self._shift] = True
        self.digest = digest_json([[item.benchmark, item.item, digest_bytes(_bytes(item.text))] for item in items])

    def item_tokens(self, number: int) -> np.ndarray:
        """Returns the token hashes of an item."""
        return self._tokens[self._stops[number - 1] if number else 0 : self._stops[number]]

    def candidates(self, tokens: np.ndarray) -> np.ndarray:
        """Returns the numbers of the items that share a run of `ngram` tokens with a document, ascending."""
        hashes = token_ngram_hashes(tokens, self.ngram)
        hashes = np.unique(hashes[self._table[hashes >> self._shift]])
        first = np.searchsorted(self._hashes, hashes, "left")
        stop = np.searchsorted(self._hashes, hashes, "right")
        owners = [
            self._owners[start:end] for start, end in zip(first.tolist(), stop.tolist(), strict=True) if end > start
        ]
        return np.unique(np.concatenate(owners)) if owners else np.empty(0, np.int32)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _files(path: Path) -> list[Path]:
    """Returns the JSONL files of a path in a fixed order."""
    if not path.exists() and not path.is_symlink():
        raise UserError(f"benchmarks {path} does not exist; give JSONL files of {', '.join(FIELDS)} or their folder")
    if not path.is_dir():
        return [Path(regular_file(path, "benchmarks"))]
    files = [path / name for name in list_files(path, JSONL_SUFFIXES)]
    if not files:
        raise UserError(f"benchmarks folder {path} holds no .jsonl or .jsonl.gz file; put the items there")
    return files


def _item(row: Any, where: str) -> BenchmarkItem:
    """Makes an item of a parsed row; `where` names the row in errors."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON object with {', '.join(FIELDS)} is expected, found {type(row).__name__}")
    values: dict[str, Any] = {
        name: str(row[name]) if type(row.get(name)) is int and name != "text" else row.get(name) for name in FIELDS
    }
    for name, value in values.items():
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: field {name} must be a string that is not empty; mend the row")
    return BenchmarkItem(**values)

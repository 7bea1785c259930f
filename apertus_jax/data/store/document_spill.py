"""Spill files between reading documents in input order and writing them in store order.

Texts, tokens and rows never stay in memory. What does is about 80 bytes per document: its identity, two keyed hashes,
sizes and offsets. A corpus of a billion documents is therefore tokenized as several stores.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from apertus_jax.corpus.documents import Document
from apertus_jax.corpus.removal import text_digest
from apertus_jax.data.store.held_out_split import DocumentTable
from apertus_jax.data.store.ngrams import text_ngram_hashes
from apertus_jax.errors import UserError

UNKNOWN_SCRIPT = "Zyyy"


@dataclasses.dataclass(frozen=True)
class Scan:
    """Findings of one pass over the documents, in reading order."""

    table: DocumentTable
    order_keys: np.ndarray  # uint64[N]: keyed hash that decides the stored order
    source_names: list[str]
    grams: np.ndarray  # uint64[M], memory-mapped


class _Numbering:
    """Gives names numbers in order of appearance."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


def keyed_hashes(document_id: str, seed: int) -> tuple[int, int]:
    """Returns two independent 64-bit hashes of a document's identity under `seed`: for the split, for the order."""
    key = f"apertus_jax store {seed}".encode()
    digest = hashlib.blake2b(bytes.fromhex(document_id), digest_size=16, key=key).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def scan_documents(documents: Iterable[tuple[str, Document]], folder: Path, seed: int, with_grams: bool) -> Scan:
    """Reads every document once: checks it, and spills its 13-gram hashes to `folder` when `with_grams`.

    Raises:
      UserError: a document cannot be read, an identity occurs twice, or there is no document.
    """
    sources, languages, scripts = _Numbering(), _Numbering(), _Numbering()
    identities = bytearray()
    split_keys, order_keys = array.array("Q"), array.array("Q")
    sizes, gram_starts = array.array("q"), array.array("q", [0])
    numbers: tuple[array.array, ...] = (array.array("i"), array.array("i"), array.array("i"))
    path = folder / "grams.u64"
    with path.open("wb") as file:
        for source, document in documents:
            identities += bytes.fromhex(document.document_id)
            split_key, order_key = keyed_hashes(document.document_id, seed)
            split_keys.append(split_key)
            order_keys.append(order_key)
            sizes.append(len(document.text.encode()))
            script = document.language.partition("_")[2] or UNKNOWN_SCRIPT
            for column, number in zip(
                numbers, (sources(source), languages(document.language), scripts(script)), strict=True
            ):
                column.append(number)
            grams = text_ngram_hashes(document.text) if with_grams else np.zeros(0, dtype=np.uint64)
            file.write(grams.tobytes())
            gram_starts.append(gram_starts[-1] + len(grams))
    if not sizes:
        raise UserError("the input holds no documents; give a file or folder with at least one")
    _refuse_repeated_identities(identities)
    source_column, language_column, script_column = (np.array(column, dtype=np.int32) for column in numbers)
    return Scan(
        table=DocumentTable(
            keys=np.array(split_keys, dtype=np.uint64),
            sources=source_column,
            languages=language_column,
            scripts=script_column,
            utf8_bytes=np.array(sizes, dtype=np.int64),
            gram_starts=np.array(gram_starts, dtype=np.int64),
        ),
        order_keys=np.array(order_keys, dtype=np.uint64),
        source_names=list(sources.numbers),
        grams=_map(path, np.dtype(np.uint64)),
    )


def _refuse_repeated_identities(identities: bytearray) -> None:
    halves = np.frombuffer(bytes(identities), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    same = np.flatnonzero((halves[order[1:]] == halves[order[:-1]]).all(axis=1))
    if len(same):
        first, second = sorted((int(order[same[0]]), int(order[same[0] + 1])))
        identity = identities[first * 16 : first * 16 + 16].hex()
        raise UserError(
            f"document {identity} occurs twice in the input (numbers {first + 1} and {second + 1} in reading order); "
            "remove one or give them different ids"
        )


class TokenSpill:
    """Tokens and rows of documents, written in reading order, then read in any order."""

    def __init__(self, folder: Path):
        """Opens the two spill files in `folder`."""
        self._paths = (folder / "tokens.i32", folder / "rows.jsonl", folder / "weights.f32")
        self._tokens: BinaryIO
        self._rows: BinaryIO
        self._weights: BinaryIO
        self._tokens, self._rows, self._weights = (path.open("wb") for path in self._paths)
        self._weight_starts: dict[int, int] = {}  # of conversations alone
        self._num_weights = 0
        self._token_starts, self._row_starts = array.array("q", [0]), array.array("q", [0])

    def append(self, document: Document, tokens: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Writes one document's tokens (int32[n], no boundary tokens) and the row that describes it.

        `weights` float32[n] are the loss weights of a conversation.
        """
        if weights is not None:
            self._weight_starts[len(self._token_starts) - 1] = self._num_weights
            self._weights.write(weights.astype(np.float32, copy=False).tobytes())
            self._num_weights += len(weights)
        row = {
            "document_id": document.document_id,
            "source": document.source,
            "language": document.language,
            "url": document.url,
            "licence": document.licence,
            "cluster": document.cluster,
            # Who prepared the text may have rewritten it, and then says what it was before.
            "text_digest": document.text_digest or text_digest(document.text),
            "characters": len(document.text),
            "utf8_bytes": len(document.text.encode()),
        }
        self._tokens.write(tokens.astype(np.int32, copy=False).tobytes())
        self._token_starts.append(self._token_starts[-1] + len(tokens))
        self._row_starts.append(self._row_starts[-1] + self._rows.write(json.dumps(row).encode()))

    def finish(self) -> None:
        """Ends the writing; `read` works from now on."""
        self._tokens.close()
        self._rows.close()
        self._weights.close()
        self._mapped_weights = _map(self._paths[2], np.dtype(np.float32))
        self._mapped = _map(self._paths[0], np.dtype(np.int32))
        self._rows = self._paths[1].open("rb")

    def read(self, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the tokens and the row of document `number` in reading order."""
        self._rows.seek(self._row_starts[number])
        row = json.loads(self._rows.read(self._row_starts[number + 1] - self._row_starts[number]))
        return self._mapped[self._token_starts[number] : self._token_starts[number + 1]], row

    def weights(self, number: int) -> np.ndarray | None:
        """Returns the loss weights of document `number`, None where it is no conversation."""
        start = self._weight_starts.get(number)
        length = self._token_starts[number + 1] - self._token_starts[number]
        return None if start is None else self._mapped_weights[start : start + length]

    def has_weights(self, numbers: np.ndarray) -> bool:
        """Returns whether one of these documents is a conversation."""
        return bool(self._weight_starts) and any(number in self._weight_starts for number in numbers.tolist())

    def close(self) -> None:
        """Closes the files."""
        self._tokens.close()
        self._weights.close()
        self._rows.close()


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    """Memory-maps a file of numbers; an empty file gives an empty array."""
    return np.memmap(path, dtype=dtype, mode="r") if os.path.getsize(path) else np.zeros(0, dtype=dtype)

"""Tombstoned documents of a token store: those that removal requests name."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping

import numpy as np
from etils import epath

from apertus_jax.corpus.removal.tombstones import APPLIED_TOMBSTONES, AppliedTombstones, Tombstones
from apertus_jax.data.store.token_store import HELD_OUT, TokenStore
from apertus_jax.errors import UserError

COLUMNS = ("document_id", "url", "text_digest")


@dataclasses.dataclass(frozen=True)
class TombstonedDocuments:
    """Documents of a store that requests in effect name.

    Attributes:
      numbers: source of the store → int64[n], numbers of its documents, ascending.
      requests: source of the store → the request of each of these.
      tokens: source of the store → how many tokens these documents have, boundary tokens included.
    """

    numbers: Mapping[str, np.ndarray]
    requests: Mapping[str, tuple[str, ...]]
    tokens: Mapping[str, int]

    @property
    def num_documents(self) -> int:
        """How many documents, held-out ones included."""
        return sum(len(numbers) for numbers in self.numbers.values())

    @property
    def num_training_documents(self) -> int:
        """How many documents of training sources."""
        return sum(len(numbers) for source, numbers in self.numbers.items() if source != HELD_OUT)

    @property
    def num_training_tokens(self) -> int:
        """How many tokens of training sources."""
        return sum(count for source, count in self.tokens.items() if source != HELD_OUT)

    def first_request(self) -> str | None:
        """Returns the smallest id among the requests that name a document, or None."""
        return min((request for requests in self.requests.values() for request in requests), default=None)

    def documents_of(self, request: str) -> list[tuple[str, int]]:
        """Returns (source, document number) of the documents that one request names."""
        return [
            (source, int(number))
            for source in sorted(self.numbers)
            for number, named_by in zip(self.numbers[source], self.requests[source], strict=True)
            if named_by == request
        ]


NO_DOCUMENTS = TombstonedDocuments({}, {}, {})


def open_tombstones(folder: epath.PathLike) -> Tombstones:
    """Opens tombstones for packages that may not import `apertus_jax.corpus`.

    Raises:
      UserError: the folder is not a complete one of tombstones, or has changed since it was written.
    """
    return Tombstones.open(folder)


def store_is_older_than(store: TokenStore, tombstones: Tombstones, on: datetime.date) -> bool:
    """Returns whether some input of a store was prepared without these tombstones, or before all in effect now were.

    A store that is not older holds no document that they name; one that is may or may not.
    """
    applied = store.summary.get(APPLIED_TOMBSTONES) or [None]
    return not all(record and AppliedTombstones.from_json(record).covers(tombstones, on) for record in applied)


def find_tombstoned(store: TokenStore, tombstones: Tombstones, on: datetime.date) -> TombstonedDocuments:
    """Returns the documents of a store, held-out ones included, that requests in effect on a day name.

    Addresses and digests of every document are read, unless the store was built with these tombstones applied.

    Raises:
      UserError: the store was made before text digests were recorded.
    """
    if not store_is_older_than(store, tombstones, on):
        return NO_DOCUMENTS
    numbers: dict[str, np.ndarray] = {}
    requests: dict[str, tuple[str, ...]] = {}
    tokens: dict[str, int] = {}
    for name in store.source_names:
        found = _find_in_source(store, name, tombstones, on)
        if found:
            numbers[name] = np.fromiter(found, dtype=np.int64, count=len(found))
            requests[name] = tuple(found.values())
            tokens[name] = int(store.source(name).documents["tokens"].to_numpy()[numbers[name]].sum())
    return TombstonedDocuments(numbers, requests, tokens)


def _find_in_source(store: TokenStore, name: str, tombstones: Tombstones, on: datetime.date) -> dict[int, str]:
    """Returns document number → request, in the order of the documents."""
    table = store.source(name).documents
    if missing := [column for column in COLUMNS if column not in table.column_names]:
        raise UserError(
            f"{store.folder} has no {', '.join(missing)} of its documents, which removal requests are compared with; "
            "tokenize its documents again"
        )
    found: dict[int, str] = {}
    first = 0
    for batch in table.select(list(COLUMNS)).to_batches():
        rows = zip(*(batch.column(column).to_pylist() for column in COLUMNS), strict=True)
        for number, (document_id, url, digest) in enumerate(rows, start=first):
            if request := tombstones.match(document_id, url, digest, on):
                found[number] = request
        first += batch.num_rows
    return found

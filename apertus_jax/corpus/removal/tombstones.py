"""Tombstones: granted removal requests, looked up in logarithmic time.

    COMMITTED.json        version, the digests of superseded versions, counts
    requests.parquet      every request as given, the undecided and refused too: personal data, keep it apart
    tombstones.parquet    granted requests for lookup, by digest of what they point at

A lookup reads the second file only. Its digests hide nothing from who can guess a host or an address, so the folder is
to be treated as personal data all the same.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from apertus_jax.corpus.removal.keys import Scope, authority_hash, key_digest, url_key
from apertus_jax.corpus.web_addresses import parse_web_address, registrable_domain
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.manifests import values_of
from apertus_jax.storage.parquet_columns import require_columns, require_values

if TYPE_CHECKING:
    import pyarrow

KIND = "tombstones"
SUMMARY_FIELDS = {"version": int, "supersedes": list, "scopes": dict, "requests": int, "granted": int}
REQUESTS_FILE = "requests.parquet"
INDEX_FILE = "tombstones.parquet"
TOMBSTONES_FORMAT = 2  # raise when documents get other keys: in older folders nothing would be found
# Under this name the summary of a prepared corpus says which tombstones it obeys, see `AppliedTombstones`.
APPLIED_TOMBSTONES = "tombstones"


def requests_schema() -> pyarrow.Schema:
    """Returns the schema of requests.parquet."""
    import pyarrow

    names = ("id", "received", "basis", "scope", "value", "key", "value_digest", "decision", "effective_date")
    return pyarrow.schema([(name, pyarrow.string()) for name in names])


def index_schema() -> pyarrow.Schema:
    """Returns the schema of tombstones.parquet: halves of the key digest, day, request, and where prefixes end."""
    import pyarrow

    return pyarrow.schema(
        [
            ("key_high", pyarrow.uint64()),
            ("key_low", pyarrow.uint64()),
            ("effective_day", pyarrow.int32()),
            ("request", pyarrow.string()),
            ("scope", pyarrow.string()),
            ("authority", pyarrow.uint64()),
            ("prefix_length", pyarrow.int32()),
        ]
    )


@dataclasses.dataclass(frozen=True)
class AppliedTombstones:
    """Tombstones applied to a build: which ones, and until which day they say nothing new.

    `until` is the first day on which another of their requests takes effect, "" when none will.
    """

    digest: str
    version: int
    supersedes: tuple[str, ...]
    in_effect: int
    until: str

    def as_json(self) -> dict[str, Any]:
        """Returns the record for a manifest."""
        return dataclasses.asdict(self) | {"supersedes": list(self.supersedes)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> AppliedTombstones:
        """Reads a record from a manifest."""
        return cls(**{**record, "supersedes": tuple(record["supersedes"])})

    def covers(self, tombstones: Tombstones, on: datetime.date) -> bool:
        """Returns whether a corpus with these applied has everything removed that `tombstones` ask for on a day."""
        known = tombstones.digest in (self.digest, *self.supersedes)
        return known and (not self.until or on < datetime.date.fromisoformat(self.until))


class Tombstones:
    """Granted requests, opened for lookup; about 40 bytes of memory each, and the text of their ids."""

    def __init__(self, folder: epath.PathLike, manifest: Mapping[str, Any], index: pyarrow.Table):
        """Use `Tombstones.open`."""
        self.folder = epath.Path(folder)
        self.manifest = manifest
        self.summary: Mapping[str, Any] = manifest["summary"]
        self._high = index["key_high"].to_numpy()
        self._low = index["key_low"].to_numpy()
        self._days = index["effective_day"].to_numpy()
        self._requests = index["request"].combine_chunks()
        self._sorted_days = np.sort(self._days)
        self._scopes = frozenset(self.summary["scopes"])
        self._read_prefixes(index)

    def _read_prefixes(self, index: pyarrow.Table) -> None:
        """Gathers, for each authority, the lengths of the prefixes that requests name there."""
        prefixes = index.select(["authority", "prefix_length"]).drop_null()
        pairs = np.stack(
            [prefixes["authority"].to_numpy(), prefixes["prefix_length"].to_numpy().astype(np.uint64)], axis=1
        )
        pairs = np.unique(pairs, axis=0) if len(pairs) else pairs
        self._authorities, self._lengths = np.ascontiguousarray(pairs[:, 0]), pairs[:, 1].astype(np.int64)

    @classmethod
    def open(cls, folder: epath.PathLike) -> Tombstones:
        """Opens a complete folder of tombstones and reads every byte of it once.

        Raises:
          UserError: it is missing, incomplete, of another kind, changed since it was written, or has requests of a
            scope that a later version knows: they would go unheard.
        """
        import pyarrow.parquet

        manifest = artifacts.verify(folder, KIND)
        if manifest["inputs"].get("format") != TOMBSTONES_FORMAT:
            raise UserError(f"{folder} was written by another version; run `apertus remove` with its requests again")
        if unknown := sorted(set(manifest["summary"]["scopes"]) - set(Scope)):
            raise UserError(f"{folder} has requests of scope {', '.join(unknown)}, unknown here; update apertus_jax")
        path = epath.Path(folder) / INDEX_FILE
        index = pyarrow.parquet.read_table(os.fspath(path))
        require_columns(index.schema, index_schema(), path)
        require_values(index, ("key_high", "key_low", "effective_day", "request"), path)
        with values_of(folder, KIND):
            return cls(folder, manifest, index)

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return self.manifest["digest"]

    @property
    def version(self) -> int:
        """1 for a first version, one more than the superseded one after that."""
        return self.summary["version"]

    @property
    def supersedes(self) -> tuple[str, ...]:
        """Digests of all earlier versions, the latest first."""
        return tuple(self.summary["supersedes"])

    def num_in_effect(self, on: datetime.date) -> int:
        """Returns how many granted requests hold on a day. Together with the digest it says exactly which."""
        return int(np.searchsorted(self._sorted_days, on.toordinal(), side="right"))

    def applied(self, on: datetime.date) -> AppliedTombstones:
        """Returns the record of a corpus built on a day with these tombstones."""
        in_effect = self.num_in_effect(on)
        later = self._sorted_days[in_effect:]
        until = datetime.date.fromordinal(int(later[0])).isoformat() if len(later) else ""
        return AppliedTombstones(self.digest, self.version, self.supersedes, in_effect, until)

    def requests(self) -> Iterator[tuple[str, str, str]]:
        """Yields (id, scope, digest of the value) of every request, granted or not, by id."""
        import pyarrow.parquet

        columns = ["id", "scope", "value_digest"]
        table = pyarrow.parquet.read_table(os.fspath(self.folder / REQUESTS_FILE), columns=columns)
        for batch in table.to_batches():
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)

    def match(self, document_id: str, url: str, text_digest: str, on: datetime.date) -> str | None:
        """Returns the id of the request that keeps a document out on a day, or None.

        When several do, it is the one that took effect first, the smallest id among those of one day. O(log requests)
        for each key of the document; a URL has as many keys as its authority has lengths of prefixes.

        Args:
          document_id: 32 hexadecimal digits, or "".
          url: where the document was found, or "".
          text_digest: see `text_digest`, or "".
          on: the day.
        """
        day = on.toordinal()
        found: list[tuple[int, str]] = []
        for scope, key in self._keys(document_id, url, text_digest):
            digest = key_digest(scope, key)
            high, low = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
            place = int(np.searchsorted(self._high, np.uint64(high)))
            # Rows of one key are sorted by day, then id: the first is the one to report.
            while place < len(self._high) and self._high[place] == high:
                if self._low[place] == low:
                    if self._days[place] <= day:
                        found.append((int(self._days[place]), self._requests[place].as_py()))
                    break
                place += 1
        return min(found)[1] if found else None

    def _keys(self, document_id: str, url: str, text_digest: str) -> Iterator[tuple[str, str]]:
        """Yields (scope, key) of everything about a document that some request could name."""
        for scope, value in ((Scope.DOCUMENT_ID, document_id), (Scope.TEXT_DIGEST, text_digest)):
            if value and scope in self._scopes:
                yield scope, value
        address = parse_web_address(url) if url and self._scopes & _SCOPES_OF_ADDRESSES else None
        if address is None:
            return
        if Scope.HOST in self._scopes:
            yield Scope.HOST, address.host
        if Scope.DOMAIN in self._scopes:
            yield Scope.DOMAIN, registrable_domain(address.host)
        if Scope.URL in self._scopes:
            yield Scope.URL, url_key(address)
        if Scope.URL_PREFIX in self._scopes:
            authority = np.uint64(authority_hash(address.authority))
            first = int(np.searchsorted(self._authorities, authority))
            last = int(np.searchsorted(self._authorities, authority, side="right"))
            if first < last:
                key = url_key(address)
                for length in self._lengths[first:last].tolist():
                    if length <= len(key):
                        yield Scope.URL_PREFIX, key[:length]


_SCOPES_OF_ADDRESSES = frozenset({Scope.URL, Scope.URL_PREFIX, Scope.HOST, Scope.DOMAIN})

"""robots.txt responses sorted on disk: the newest of each address, redirects followed.

The store is an SQLite file in the temporary folder (TMPDIR). Its indexes are made by external sorting after everything
was inserted, so memory stays flat however many hosts there are, and the order of insertion leaves no trace.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import sqlite3
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from apertus_jax.corpus.robots import BODY_LIMIT
from apertus_jax.corpus.web.dates import parse_date
from apertus_jax.corpus.web_addresses import parse_web_address
from apertus_jax.storage.json_reader import parse_json

REDIRECT_LIMIT = 10  # RFC 9309 §2.3.1.2 asks for at least five
ROBOTS_PATH = "/robots.txt"

ANSWER_NOT_UNDERSTOOD = "answer_not_understood"
REDIRECT_NOT_ARCHIVED = "redirect_not_archived"
REDIRECT_WITHOUT_TARGET = "redirect_without_target"
TOO_MANY_REDIRECTS = "too_many_redirects"

_UNKNOWN = -1  # SQLite sorts NULL by its own rules; an impossible number keeps the order ours
_COLUMNS = "url, authority, scheme, is_robots, fetched_at, status, location, body, digest, truncated, error, chain"
# Two answers within one second have no newest; their content decides, so that the order of files cannot.
_NEWEST_FIRST = "fetched_at DESC, status, digest, truncated, location, error, chain"


@dataclasses.dataclass(frozen=True, slots=True)
class RobotsRecord:
    """One row of a snapshot: what an authority answered, at the end of its redirects, when asked for robots.txt."""

    authority: str
    scheme: str
    fetched_at: int | None  # seconds since 1970 in UTC; None when it was not recorded
    http_status: int | None  # of the last answer; None when there was none or it was not recorded
    redirects: tuple[str, ...]  # the addresses that were asked after the first
    final_url: str
    body: bytes  # at most BODY_LIMIT bytes; empty unless the status is 2xx or not recorded
    truncated: bool
    error_kind: str  # "" or why there is no usable answer

    @property
    def body_sha256(self) -> str:
        """The SHA-256 of the kept body in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One recorded answer. `location` is where a redirect points; `chain` are redirects that were already followed."""

    url: str
    fetched_at: int | None = None
    http_status: int | None = None
    location: str = ""
    body: bytes = b""
    truncated: bool = False
    error_kind: str = ""
    chain: tuple[str, ...] = ()


def parse_time(text: str) -> int | None:
    """Returns seconds since 1970 of a date or time (see `parse_date`); None when it is none.

    One that names no second counts from its first on: an answer that may have been there on the day of a snapshot
    belongs to it, for leaving it out would leave its host without rules.
    """
    date = parse_date(text)
    return None if date is None else date.first


def format_time(seconds: int | None) -> str:
    """Returns `YYYY-MM-DDTHH:MM:SSZ`, or "" for None."""
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ResponseStore:
    """Responses on disk. Add all, then read the records of a snapshot in the order of authority and scheme."""

    def __init__(self, path: Path):
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA cache_size = -65536",
            f"CREATE TABLE responses ({_COLUMNS})",
        ):
            self._connection.execute(statement)

    def close(self) -> None:
        """Closes the file; it is the caller's to remove."""
        self._connection.close()

    def add(self, responses: Iterable[Response], not_after: int) -> int:
        """Adds responses that were recorded at or before `not_after` (or at an unknown time); returns how many."""
        marks = ", ".join("?" * (_COLUMNS.count(",") + 1))
        self._connection.execute("BEGIN")
        before = self._connection.total_changes
        self._connection.executemany(
            f"INSERT INTO responses VALUES ({marks})",
            (
                row
                for response in responses
                if response.fetched_at is None or response.fetched_at <= not_after
                if (row := _row(response)) is not None
            ),
        )
        self._connection.execute("COMMIT")
        return self._connection.total_changes - before

    def records(self) -> Iterator[RobotsRecord]:
        """Yields one record for each (authority, scheme) that was asked for robots.txt, in that order."""
        self._connection.execute(
            f"CREATE INDEX by_authority ON responses(is_robots, authority, scheme, {_NEWEST_FIRST})"
        )
        self._connection.execute(f"CREATE INDEX by_url ON responses(url, {_NEWEST_FIRST})")
        ordered = (
            "SELECT authority, scheme, rowid FROM responses WHERE is_robots = 1 "
            f"ORDER BY authority, scheme, {_NEWEST_FIRST}"
        )
        previous = None
        with contextlib.closing(self._connection.execute(ordered)) as cursor:
            for authority, scheme, rowid in cursor:
                if (authority, scheme) != previous:
                    previous = authority, scheme
                    row = self._fetch("rowid = ?", rowid)
                    assert row is not None  # the cursor stands on it
                    yield self._resolve(authority, scheme, row)

    def _fetch(self, condition: str, value: str | int) -> tuple | None:
        return self._connection.execute(
            f"SELECT url, fetched_at, status, location, body, truncated, error, chain FROM responses "
            f"WHERE {condition} ORDER BY {_NEWEST_FIRST} LIMIT 1",
            (value,),
        ).fetchone()

    def _resolve(self, authority: str, scheme: str, row: tuple) -> RobotsRecord:
        """Follows the redirects of one answer through the store."""
        first_url, fetched_at = row[:2]
        followed = list(parse_json(row[7], f"{first_url}: redirects"))
        url, error = (followed[-1] if followed else first_url), row[6]
        while not error and _is_redirect(row[2]):
            target = parse_web_address(_join(url, row[3])) if row[3] else None
            if target is None:
                error = REDIRECT_WITHOUT_TARGET
            elif len(followed) >= REDIRECT_LIMIT:
                error = TOO_MANY_REDIRECTS
            else:
                url = _clean(target.url)
                followed.append(url)
                found = self._fetch("url = ?", url)
                if found is None:
                    error = REDIRECT_NOT_ARCHIVED
                else:
                    row, error = found, found[6]
        status = None if row[2] == _UNKNOWN else row[2]
        usable = not error and (status is None or 200 <= status < 300)
        return RobotsRecord(
            authority=authority,
            scheme=scheme,
            fetched_at=None if fetched_at == _UNKNOWN else fetched_at,
            http_status=status,
            redirects=tuple(followed),
            final_url=url,
            body=zlib.decompress(row[4]) if usable else b"",
            truncated=bool(row[5]) and usable,
            error_kind=error,
        )


def _row(response: Response) -> tuple | None:
    """Returns a response as a row of the store, or None when its address has no host."""
    address = parse_web_address(response.url)
    if address is None:
        return None
    body = response.body[:BODY_LIMIT]
    return (
        _clean(address.url),
        address.authority,
        address.scheme,
        int(address.path_and_query == ROBOTS_PATH),
        _UNKNOWN if response.fetched_at is None else response.fetched_at,
        _UNKNOWN if response.http_status is None else response.http_status,
        _clean(response.location),
        zlib.compress(body, 1),
        hashlib.sha256(body).hexdigest(),
        int(response.truncated or len(response.body) > BODY_LIMIT),
        response.error_kind,
        json.dumps(list(response.chain)),
    )


def _is_redirect(status: int) -> bool:
    return status in (301, 302, 303, 307, 308)


def _join(base: str, location: str) -> str:
    try:
        return urllib.parse.urljoin(base, location)
    except ValueError:  # an unbalanced bracket in the host
        return ""


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()

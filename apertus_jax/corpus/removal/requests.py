"""The request file: one JSON object per line, from somebody who wants something removed.

    {"id": "R-2026-014", "received": "2026-03-02", "basis": "GDPR Art. 17", "scope": "url_prefix",
     "value": "https://site.example/people/", "decision": "granted", "effective_date": "2026-03-09"}

The file is a ledger: requests are added and decided, never taken out. Values can be personal data, so that no message
repeats one.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax.corpus.removal.keys import Scope, canonical_value, key_digest
from apertus_jax.errors import UserError

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
LONGEST_VALUE = 8192
LONGEST_BASIS = 200
_log = logging.getLogger(__name__)


class Decision(enum.StrEnum):
    """What was decided about a request; only granted ones remove anything."""

    GRANTED = "granted"
    REFUSED = "refused"
    PENDING = "pending"


@dataclasses.dataclass(frozen=True, slots=True)
class RemovalRequest:
    """One request: `value` as given, `key` in the spelling of lookups, days as YYYY-MM-DD or ""."""

    id: str
    received: str
    basis: str
    scope: Scope
    value: str
    key: str
    decision: Decision
    effective_date: str

    @property
    def value_digest(self) -> str:
        """Digest of the key, by which the request can be spoken of without saying what it is about."""
        return key_digest(self.scope, self.key).hex()


FIELDS = ("id", "received", "basis", "scope", "value", "decision", "effective_date")


def parse_day(text: str) -> datetime.date | None:
    """Returns the calendar day written YYYY-MM-DD, or None."""
    try:
        return datetime.date.fromisoformat(text) if DAY.fullmatch(text) else None
    except ValueError:
        return None


def read_requests(path: epath.PathLike) -> list[RemovalRequest]:
    """Returns the requests of a JSONL file, sorted by id.

    Raises:
      UserError: the file is missing or holds no request, or lines are not requests. Each wrong line is logged on a
        line of its own; the error names the first and how many more there are.
    """
    file = epath.Path(path)
    if not file.exists() or file.is_dir():
        raise UserError(f"{file} is not a file; give a JSONL file of removal requests")
    requests: dict[str, RemovalRequest] = {}
    rows: dict[str, int] = {}
    errors: list[str] = []
    for row, line in _lines(file):
        try:
            request = parse_request(_parsed(line))
            if request.id in requests:
                raise UserError(f"id {request.id} stands already in row {rows[request.id]}; give each request its own")
        except UserError as error:
            errors.append(f"{file}, row {row}: {error}")
            continue
        requests[request.id], rows[request.id] = request, row
    if errors:
        for error in errors:
            _log.error("%s", error)
        more = f" (and {len(errors) - 1} more wrong rows, each in the log)" if len(errors) > 1 else ""
        raise UserError(errors[0] + more)
    if not requests:
        raise UserError(f"{file} holds no requests; put one JSON object on each line")
    return [requests[name] for name in sorted(requests)]


def parse_request(row: Any) -> RemovalRequest:
    """Returns the request of one parsed row.

    Raises:
      UserError: a field is missing, unknown, or not what it must be.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"a JSON object is expected, found {type(row).__name__}")
    if unknown := sorted(set(row) - set(FIELDS)):
        raise UserError(f"unknown fields ({len(unknown)}); the fields are {', '.join(FIELDS)}")
    fields = {name: _text_field(row, name) for name in FIELDS}
    if not REQUEST_ID.fullmatch(fields["id"]):
        raise UserError("id must be 1 to 64 letters, digits, dots, dashes or underscores; it appears in ledgers")
    scope, decision = _member(Scope, "scope", fields["scope"]), _member(Decision, "decision", fields["decision"])
    for name in ("received", "effective_date"):
        if fields[name] and parse_day(fields[name]) is None:
            raise UserError(f"{name} must be a calendar day written YYYY-MM-DD")
    if decision == Decision.GRANTED and not fields["effective_date"]:
        raise UserError("a granted request needs an effective_date, from which day on it holds")
    for name, longest in (("value", LONGEST_VALUE), ("basis", LONGEST_BASIS)):
        if len(fields[name]) > longest:
            raise UserError(f"{name} has {len(fields[name])} characters; at most {longest} are taken")
    return RemovalRequest(
        id=fields["id"],
        received=fields["received"],
        basis=fields["basis"],
        scope=scope,
        value=fields["value"],
        key=canonical_value(scope, fields["value"]),
        decision=decision,
        effective_date=fields["effective_date"],
    )


def _text_field(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if name == "effective_date" and value is None:
        return ""
    if value is None:
        raise UserError(f"field {name} is missing")
    if not isinstance(value, str):
        raise UserError(f"field {name} must be a string, found {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"field {name} holds half of a surrogate pair") from error
    if not value.strip() and name != "effective_date":
        raise UserError(f"field {name} is empty")
    return value.strip()


def _member(kind: type[enum.StrEnum], name: str, value: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise UserError(f"{name} must be one of {', '.join(kind)}") from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"not valid JSON ({error.msg} at character {error.pos})") from error
    except RecursionError as error:
        raise UserError("not a flat JSON object") from error


def _lines(file: epath.Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if line.strip():
                yield row, line

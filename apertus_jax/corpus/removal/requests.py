"""Removal request file: one JSON object a line.

    {"id": "R-2026-014", "received": "2026-03-02", "basis": "GDPR Art. 17", "scope": "url",
     "value": "https://site.example/people/anna", "decision": "granted", "effective_date": "2026-03-09"}

    id              the request's own name, 1 to 64 letters, digits, dots, dashes, underscores; ledgers show it
    received        the day on which it came, YYYY-MM-DD
    basis           on what ground, in up to 200 characters
    scope, value    what it covers:
      url             one address and no other, whatever its scheme (how addresses are compared: `keys`)
      url_prefix      every address that begins so: …/part3 also …/part30; end it with a slash to mean what lies below
      host            one host, all of its ports: www.example.org
      domain          what somebody registered, and all hosts below it: example.org
      document_id     one document, by its 32 hexadecimal digits
      text_digest     every document of this text, by the digest that a ledger shows
    decision        granted, refused or pending; only granted ones remove anything
    effective_date  from which day on a granted one holds, YYYY-MM-DD; may be left out of others

`gin_configs/policies/removal_requests.jsonl` shows one of each. The file is a ledger: requests are added and decided,
never taken out. Values can be personal data, so that no message repeats one.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax.clock import parse_day
from apertus_jax.corpus.removal.keys import Scope, canonical_value, key_digest
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import parse_json
from apertus_jax.storage.listing import regular_file

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LONGEST_VALUE = 8192
LONGEST_BASIS = 200
NAMES_SHOWN, LONGEST_NAME_SHOWN = 5, 40
_log = logging.getLogger(__name__)


class Decision(enum.StrEnum):
    """Decision about a removal request; only granted ones remove anything."""

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


def read_requests(path: epath.PathLike) -> list[RemovalRequest]:
    """Returns the requests of a JSONL file, sorted by id.

    Raises:
      UserError: the file is missing or holds no request, or lines are not requests. The error names the first wrong
        line and how many more there are; each of these is logged on a line of its own.
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
        for told in errors[1:]:
            _log.error("%s", told)
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
        shown = ", ".join(repr(str(name)[:LONGEST_NAME_SHOWN]) for name in unknown[:NAMES_SHOWN])
        more = f" and {len(unknown) - NAMES_SHOWN} more" if len(unknown) > NAMES_SHOWN else ""
        raise UserError(f"unknown field {shown}{more}; the fields are {', '.join(FIELDS)}")
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
    return parse_json(line, "the line")


def _lines(file: epath.Path) -> Iterator[tuple[int, bytes]]:
    with regular_file(file).open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if line.strip():
                yield row, line

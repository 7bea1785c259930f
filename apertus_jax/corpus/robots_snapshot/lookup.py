"""Lookup from URL to the parsed rules of its host: one lookup a host, one parse a file."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Hashable
from typing import Any

from apertus_jax.corpus.robots import RobotsPolicy
from apertus_jax.corpus.robots_snapshot.reader import RobotsSnapshot
from apertus_jax.corpus.robots_snapshot.responses import format_time
from apertus_jax.corpus.robots_snapshot.states import FOUND, MISSING, NOT_UNDERSTOOD, robots_state
from apertus_jax.corpus.web_addresses import DEFAULT_PORTS, WebAddress

CACHED_BYTES = 32 << 20  # of bodies; a parsed policy takes a few times as much
_ENTRY_BYTES = 512
_OTHER_SCHEME = {"http": "https", "https": "http"}


@dataclasses.dataclass(frozen=True, slots=True)
class FoundRobots:
    """A host's entry in a snapshot; `policy` is None where no body was given to parse."""

    state: str
    body_sha256: str  # "" without a body
    fetched_at: str  # YYYY-MM-DDTHH:MM:SSZ or ""
    policy: RobotsPolicy | None


class RobotsLookup:
    """Parsed robots.txt rules by address, in two bounded caches (by host, and by body: many hosts share one).

    With `any_scheme`, a host that was asked under the other scheme alone answers for both: pages of the years of http
    now live under https, and so does the refusal. Without it the letter of RFC 9309 §2.3 holds.
    """

    def __init__(self, snapshot: RobotsSnapshot, mode: str, any_scheme: bool):
        self._snapshot, self._mode, self._any_scheme = snapshot, mode, any_scheme
        self._hosts = BoundedCache(CACHED_BYTES)
        self._policies = BoundedCache(CACHED_BYTES)

    def find(self, address: WebAddress) -> FoundRobots:
        """Returns what is known of the host of an address."""
        key = address.authority, address.scheme
        found = self._hosts.get(key)
        if found is None:
            found, cost = self._read(address)
            self._hosts.put(key, found, cost)
        return found

    def _read(self, address: WebAddress) -> tuple[FoundRobots, int]:
        record = self._snapshot.record(address.authority, address.scheme)
        if self._any_scheme and robots_state(record) == MISSING:
            others = (self._snapshot.record(*other) for other in _other_places(address))
            record = next((other for other in others if robots_state(other) != MISSING), record)
        state = robots_state(record)
        if record is None or state not in (FOUND, *NOT_UNDERSTOOD):
            fetched_at = format_time(record.fetched_at) if record is not None else ""
            return FoundRobots(state, "", fetched_at, None), _ENTRY_BYTES
        digest, cost = record.body_sha256, len(record.body) + _ENTRY_BYTES
        policy = self._policies.get((digest, record.truncated))
        if policy is None:
            policy = RobotsPolicy.parse(record.body, mode=self._mode, truncated=record.truncated)
            self._policies.put((digest, record.truncated), policy, cost)
        return FoundRobots(state, digest, format_time(record.fetched_at), policy), cost


def _other_places(address: WebAddress) -> list[tuple[str, str]]:
    """Returns (authority, scheme) of what is the same host under the other scheme.

    The default port belongs to the scheme, also where it is named under the other one; any other is another server.
    """
    other = _OTHER_SCHEME[address.scheme]
    if address.authority == address.host:
        return [(address.host, other)]
    if address.authority == f"{address.host}:{DEFAULT_PORTS[other]}":
        return [(address.host, other), (address.host, address.scheme)]
    return []


class BoundedCache:
    """Least recently used values, bounded by the sum of their costs; the newest always stays."""

    def __init__(self, limit: int):
        self._limit, self._total = limit, 0
        self._values: collections.OrderedDict[Hashable, tuple[Any, int]] = collections.OrderedDict()

    def get(self, key: Hashable) -> Any | None:
        """Returns a kept value, or None."""
        entry = self._values.get(key)
        if entry is None:
            return None
        self._values.move_to_end(key)
        return entry[0]

    def put(self, key: Hashable, value: Any, cost: int) -> None:
        """Keeps a value; the key must be new."""
        self._values[key] = value, cost
        self._total += cost
        while self._total > self._limit and len(self._values) > 1:
            self._total -= self._values.popitem(last=False)[1][1]

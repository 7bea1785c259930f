"""Contract of opt-out signals: a signal's answer with evidence, and what it is read from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Protocol

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.robots_snapshot.lookup import FoundRobots
from apertus_jax.corpus.web_addresses import WebAddress

ALLOW, DENY, UNKNOWN = "allow", "deny", "unknown"
# Something was said that may be a refusal in other words; `NOT_ASKED`: nothing was given to read the signal from.
NOT_UNDERSTOOD, NOT_ASKED = "not_understood", "not_asked"
_SEVERITY = (DENY, NOT_UNDERSTOOD, ALLOW, UNKNOWN, NOT_ASKED)


@dataclasses.dataclass(frozen=True, slots=True)
class Signal:
    """The statement of one protocol about one document.

    `evidence` is the statement in the words of the protocol and the SHA-256 of what carried it; never free text of
    the page, which may be personal.
    """

    kind: str
    verdict: str = UNKNOWN  # allow, deny, not_understood, unknown, not_asked
    carrier: str = ""  # robots.txt, header, meta, tdmrep.json, ai.txt; "" when nothing spoke
    evidence: str = ""
    line: int = 0  # of the carrier, from 1; 0 where it has none


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A document with what is known of its host; `address` and `robots` are None without a URL or a snapshot."""

    document: RawDocument
    address: WebAddress | None
    robots: FoundRobots | None
    agents: tuple[str, ...]


class SignalReader(Protocol):
    """Reads one protocol. Whatever the page holds, it answers; it never raises."""

    kind: str

    def read(self, page: Page) -> Signal:
        """Returns the statement about a page, `unknown` when there is none."""


def evidence(statement: str, carrier: str | bytes) -> str:
    """Returns the evidence of a statement: its words and the digest of its carrier."""
    content = carrier.encode("utf-8", "surrogatepass") if isinstance(carrier, str) else carrier
    return f"{statement} sha256:{hashlib.sha256(content).hexdigest()}"


def strictest(kind: str, signals: Iterable[Signal]) -> Signal:
    """Returns the most restrictive of some statements (the first of equals), or an unknown one."""
    return min(signals, key=lambda signal: _SEVERITY.index(signal.verdict), default=Signal(kind))

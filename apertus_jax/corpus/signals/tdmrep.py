"""TDM Reservation Protocol (W3C community group): reservations under Article 4 CDSM in a file, header or meta tag."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from apertus_jax.corpus.robots.path_encoding import canonical_path
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.signals.host_files import HostFiles
from apertus_jax.corpus.signals.path_patterns import PathPattern
from apertus_jax.corpus.signals.signal import ALLOW, DENY, Page, Signal, evidence

PROPERTY = "tdm-reservation"
_CACHED_RULES = 1 << 15


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    number: int  # place in the file, from 1
    pattern: PathPattern
    reserved: str  # "1", "0", or "" for unset


class TdmReservation:
    """Reads `tdm-reservation` (1 = reserved, 0 = not; anything else is unset).

    The file `/.well-known/tdmrep.json` is a list of rules of which the first that matches the path speaks; a header
    overrides it, a meta tag overrides both, and a carrier that is absent or unset overrides nothing.
    """

    kind = "tdmrep"

    def __init__(self, files: HostFiles | None):
        self._files = files
        self._rules = BoundedCache(_CACHED_RULES)

    def read(self, page: Page) -> Signal:
        """Returns deny where text and data mining is reserved, allow where it is not, unknown where it is unset."""
        for signal in self._by_priority(page):
            if signal is not None:
                return signal
        return Signal(self.kind)

    def _by_priority(self, page: Page) -> Iterator[Signal | None]:
        for carrier, values in (("meta", page.document.meta_tags), ("header", page.document.headers)):
            yield self._signal(_strictest_value(values.get(PROPERTY, "")), carrier, values.get(PROPERTY, ""))
        if self._files is not None and page.address is not None:
            body = self._files.body(page.address.authority)
            path = canonical_path(page.address.path_and_query)
            for rule in self._rules_of(page.address.authority, body) if body is not None else ():
                if rule.pattern.matches(path):
                    yield self._signal(rule.reserved, "tdmrep.json", body, rule.number)
                    return

    def _rules_of(self, authority: str, body: bytes) -> list[_Rule]:
        rules = self._rules.get(authority)
        if rules is None:
            rules = _parse_rules(body)
            self._rules.put(authority, rules, 1 + len(rules))
        return rules

    def _signal(self, value: str, carrier: str, content: str | bytes, rule: int = 0) -> Signal | None:
        if value not in ("0", "1"):
            return None
        verdict = DENY if value == "1" else ALLOW
        return Signal(self.kind, verdict, carrier, evidence(f"{PROPERTY}={value}", content), rule)


def _strictest_value(joined: str) -> str:
    """Returns "1" where one of several joined values is 1, "0" where all of them are 0, else ""."""
    values = {value.strip() for value in joined.split(",")}
    return "1" if "1" in values else "0" if values == {"0"} else ""


def _parse_rules(body: bytes) -> list[_Rule]:
    """Returns the rules of a file in their order; what is not a rule with a location is passed over."""
    try:
        entries = json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return []
    rules = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        location = entry.get("location") if isinstance(entry, dict) else None
        if isinstance(location, str):
            value = entry.get(PROPERTY)
            reserved = str(value) if value in (0, 1) and isinstance(value, int) and not isinstance(value, bool) else ""
            rules.append(_Rule(number, PathPattern(location), reserved))
    return rules

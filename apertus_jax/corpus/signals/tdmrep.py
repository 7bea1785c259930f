"""TDM Reservation Protocol (W3C community group): reservations under Article 4 CDSM in a file, header or meta tag."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from apertus_jax.corpus.robots.path_encoding import canonical_path
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.signals.host_files import HostFile, HostFiles
from apertus_jax.corpus.signals.path_patterns import PathPattern
from apertus_jax.corpus.signals.signal import ALLOW, DENY, NOT_UNDERSTOOD, Page, Signal, evidence, strictest
from apertus_jax.storage.json_reader import JSONError, parse_json

PROPERTY = "tdm-reservation"
_CACHED_RULES = 1 << 15
_VERDICTS = {"0": ALLOW, "1": DENY}
_EVERYWHERE = "/"


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    """An entry of the file. One that is not understood hides no later one: it may be about any path."""

    number: int  # place in the file, from 1; 0 where the file as a whole is meant
    pattern: PathPattern
    verdict: str
    ends: bool = True  # whether the first match speaks alone


class TdmReservation:
    """Reads `tdm-reservation` (1 = reserved, 0 = not).

    The file `/.well-known/tdmrep.json` is a list of rules of which the first that matches the path speaks; a header
    overrides it, a meta tag overrides both, and a carrier that is absent overrides nothing. Any other value, or a file
    that is no such list, is not understood: it overrides nothing either, and only a refusal weighs more.
    """

    kind = "tdmrep"

    def __init__(self, files: HostFiles | None):
        self._files = files
        self._rules = BoundedCache(_CACHED_RULES)

    def read(self, page: Page) -> Signal:
        """Returns deny where text and data mining is reserved, allow where it is not, unknown where nothing speaks."""
        said = []
        for signal in self._by_priority(page):
            said.append(signal)
            if signal.verdict != NOT_UNDERSTOOD:
                break
        return strictest(self.kind, said)

    def _by_priority(self, page: Page) -> Iterator[Signal]:
        for carrier, values in (("meta", page.document.meta_tags), ("header", page.document.headers)):
            if PROPERTY in values:
                value = values[PROPERTY]
                yield self._signal(_strictest_value(value), carrier, value)
        if self._files is None or page.address is None:
            return
        file = self._files.file(page.address.authority)
        if file is None:
            return
        path = canonical_path(page.address.path_and_query)
        for rule in self._rules_of(page.address.authority, file):
            if rule.pattern.matches(path):
                yield self._signal(rule.verdict, "tdmrep.json", file.stored, rule.number)
                if rule.ends:
                    return

    def _rules_of(self, authority: str, file: HostFile) -> list[_Rule]:
        rules = self._rules.get(authority)
        if rules is None:
            rules = _parse_rules(file.body)
            if not file.is_sound:
                rules.insert(0, _Rule(0, PathPattern(_EVERYWHERE), NOT_UNDERSTOOD, ends=False))
            self._rules.put(authority, rules, 1 + len(rules))
        return rules

    def _signal(self, verdict: str, carrier: str, content: str | bytes, rule: int = 0) -> Signal:
        words = {ALLOW: f"{PROPERTY}=0", DENY: f"{PROPERTY}=1"}.get(verdict, "not understood")
        return Signal(self.kind, verdict, carrier, evidence(words, content), rule)


def _strictest_value(joined: str) -> str:
    """Returns the verdict of one or several joined values: one reservation reserves, one odd value is never consent."""
    verdicts = {_VERDICTS.get(value.strip(), NOT_UNDERSTOOD) for value in joined.split(",")}
    return next(verdict for verdict in (DENY, NOT_UNDERSTOOD, ALLOW) if verdict in verdicts)


def _parse_rules(body: bytes) -> list[_Rule]:
    """Returns the rules of a file in their order; what is not understood stands among them."""
    try:
        entries = parse_json(body.decode("utf-8", "replace"), "tdmrep.json")
    except JSONError:
        entries = None
    if not isinstance(entries, list):
        return [_Rule(0, PathPattern(_EVERYWHERE), NOT_UNDERSTOOD)]
    return [_rule(number, entry) for number, entry in enumerate(entries, start=1)]


def _rule(number: int, entry: Any) -> _Rule:
    location = entry.get("location") if isinstance(entry, dict) else None
    pattern = PathPattern(location) if isinstance(location, str) else None
    if pattern is None or not pattern.understood:
        return _Rule(number, PathPattern(_EVERYWHERE), NOT_UNDERSTOOD, ends=False)
    value = entry.get(PROPERTY)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return _Rule(number, pattern, _VERDICTS.get(str(value), NOT_UNDERSTOOD) if is_whole else NOT_UNDERSTOOD)

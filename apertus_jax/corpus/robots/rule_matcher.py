"""Matcher of one group's rules for many URLs: the longest matching rule decides (RFC 9309 §2.2.2-2.2.3).

Rules without wildcards are a sorted list of prefixes, each of which knows the best rule among itself and its own
prefixes, found by bisection. Rules with wildcards are tried from the longest to the shortest, each by searching its
literal parts one after the other from the left. Taking each part at its first occurrence leaves the most room for the
next, so nothing is ever tried twice and a hostile pattern costs no more than its length.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from apertus_jax.corpus.robots.path_encoding import canonical_pattern, decoded_query, octets_of
from apertus_jax.corpus.robots.robots_file import RuleLine


class CompiledRule(NamedTuple):
    """A rule in the canonical spelling; the higher `rank` decides: octets first, then allow before disallow."""

    rank: int
    allow: bool
    pattern: str  # without the final $
    anchored: bool
    source: RuleLine


class Wildcards(NamedTuple):
    """A rule with `*` inside: the part before the first `*`, parts anywhere in this order, and the part at the end."""

    rule: CompiledRule
    rank: int
    head: str
    longest: str  # a part that a path must contain, to say no quickly
    parts: tuple[str, ...]
    tail: str  # "" where the pattern does not fix the end

    def matches(self, path: str) -> bool:
        """Returns whether a path that starts with the head matches."""
        position = len(self.head)
        end = len(path) - len(self.tail)
        if not path.endswith(self.tail):
            return False
        for part in self.parts:
            position = path.find(part, position, end)
            if position < 0:
                return False
            position += len(part)
        return position <= end


def compile_rule(line: RuleLine) -> CompiledRule | None:
    """Returns a rule in the canonical spelling, or None where its path can match no URL (it starts with no / or *)."""
    value = line.value
    if value[:1] not in (b"/", b"*"):
        return None
    anchored = value.endswith(b"$")
    pattern = canonical_pattern(value[:-1] if anchored else value)
    octets = octets_of(decoded_query(pattern)) + anchored
    return CompiledRule(2 * octets + line.allow, line.allow, pattern, anchored, line)


class RuleIndex:
    """Rules in one spelling. `best(path)` returns the rule that decides, or None where none matches."""

    def __init__(self, rules: Iterable[CompiledRule]):
        prefixes: dict[str, CompiledRule] = {}
        self._exact: dict[str, CompiledRule] = {}
        wildcards: dict[tuple[str, bool], CompiledRule] = {}
        for rule in rules:
            literal = rule.pattern.rstrip("*")
            if "*" in literal:
                open_end = not rule.anchored or literal != rule.pattern
                _keep_higher(wildcards, (literal, open_end), rule)
            elif rule.anchored and literal == rule.pattern:
                _keep_higher(self._exact, literal, rule)
            else:
                _keep_higher(prefixes, literal, rule)
        self._prefixes = sorted(prefixes)
        self._shorter, self._best = _nested(self._prefixes, prefixes)
        self._wildcards = sorted((_wildcards(*key, rule) for key, rule in wildcards.items()), key=lambda w: -w.rank)

    def best(self, path: str) -> CompiledRule | None:
        """Returns the rule with the most octets that matches a canonical path; allow wins among equals."""
        best = None
        rank = 0
        prefixes = self._prefixes
        place = bisect_right(prefixes, path) - 1
        while place >= 0:
            if path.startswith(prefixes[place]):
                best = self._best[place]
                rank = best.rank
                break
            place = self._shorter[place]
        if self._exact:
            exact = self._exact.get(path)
            if exact is not None and exact.rank > rank:
                best = exact
                rank = exact.rank
        for wildcards in self._wildcards:
            if wildcards.rank <= rank:
                break
            if wildcards.longest in path and path.startswith(wildcards.head) and wildcards.matches(path):
                return wildcards.rule
        return best


def _respelled(rule: CompiledRule) -> CompiledRule:
    """Returns the rule with its query decoded."""
    return rule if rule.pattern.isascii() else rule._replace(pattern=decoded_query(rule.pattern))


def _keep_higher(rules: dict, key: object, rule: CompiledRule) -> None:
    """Keeps one rule for each key, the one with the higher rank; among equals the first in the file."""
    known = rules.get(key)
    if known is None or rule.rank > known.rank:
        rules[key] = rule


def _nested(ordered: list[str], rules: dict[str, CompiledRule]) -> tuple[list[int], list[CompiledRule]]:
    """Returns for each of the sorted prefixes the place of its longest own prefix (-1: none) and the best of both."""
    shorter: list[int] = []
    best: list[CompiledRule] = []
    open_places: list[int] = []
    for place, prefix in enumerate(ordered):
        while open_places and not prefix.startswith(ordered[open_places[-1]]):
            open_places.pop()
        parent = open_places[-1] if open_places else -1
        rule = rules[prefix]
        shorter.append(parent)
        best.append(best[parent] if parent >= 0 and best[parent].rank > rule.rank else rule)
        open_places.append(place)
    return shorter, best


def _wildcards(literal: str, open_end: bool, rule: CompiledRule) -> Wildcards:
    """Returns the parts of a pattern with `*` inside; `open_end`: trailing `*` were taken off it."""
    head, *rest = literal.split("*")
    tail = "" if open_end else rest.pop()
    parts = tuple(part for part in rest if part)
    return Wildcards(rule, rule.rank, head, max((*parts, tail), key=len), parts, tail)


class RuleMatcher:
    """All rules of one group. `decide(path)` returns the rule that decides about a canonical path, or None.

    Encoded delimiters in the query of a URL equal plain ones only for rules that have a query themselves; a rule such
    as `/*/` speaks of folders and does not find one in `?next=%2Fa%2F`.
    """

    def __init__(self, lines: Iterable[RuleLine]):
        self.rules = [rule for rule in map(compile_rule, lines) if rule is not None]
        self.can_refuse = not all(rule.allow for rule in self.rules)
        self._respelled = [_respelled(rule) for rule in self.rules]
        self._decoded = RuleIndex(self._respelled)
        self._encoded: tuple[RuleIndex, RuleIndex] | None = None

    def signature(self) -> tuple:
        """Returns what two groups with the same verdict on every path have in common: their rules, wherever written."""
        return tuple(sorted({(rule.pattern, rule.anchored, rule.allow) for rule in self.rules}))

    def decide(self, path: str) -> CompiledRule | None:
        """Returns the rule that decides; a query with encoded delimiters is looked up in both its spellings."""
        if not path.isascii():
            decoded = decoded_query(path)
            if decoded != path:
                return self._decide_twice(path, decoded)
        return self._decoded.best(path)

    def _decide_twice(self, encoded: str, decoded: str) -> CompiledRule | None:
        if self._encoded is None:
            respelled = [rule for rule in self._respelled if "?" in rule.pattern]
            self._encoded = RuleIndex(self.rules), RuleIndex(respelled)
        as_written, with_query = self._encoded
        found = as_written.best(encoded), with_query.best(decoded)
        return max((rule for rule in found if rule is not None), key=lambda rule: rule.rank, default=None)

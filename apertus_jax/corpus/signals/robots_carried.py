"""Signals in robots.txt: AIPREF `Content-Usage` and Cloudflare's `Content-Signal`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from apertus_jax.corpus.robots import Record, RobotsPolicy
from apertus_jax.corpus.robots.path_encoding import canonical_path
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.signals.path_patterns import PathPattern
from apertus_jax.corpus.signals.preferences import ai_train, train_ai
from apertus_jax.corpus.signals.signal import Page, Signal, evidence, strictest

_CACHED_STATEMENTS = 1 << 14


@dataclasses.dataclass(frozen=True, slots=True)
class _Statement:
    """One line of robots.txt: what it says, and about which paths."""

    line: int
    pattern: PathPattern
    verdict: str
    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Group:
    """The statements of one group and the agents of the set that it speaks to."""

    agents: tuple[str, ...]
    statements: tuple[_Statement, ...]


class _GroupStatements:
    """The statements in a robots.txt under one record name, read once for all documents of a host."""

    def __init__(self, name: str, meaning: Callable[[str], tuple[str, str]]):
        self._name, self._meaning = name, meaning
        self._cache = BoundedCache(_CACHED_STATEMENTS)

    def of(self, page: Page) -> tuple[_Group, ...]:
        """Returns the groups of a page's host that have such records; what stands before them all is one more."""
        if page.address is None or page.robots is None or page.robots.policy is None:
            return ()
        key = page.robots.body_sha256, page.robots.policy.truncated, page.agents
        groups = self._cache.get(key)
        if groups is None:
            groups = self._compile(page.robots.policy, page.agents)
            self._cache.put(key, groups, 1 + sum(len(group.statements) for group in groups))
        return groups

    def _compile(self, policy: RobotsPolicy, agents: Sequence[str]) -> tuple[_Group, ...]:
        by_lines: dict[tuple[int, ...], tuple[list[str], Sequence[Record]]] = {}
        for agent in agents:
            # A group of its own does not take an agent out of what was said to all.
            for records in (policy.preamble_records(self._name), policy.group_records(agent, self._name)):
                if records:
                    lines = tuple(record.line for record in records)
                    by_lines.setdefault(lines, ([], records))[0].append(agent)
        return tuple(_Group(tuple(names), tuple(map(self._statement, records))) for names, records in by_lines.values())

    def _statement(self, record: Record) -> _Statement:
        path, rest = _split_path(record.value)
        return _Statement(record.line, PathPattern(path), *self._meaning(rest))


class ContentUsage:
    """AIPREF drafts (`attach`, `vocab`; state of 2026-08-19), category `train-ai`.

    In robots.txt: `Content-Usage: [path] <dictionary>` in the group of an agent or before the first; the longest
    matching path speaks, equally long ones speak together, and nothing is said about paths which that agent may not
    fetch. As an HTTP header or a meta tag: a dictionary about this response. The most restrictive statement of all
    agents and carriers counts.
    """

    kind = "aipref"

    def __init__(self):
        self._statements = _GroupStatements("content-usage", train_ai)

    def read(self, page: Page) -> Signal:
        """Returns deny for `train-ai=n`, allow for `train-ai=y`; see `preferences` for anything else."""
        found = [*_from_response(self.kind, "content-usage", train_ai, page)]
        for group in self._statements.of(page):
            policy, url = _policy_and_url(page)
            if any(policy.allows(agent, url) for agent in group.agents):
                matching = _matching(group, page)
                longest = max((statement.pattern.octets for statement in matching), default=0)
                found += [
                    _from_robots(self.kind, statement, page)
                    for statement in matching
                    if statement.pattern.octets == longest
                ]
        return strictest(self.kind, found)


class ContentSignal:
    """Cloudflare's content signals (`Content-Signal: search=yes, ai-train=no`), in robots.txt, header or meta tag."""

    kind = "content_signal"

    def __init__(self):
        self._statements = _GroupStatements("content-signal", ai_train)

    def read(self, page: Page) -> Signal:
        """Returns deny for `ai-train=no`, allow for `ai-train=yes`; of several statements the most restrictive."""
        found = [*_from_response(self.kind, "content-signal", ai_train, page)]
        for group in self._statements.of(page):
            found += [_from_robots(self.kind, statement, page) for statement in _matching(group, page)]
        return strictest(self.kind, found)


def _from_response(kind: str, name: str, meaning: Callable[[str], tuple[str, str]], page: Page) -> Iterator[Signal]:
    for carrier, values in (("header", page.document.headers), ("meta", page.document.meta_tags)):
        value = values.get(name)
        if value is not None:
            verdict, words = meaning(value)
            yield Signal(kind, verdict, carrier, evidence(words, value))


def _policy_and_url(page: Page) -> tuple[RobotsPolicy, str]:
    """Returns both for a page that `_GroupStatements.of` has found records for, which has them."""
    assert page.address is not None and page.robots is not None and page.robots.policy is not None
    return page.robots.policy, page.address.url


def _from_robots(kind: str, statement: _Statement, page: Page) -> Signal:
    assert page.robots is not None  # whose statement this is
    proof = f"{statement.words} sha256:{page.robots.body_sha256}"
    return Signal(kind, statement.verdict, "robots.txt", proof, statement.line)


def _matching(group: _Group, page: Page) -> list[_Statement]:
    assert page.address is not None  # or nothing was looked up
    path = canonical_path(page.address.path_and_query)
    return [statement for statement in group.statements if statement.pattern.matches(path)]


def _split_path(value: str) -> tuple[str, str]:
    """Returns (path pattern, the rest) of a rule value; without a path it is about the whole site.

    A path that nothing follows but that holds a `=` has swallowed the preference: all of it is handed on to be judged.
    """
    value = value.strip(" \t")
    if not value.startswith(("/", "*")):
        return "/", value
    path, *rest = value.split(None, 1)
    if not rest and "=" in path:
        return "/", value
    return path, rest[0] if rest else ""

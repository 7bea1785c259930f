"""Signals that live in the groups of robots.txt: AIPREF `Content-Usage` and Cloudflare's `Content-Signal`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from apertus_jax.corpus.robots.path_encoding import canonical_path
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.signals.path_patterns import PathPattern
from apertus_jax.corpus.signals.signal import ALLOW, DENY, UNKNOWN, Page, Signal, evidence, strictest
from apertus_jax.corpus.signals.structured_fields import Token, parse_dictionary

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
        """Returns the groups of a page's host that have such records."""
        if page.address is None or page.robots is None or page.robots.policy is None:
            return ()
        key = page.robots.body_sha256, page.robots.policy.truncated, page.agents
        groups = self._cache.get(key)
        if groups is None:
            groups = self._compile(page)
            self._cache.put(key, groups, 1 + sum(len(group.statements) for group in groups))
        return groups

    def _compile(self, page: Page) -> tuple[_Group, ...]:
        by_lines: dict[tuple[int, ...], tuple[list[str], list]] = {}
        for agent in page.agents:
            if records := page.robots.policy.group_records(agent, self._name):
                lines = tuple(record.line for record in records)
                by_lines.setdefault(lines, ([], records))[0].append(agent)
        groups = []
        for agents, records in by_lines.values():
            statements = []
            for record in records:
                path, rest = _split_path(record.value)
                statements.append(_Statement(record.line, PathPattern(path), *self._meaning(rest)))
            groups.append(_Group(tuple(agents), tuple(statements)))
        return tuple(groups)


class ContentUsage:
    """AIPREF drafts (`attach`, `vocab`; state of 2026-08-19), category `train-ai`.

    In robots.txt: `Content-Usage: [path] <dictionary>` in the group of an agent; the longest matching path speaks,
    equally long ones speak together, and nothing is said about paths which that agent may not fetch. As an HTTP
    header: a dictionary about this response. The most restrictive statement of all agents and carriers counts.
    """

    kind = "aipref"

    def __init__(self):
        self._statements = _GroupStatements("content-usage", _train_ai)

    def read(self, page: Page) -> Signal:
        """Returns deny for `train-ai=n`, allow for `train-ai=y`, unknown for anything else or a broken dictionary."""
        found = [*_from_header(self.kind, "content-usage", _train_ai, page)]
        for group in self._statements.of(page):
            if any(page.robots.policy.allows(agent, page.address.url) for agent in group.agents):
                matching = _matching(group, page)
                longest = max((statement.pattern.octets for statement in matching), default=0)
                found += [
                    _from_robots(self.kind, statement, page)
                    for statement in matching
                    if statement.pattern.octets == longest
                ]
        return strictest(self.kind, found)


class ContentSignal:
    """Cloudflare's content signals (`Content-Signal: search=yes, ai-train=no`), in a group or as an HTTP header."""

    kind = "content_signal"

    def __init__(self):
        self._statements = _GroupStatements("content-signal", _ai_train)

    def read(self, page: Page) -> Signal:
        """Returns deny for `ai-train=no`, allow for `ai-train=yes`; of several statements the most restrictive."""
        found = [*_from_header(self.kind, "content-signal", _ai_train, page)]
        for group in self._statements.of(page):
            found += [_from_robots(self.kind, statement, page) for statement in _matching(group, page)]
        return strictest(self.kind, found)


def _from_header(kind: str, name: str, meaning: Callable[[str], tuple[str, str]], page: Page) -> Iterator[Signal]:
    value = page.document.headers.get(name)
    if value is not None:
        verdict, words = meaning(value)
        yield Signal(kind, verdict, "header", evidence(words, value))


def _from_robots(kind: str, statement: _Statement, page: Page) -> Signal:
    proof = f"{statement.words} sha256:{page.robots.body_sha256}"
    return Signal(kind, statement.verdict, "robots.txt", proof, statement.line)


def _matching(group: _Group, page: Page) -> list[_Statement]:
    path = canonical_path(page.address.path_and_query)
    return [statement for statement in group.statements if statement.pattern.matches(path)]


def _split_path(value: str) -> tuple[str, str]:
    """Returns (path pattern, the rest) of a rule value; without a path it is about the whole site."""
    value = value.strip(" \t")
    if not value.startswith(("/", "*")):
        return "/", value
    path, *rest = value.split(None, 1)
    return path, rest[0] if rest else ""


def _train_ai(dictionary: str) -> tuple[str, str]:
    """Returns (verdict, words) of a preference dictionary."""
    try:
        value = parse_dictionary(dictionary).get("train-ai")
    except ValueError:
        return UNKNOWN, "not a dictionary"
    if isinstance(value, Token) and value in ("y", "n"):
        return (DENY if value == "n" else ALLOW), f"train-ai={value}"
    return UNKNOWN, "no train-ai"


def _ai_train(pairs: str) -> tuple[str, str]:
    """Returns (verdict, words) of comma-separated `name=yes|no` pairs; a contradiction is a refusal."""
    said = set()
    for pair in pairs.split(","):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "ai-train":
            said.add(value.strip().lower())
    for value, verdict in (("no", DENY), ("yes", ALLOW)):
        if value in said:
            return verdict, f"ai-train={value}"
    return UNKNOWN, "no ai-train"

"""robots.txt policy of one host: may these agents fetch this URL, and which line forbids it."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apertus_jax.corpus.robots.path_encoding import canonical_path
from apertus_jax.corpus.robots.robots_file import Block, Record, RobotsFile, limited, parse_robots_file
from apertus_jax.corpus.robots.rule_matcher import CompiledRule, RuleMatcher
from apertus_jax.errors import UserError

MODES = ("rfc9309", "protego")
PARSER_VERSION = "rfc9309/4"  # raise when a change of parser or matcher can change a verdict
RULE_TEXT_LIMIT = 500
_MEMORY = 4096  # verdicts and agent lists remembered by one policy


class RobotsVerdict(NamedTuple):
    """The answer for a set of agents and the evidence against the first that is refused.

    `rule` is the refusing line as written, at most 500 characters; `line` its number from 1 (0 where the parser knows
    none); `group` the lower-case agent name of the group it stands in. An allowed document has "" and 0.
    """

    allowed: bool
    refusing_agents: tuple[str, ...] = ()
    rule: str = ""
    line: int = 0
    group: str = ""


ALLOWED = RobotsVerdict(True)


class _Asked(NamedTuple):
    """Agents whose groups have the same rules, asked as one; each with its place in the list of agents."""

    matcher: RuleMatcher
    places: tuple[int, ...]
    key: str  # the group of the first of them


@functools.cache
def protego_version() -> str:
    """Returns the installed version, which decides verdicts and belongs to their provenance."""
    return importlib.metadata.version("protego")


class ProtegoAnswers:
    """Protego's verdicts about one file, as Apertus asked for them (arXiv 2509.14233 §3.1.1); no line numbers.

    Apertus kept a document wherever the parser failed; so does this, and where it fails on a URL the answer is yes.
    """

    def __init__(self, body: bytes | str, truncated: bool = False):
        from protego import Protego  # only this mode needs it

        octets, self.truncated = limited(body, truncated)
        self._parser = Protego.parse(octets.decode("utf-8", "replace"))

    def allows(self, agent: str, url: str) -> bool:
        """Returns whether the agent may fetch the URL, or a path that starts with `/`."""
        try:
            return self._parser.can_fetch(url, agent)
        except ValueError:  # a URL that urllib cannot split
            return True


class RobotsPolicy:
    """A parsed robots.txt. Made by `parse`; answers about any URL of the authority that the file was served from."""

    def __init__(self, file: RobotsFile, protego: ProtegoAnswers | None = None):
        self._file = file
        self._protego = protego
        self._groups: dict[tuple[int, ...], RuleMatcher] = {}
        self._plans: dict[Sequence[str], list[_Asked]] = {}
        self._verdicts: dict[tuple, RobotsVerdict] = {}

    @classmethod
    def parse(cls, body: bytes | str, mode: str = "rfc9309", truncated: bool = False) -> RobotsPolicy:
        """Returns the policy of a robots.txt body; never raises because of what the body contains.

        Octets after the first 512,000 are not read; `truncated` says that the body had been cut before. Mode `protego`
        answers as the Protego library does. Raises UserError on an unknown mode.
        """
        if mode not in MODES:
            raise UserError(f"robots mode {mode!r}: unknown; choose one of {', '.join(MODES)}")
        file = parse_robots_file(body, truncated)
        if mode == "rfc9309":
            return cls(file)
        return cls(file, ProtegoAnswers(body, truncated))

    @property
    def truncated(self) -> bool:
        """Whether only the beginning of the body was read."""
        return self._file.truncated

    @property
    def is_understood(self) -> bool:
        """Whether a file in which every line must mean something would be understood, see `RobotsFile`."""
        return self._file.is_understood

    @property
    def mode(self) -> str:
        """The mode given to `parse`."""
        return "protego" if self._protego else "rfc9309"

    def allows(self, agent: str, url: str) -> bool:
        """Returns whether the agent may fetch the URL, or a path with query that starts with `/`."""
        if self._protego:
            return self._protego.allows(agent, url)
        path = canonical_path(url)
        if _is_robots_file(path):
            return True
        rules = [self._matcher(blocks).decide(path) for _, blocks in self._file.readings_of(agent)]
        return all(rule is None or rule.allow for rule in rules)

    def verdict(self, agents: Sequence[str], url: str) -> RobotsVerdict:
        """Returns the verdict for all agents together: allowed only if every one of them may fetch the URL.

        Agents whose groups have the same rules are asked once. Give the same tuple for every URL; the preparation for
        it is remembered.
        """
        if self._protego:
            return self._protego_verdict(self._protego, agents, url)
        agents = agents if isinstance(agents, tuple) else tuple(agents)
        plan = self._plans.get(agents)
        if plan is None:
            plan = self._plan(agents)
        if not plan:
            return ALLOWED
        path = canonical_path(url)
        decisions = [asked.matcher.decide(path) for asked in plan]
        if all([rule is None or rule.allow for rule in decisions]) or _is_robots_file(path):
            return ALLOWED
        return self._refusal(agents, plan, decisions)

    def group_records(self, agent: str, name: str) -> list[Record]:
        """Returns lines called `name` (any case) that RFC 9309 does not know, from the group that speaks to the agent.

        `Content-Signal` and `Content-Usage` are such records. In order of the file; in both modes our own reading.
        """
        blocks = {id(block): block for _, reading in self._file.readings_of(agent) for block in reading}
        return _records(list(blocks.values()), name)

    def preamble_records(self, name: str) -> list[Record]:
        """Returns such lines that stand before the first group: no agent is named, so they speak to every one."""
        return _records([self._file.preamble], name)

    def _matcher(self, blocks: Sequence[Block]) -> RuleMatcher:
        """Returns the compiled rules of a merged group, compiled on the first question about it."""
        identity = tuple(map(id, blocks))
        if identity not in self._groups:
            self._groups[identity] = RuleMatcher(rule for block in blocks for rule in block.rules)
        return self._groups[identity]

    def _plan(self, agents: tuple[str, ...]) -> list[_Asked]:
        """Returns the distinct sets of rules to ask for these agents; groups that can refuse nothing are left out."""
        by_matcher: dict[int, tuple[RuleMatcher, str, list[int]]] = {}
        asked = [(place, *reading) for place, agent in enumerate(agents) for reading in self._file.readings_of(agent)]
        for place, key, blocks in asked:
            matcher = self._matcher(blocks)
            by_matcher.setdefault(id(matcher), (matcher, key, []))[2].append(place)
        by_rules: dict[tuple, tuple[RuleMatcher, str, list[int]]] = {}
        for matcher, key, places in by_matcher.values():
            if matcher.can_refuse:
                by_rules.setdefault(matcher.signature(), (matcher, key, []))[2].extend(places)
        plan = [_Asked(matcher, tuple(sorted(places)), key) for matcher, key, places in by_rules.values()]
        _forget_if_full(self._plans)
        self._plans[agents] = plan
        return plan

    def _refusal(
        self, agents: tuple[str, ...], plan: list[_Asked], decisions: list[CompiledRule | None]
    ) -> RobotsVerdict:
        """Returns the verdict where some rule refuses, with the evidence against the first refused agent."""
        identity = (agents, *(id(rule) if rule is not None and not rule.allow else 0 for rule in decisions))
        verdict = self._verdicts.get(identity)
        if verdict is None:
            refused = [(asked, rule) for asked, rule in zip(plan, decisions, strict=True) if rule and not rule.allow]
            places = sorted({place for asked, _ in refused for place in asked.places})
            asked, rule = min(refused, key=lambda pair: pair[0].places[0])
            names = tuple(agents[place] for place in places)
            verdict = RobotsVerdict(False, names, rule.source.text[:RULE_TEXT_LIMIT], rule.source.line, asked.key)
            _forget_if_full(self._verdicts)
            self._verdicts[identity] = verdict
        return verdict

    def _protego_verdict(self, answers: ProtegoAnswers, agents: Iterable[str], url: str) -> RobotsVerdict:
        refusing = tuple(agent for agent in agents if not answers.allows(agent, url))
        return RobotsVerdict(False, refusing) if refusing else ALLOWED


def parser_version(mode: str) -> str:
    """Returns what decides verdicts in a mode, for the provenance: `rfc9309/1` or `protego/0.7.0`.

    Raises UserError on an unknown mode.
    """
    if mode == "rfc9309":
        return PARSER_VERSION
    if mode != "protego":
        raise UserError(f"robots mode {mode!r}: unknown; choose one of {', '.join(MODES)}")
    return f"protego/{protego_version()}"


def _records(blocks: Sequence[Block], name: str) -> list[Record]:
    name = name.lower()
    return [record for block in blocks for field, record in block.other if field == name]


def _is_robots_file(path: str) -> bool:
    """Returns whether a canonical path is that of /robots.txt, which nobody can close (RFC 9309 §2.2.2)."""
    return path.startswith("/robots.txt") and path[11:12] in ("", "?")


def _forget_if_full(memory: dict) -> None:
    """Empties a memory that hostile input has filled."""
    if len(memory) >= _MEMORY:
        memory.clear()

"""robots.txt as a scorer and a rule: what each agent was told, and what that means for a document."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.robots import MODES, agent_set, parser_version
from apertus_jax.corpus.robots_snapshot.lookup import FoundRobots, RobotsLookup
from apertus_jax.corpus.robots_snapshot.reader import RobotsSnapshot
from apertus_jax.corpus.robots_snapshot.states import FOUND, MISSING, NO_URL, UNAVAILABLE
from apertus_jax.corpus.scorer import Row
from apertus_jax.corpus.web_addresses import WebAddress, parse_web_address
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

ALLOW, DENY, UNKNOWN = "allow", "deny", "unknown"
POLICIES = ("apertus", "strict")
# Where nothing was asked, or the host said that there is no file, nothing forbids. `strict` drops in every other state:
# failures (RFC 9309 §2.3.1.4), files in which no rule can be read, and states that came into being after this list.
NOTHING_FORBIDS = (FOUND, MISSING, UNAVAILABLE, NO_URL)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RobotsScoring:
    """Settings of the robots.txt scorer: snapshot and agents.

    `snapshot` is a folder that `robots-snapshot` wrote; in a policy, signals that robots.txt carries are read from it
    too. `agents` the name of an agent set; `mode` the matcher;
    `any_scheme` lets an answer under http speak for https and the reverse where the snapshot has only one of them.
    """

    snapshot: str = ""
    agents: str = "apertus-2025-01"
    mode: str = "rfc9309"
    any_scheme: bool = True

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"RobotsScoring.mode is {self.mode!r}; choose one of {', '.join(MODES)}")
        agent_set(self.agents)

    def build(self) -> RobotsScorer:
        """Opens the snapshot.

        Raises:
          UserError: it is not a complete snapshot folder, or none was given.
        """
        if not self.snapshot:
            raise UserError("RobotsScoring.snapshot is empty; give the folder that `robots-snapshot` wrote")
        return RobotsScorer(self)


class RobotsScorer:
    """Writes, for each document, who may not fetch its URL, and which line of which file says so."""

    def __init__(self, options: RobotsScoring):
        self._options = options
        self._agents = agent_set(options.agents)
        self._snapshot = RobotsSnapshot(options.snapshot)
        self._lookup = RobotsLookup(self._snapshot, options.mode, options.any_scheme)

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns; `robots_verdict` is unknown wherever no readable file speaks."""
        import pyarrow

        text = pyarrow.string()
        return [
            pyarrow.field("robots_verdict", text),  # allow, deny, unknown
            pyarrow.field("robots_state", text),  # see states.STATES
            pyarrow.field("robots_refusing_agents", pyarrow.list_(text)),
            pyarrow.field("robots_rule", text),
            pyarrow.field("robots_line", pyarrow.int32()),  # from 1; 0 without a rule
            pyarrow.field("robots_group", text),
            pyarrow.field("robots_body_sha256", text),
            pyarrow.field("robots_fetched_at", text),
        ]

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the verdicts: the snapshot, the agents, the matcher and its version."""
        return {
            "snapshot": self._snapshot.digest,
            "as_of": self._snapshot.as_of,
            "agents": f"{self._agents.name}/{self._agents.version}",
            "agents_digest": self._agents.digest,
            "parser": parser_version(self._options.mode),
            "any_scheme": self._options.any_scheme,
        }

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document; hosts are asked once each, in the order of the table."""
        rows: list[Row | None] = [None] * len(documents)
        hosts: dict[tuple[str, str], list[tuple[int, WebAddress]]] = {}
        for position, document in enumerate(documents):
            address = parse_web_address(document.url)
            if address is not None:
                hosts.setdefault((address.authority, address.scheme), []).append((position, address))
        for key in sorted(hosts):
            found = self._lookup.find(hosts[key][0][1])
            for position, address in hosts[key]:
                rows[position] = self._row(found, address)
        return [_make_row(_NO_ADDRESS) if row is None else row for row in rows]

    def _row(self, found: FoundRobots, address: WebAddress) -> Row:
        if found.policy is None:
            return _make_row(found)
        verdict = found.policy.verdict(self._agents.agents, address.url)
        decision = DENY if not verdict.allowed else ALLOW if found.state == FOUND else UNKNOWN
        return _make_row(found, decision, verdict.refusing_agents, verdict.rule, verdict.line, verdict.group)


def _make_row(
    found: FoundRobots,
    decision: str = UNKNOWN,
    refusing: Sequence[str] = (),
    rule: str = "",
    line: int = 0,
    group: str = "",
) -> Row:
    return {
        "robots_verdict": decision,
        "robots_state": found.state,
        "robots_refusing_agents": list(refusing),
        "robots_rule": rule,
        "robots_line": line,
        "robots_group": group,
        "robots_body_sha256": found.body_sha256,
        "robots_fetched_at": found.fetched_at,
    }


_NO_ADDRESS = FoundRobots(NO_URL, "", "", None)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RobotsRule:
    """Rule on robots.txt verdicts: which of them keep a document out.

    Both policies drop what any agent of the set may not fetch. `apertus` keeps everything else (Apertus report §3.1.1);
    `strict` also drops where the answer of the host is a failure (5xx, network), an HTML page with status 200, or no
    file that can be read (RFC 9309 §2.3.1.4). A 4xx keeps under both, and so does a host that the snapshot lacks.
    """

    policy: str = "strict"

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise UserError(f"RobotsRule.policy is {self.policy!r}; choose one of {', '.join(POLICIES)}")

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns ROBOTS with line and agents, ROBOTS_UNREACHABLE with the state, or None."""
        if row["robots_verdict"] == DENY:
            agents = row["robots_refusing_agents"]
            named = ", ".join(agents[:3]) + (", …" if len(agents) > 3 else "")
            return Verdict(Reason.ROBOTS, f"line {row['robots_line']} refuses {len(agents)} agents: {named}")
        if self.policy == "strict" and row["robots_state"] not in NOTHING_FORBIDS:
            return Verdict(Reason.ROBOTS_UNREACHABLE, f"state {row['robots_state']}")
        return None

"""Opt-out signals beside robots.txt as a scorer and as a rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.robots import agent_set, parser_version
from apertus_jax.corpus.robots_snapshot.lookup import RobotsLookup
from apertus_jax.corpus.robots_snapshot.reader import RobotsSnapshot
from apertus_jax.corpus.scorer import Row
from apertus_jax.corpus.signals.ai_txt import AiTxt
from apertus_jax.corpus.signals.host_files import HostFiles
from apertus_jax.corpus.signals.robots_carried import ContentSignal, ContentUsage
from apertus_jax.corpus.signals.robots_tags import NoAi
from apertus_jax.corpus.signals.signal import DENY, NOT_UNDERSTOOD, Page, Signal, SignalReader, strictest
from apertus_jax.corpus.signals.tdmrep import TdmReservation
from apertus_jax.corpus.web_addresses import parse_web_address
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

DEFAULT_AGENTS = "apertus-2025-01"
KINDS = (TdmReservation.kind, ContentUsage.kind, ContentSignal.kind, NoAi.kind, AiTxt.kind)
NOT_UNDERSTOOD_CHOICES = ("refuse", "keep")
REVISION = 2  # raise when the same page can give other signals
_FIELDS = tuple(field.name for field in dataclasses.fields(Signal))


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class SignalScoring:
    """Settings of the signal scorer: which signals are read, and from where.

    `snapshot` is a folder that `robots-snapshot` wrote; `tdmrep` and `ai_txt` are folders of collected files named by
    host (`example.com.json`, `example.com.txt`). Each may be empty: headers and meta tags of documents always count.
    In a policy, `snapshot` and `agents` are those of RobotsScoring; else the agents are apertus-2025-01.
    """

    snapshot: str = ""
    tdmrep: str = ""
    ai_txt: str = ""
    signals: tuple[str, ...] = KINDS
    agents: str = ""
    any_scheme: bool = True

    def __post_init__(self):
        _check_kinds("SignalScoring.signals", self.signals)
        for name in ("tdmrep", "ai_txt"):
            if getattr(self, name) and name not in self.signals:
                raise UserError(f"SignalScoring.{name} is given but {name} is not among the signals; add it")
        agent_set(self.agents or DEFAULT_AGENTS)

    def build(self) -> SignalScorer:
        """Opens the snapshot and the folders.

        Raises:
          UserError: one of them is missing or holds something else.
        """
        return SignalScorer(self)


class SignalScorer:
    """Writes what every enabled signal says about each document; none is skipped because another one refused."""

    def __init__(self, options: SignalScoring):
        self._options = options
        self._agents = agent_set(options.agents or DEFAULT_AGENTS)
        self._snapshot = RobotsSnapshot(options.snapshot) if options.snapshot else None
        self._lookup = None
        if self._snapshot is not None:
            self._lookup = RobotsLookup(self._snapshot, "rfc9309", options.any_scheme)
        self._tdmrep = HostFiles(options.tdmrep, ".json") if options.tdmrep else None
        self._ai_txt = HostFiles(options.ai_txt, ".txt") if options.ai_txt else None
        readers: tuple[SignalReader, ...] = (
            TdmReservation(self._tdmrep),
            ContentUsage(),
            ContentSignal(),
            NoAi(),
            AiTxt(self._ai_txt),
        )
        self._readers = [reader for reader in readers if reader.kind in options.signals]

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns: all signals with their evidence, and the strictest verdict among them."""
        import pyarrow

        text = pyarrow.string()
        signal = pyarrow.struct([(name, pyarrow.int32() if name == "line" else text) for name in _FIELDS])
        return [pyarrow.field("signals", pyarrow.list_(signal)), pyarrow.field("signals_verdict", text)]

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the signals: snapshot, folders, kinds, agents."""
        return {
            "snapshot": self._snapshot.digest if self._snapshot is not None else "",
            "tdmrep": self._tdmrep.digest if self._tdmrep is not None else "",
            "ai_txt": self._ai_txt.digest if self._ai_txt is not None else "",
            "signals": [reader.kind for reader in self._readers],
            "agents": f"{self._agents.name}/{self._agents.version}",
            "agents_digest": self._agents.digest,
            "parser": parser_version("rfc9309"),
            "any_scheme": self._options.any_scheme,
            "revision": REVISION,
        }

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document; hosts are looked up in the order of the snapshot."""
        addresses = [parse_web_address(document.url) for document in documents]
        rows: list[Row] = [{}] * len(documents)
        by_host = sorted(
            range(len(documents)),
            key=lambda place: ("", "") if (at := addresses[place]) is None else (at.authority, at.scheme),
        )
        agents = tuple(self._agents.agents)
        for position in by_host:
            address = addresses[position]
            robots = self._lookup.find(address) if self._lookup is not None and address is not None else None
            page = Page(documents[position], address, robots, agents)
            signals = [reader.read(page) for reader in self._readers]
            rows[position] = {
                "signals": [{name: getattr(signal, name) for name in _FIELDS} for signal in signals],
                "signals_verdict": strictest("", signals).verdict,
            }
        return rows


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class SignalRule:
    """Rule on opt-out signals: which kinds keep a document out when they refuse.

    Attributes:
      deny: the kinds that are heard.
      not_understood: `refuse` takes a statement that is not understood for a refusal; `keep` passes over it.
    """

    deny: tuple[str, ...] = KINDS
    not_understood: str = "refuse"

    def __post_init__(self):
        _check_kinds("SignalRule.deny", self.deny)
        if self.not_understood not in NOT_UNDERSTOOD_CHOICES:
            raise UserError(
                f"SignalRule.not_understood is {self.not_understood!r}; choose {' or '.join(NOT_UNDERSTOOD_CHOICES)}"
            )

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns OPT_OUT_SIGNAL with the kinds that refuse, or None."""
        said = {signal["kind"]: signal["verdict"] for signal in row["signals"] if signal["kind"] in self.deny}
        refusing = [kind for kind, verdict in said.items() if verdict == DENY]
        if self.not_understood == "refuse":
            refusing += [f"{kind} (not understood)" for kind, verdict in said.items() if verdict == NOT_UNDERSTOOD]
        return Verdict(Reason.OPT_OUT_SIGNAL, ", ".join(refusing)) if refusing else None


def _check_kinds(name: str, kinds: Sequence[str]) -> None:
    if isinstance(kinds, str):
        raise UserError(f"{name} is the text {kinds!r}; give a list of {', '.join(KINDS)}")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"{name} names {unknown[0]!r}; choose among {', '.join(KINDS)}")

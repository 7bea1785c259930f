"""The policy: what is looked at, and what is decided from it. One gin file is one policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from apertus_jax.corpus.duplicates import DuplicateRule
from apertus_jax.corpus.personal_data import PersonalDataPolicy
from apertus_jax.corpus.reasons import Verdict
from apertus_jax.corpus.scorer import Row, Rule, Scorer
from apertus_jax.errors import UserError

Part = TypeVar("Part")


class Scoring(Protocol):
    """Options of a scorer; `build` loads what it needs."""

    def build(self) -> Scorer:
        """Returns the scorer."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """Scorers and rules of one corpus.

    Attributes:
      name: what the ledger calls this policy.
      consent_scoring: scorers of who allows what; they look at every document, also when another already refused.
      consent_rules: rules over their columns. A document that one of them keeps out is not looked at any further.
      content_scoring: scorers of the text, only for documents that consent allows.
      content_rules: rules over all columns, asked in this order after the consent rules.
      personal_data: how personal data is rewritten in the texts that stay.
      tokenizer: by which tokens are counted for the funnel: `tekken`, a folder or a tokenizer.json; empty counts none.
    """

    name: str = "policy"
    consent_scoring: Sequence[Scoring] = ()
    consent_rules: Sequence[Rule] = ()
    content_scoring: Sequence[Scoring] = ()
    content_rules: Sequence[Rule] = ()
    personal_data: PersonalDataPolicy = dataclasses.field(default_factory=PersonalDataPolicy)
    tokenizer: str = ""

    def __post_init__(self) -> None:
        """Checks the kinds of the parts.

        Raises:
          UserError: something that is not a scoring or a rule stands in one of the lists.
        """
        for field, method in (("scoring", "build"), ("rules", "verdict")):
            for group in ("consent", "content"):
                for part in getattr(self, f"{group}_{field}"):
                    if not hasattr(part, method):
                        raise UserError(f"Policy.{group}_{field} holds {part!r}, which has no {method}; correct it")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules in the order in which they are asked."""
        return (*self.consent_rules, *self.content_rules)


@dataclasses.dataclass(frozen=True)
class OnlySources:
    """A rule that holds for some sources only: curated texts need no filter that was made for crawls.

    Attributes:
      rule: the rule.
      sources: names of the sources that it is asked about.
    """

    rule: Rule
    sources: Sequence[str]

    def __post_init__(self) -> None:
        """Raises UserError when `sources` is one name, or the rule is that of copies, which sees whole clusters."""
        if isinstance(self.sources, str):
            raise UserError(f"OnlySources.sources is the text {self.sources!r}; give a list of names")
        if isinstance(self.rule, DuplicateRule):
            raise UserError(
                "OnlySources.rule cannot be a DuplicateRule; DuplicateScoring.scope = 'source' keeps sources apart"
            )

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns the rule's verdict on a document of one of the sources, None on any other."""
        return self.rule.verdict(row, statistics) if row["source"] in self.sources else None


def part_of(parts: Sequence[Any], kind: type[Part]) -> Part | None:
    """Returns the one part of this class among scorings or rules, also inside `OnlySources`; None without one.

    Raises:
      UserError: there are several.
    """
    inner = [part.rule if isinstance(part, OnlySources) else part for part in parts]
    found = [part for part in inner if isinstance(part, kind)]
    if len(found) > 1:
        raise UserError(f"the policy holds {len(found)} parts {kind.__name__}; keep one")
    return found[0] if found else None


def describe(value: Any) -> Any:
    """Returns a part of a policy as JSON: dataclasses by class name and fields, which is what their identity is."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(name): describe(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [describe(each) for each in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    return value


def scorers_of(scorings: Sequence[Scoring]) -> list[Scorer]:
    """Builds scorers.

    Raises:
      UserError: two of them write a column of the same name, or one cannot be built.
    """
    scorers = [scoring.build() for scoring in scorings]
    owners: dict[str, str] = {}
    for scoring, name in _columns(scorings, scorers):
        if name in owners:
            raise UserError(f"column {name} is written by {owners[name]} and by {scoring}; remove one from the policy")
        owners[name] = scoring
    return scorers


def _columns(scorings: Sequence[Scoring], scorers: Sequence[Scorer]) -> Iterator[tuple[str, str]]:
    """Yields (name of the scoring, column)."""
    for scoring, scorer in zip(scorings, scorers, strict=True):
        for field in scorer.schema():
            yield type(scoring).__name__, field.name

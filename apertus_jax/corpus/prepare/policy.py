"""Corpus policy: its scorers and rules. One gin file is one policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from apertus_jax.corpus.personal_data import PersonalDataPolicy
from apertus_jax.corpus.prepare import questions
from apertus_jax.corpus.reasons import Verdict
from apertus_jax.corpus.scorer import Row, Rule, Scorer
from apertus_jax.errors import UserError
from apertus_jax.process.module_sources import foreign_source
from apertus_jax.validation import fields_by_annotation


class Scoring(Protocol):
    """Options of a scorer; `build` loads what it needs.

    Some have more, looked for by name: `on_day(day)`, the scoring of a corpus of that day (YYYY-MM-DD), and `scope_of`
    (see `DuplicateScoring`), by whose columns copies are looked for; one of a policy at most.
    """

    def build(self) -> Scorer:
        """Returns the scorer."""


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
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
      not_asked: names of questions (see `questions.QUESTIONS`) that the owner of the corpus does not ask. Their rules
        and scorings leave the lists, and every record of the corpus names them.
    """

    name: str = "policy"
    consent_scoring: Sequence[Scoring] = ()
    consent_rules: Sequence[Rule] = ()
    content_scoring: Sequence[Scoring] = ()
    content_rules: Sequence[Rule] = ()
    personal_data: PersonalDataPolicy = dataclasses.field(default_factory=PersonalDataPolicy)
    tokenizer: str = ""
    not_asked: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Checks the kinds of the parts, takes out what is not asked, and gives all parts one robots snapshot.

        Raises:
          UserError: something that is not a scoring or a rule stands in one of the lists, a name in `not_asked` is
            unknown or has a source all the same, there are two snapshots of robots.txt files, or two parts of which a
            policy can hold one, or a rule of consent must know the whole corpus.
        """
        questions.check_names(self.not_asked)
        for field, method in (("scoring", "build"), ("rules", "verdict")):
            for group in ("consent", "content"):
                parts = getattr(self, f"{group}_{field}")
                if not isinstance(parts, (list, tuple)):
                    raise UserError(f"Policy.{group}_{field} is {parts!r}; give a list")
                for part in parts:
                    _check_part(part, method, f"Policy.{group}_{field}")
        questions.check_not_given(self.not_asked, self.scorings)
        dropped = questions.dropped_by(self.not_asked, self.rules)
        for name in ("consent_scoring", "consent_rules", "content_scoring", "content_rules"):
            kept = tuple(part for part in getattr(self, name) if not isinstance(questions.inner(part), dropped))
            object.__setattr__(self, name, kept)
        shared = questions.share_snapshot(self.scorings)
        object.__setattr__(self, "consent_scoring", shared[: len(self.consent_scoring)])
        object.__setattr__(self, "content_scoring", shared[len(self.consent_scoring) :])
        questions.check_groups(self.consent_scoring, self.content_scoring, self.consent_rules)
        object.__setattr__(self, "not_asked", tuple(name for name in questions.QUESTIONS if name in self.not_asked))
        self._check_places()

    def _check_places(self) -> None:
        """Raises UserError for parts that are in the wrong place, or of which a policy can hold one only."""
        late = with_member(self.consent_rules, "after_selection")
        late += [rule for rule in with_member(self.consent_rules, "statistics") if rule.statistics()]
        if late:
            raise UserError(
                f"Policy.consent_rules holds {type(late[0]).__name__}, which must know the whole corpus while consent "
                "is asked before anything is looked at; put it into content_rules"
            )
        only(self.content_scoring, "scope_of")
        only(self.content_rules, "after_selection")
        only(self.content_rules, "names_language")

    @property
    def scorings(self) -> tuple[Scoring, ...]:
        """All scorings."""
        return (*self.consent_scoring, *self.content_scoring)

    @property
    def unasked(self) -> dict[str, str]:
        """Everything that is not asked → why: switched off by name, in no rule, or from files that nobody gave."""
        return questions.unasked(self.scorings, self.rules, self.not_asked)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules in the order in which they are asked."""
        return (*self.consent_rules, *self.content_rules)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class OnlySources:
    """A rule that holds for some sources only: curated texts need no filter that was made for crawls.

    Attributes:
      rule: the rule.
      sources: names of the sources that it is asked about.
    """

    rule: Rule
    sources: Sequence[str]

    def __post_init__(self) -> None:
        """Checks both.

        Raises:
          UserError: `sources` is not a list of names, or the rule is none, another OnlySources (whose names would be
            hidden in this one), or that of copies, which sees whole clusters.
        """
        if isinstance(self.sources, str):
            raise UserError(f"OnlySources.sources is the text {self.sources!r}; give a list of names")
        if not isinstance(self.sources, (list, tuple)) or not self.sources:
            raise UserError(
                f"OnlySources.sources is {self.sources!r}: the rule would be asked about nothing; name sources"
            )
        if not all(isinstance(name, str) and name for name in self.sources):
            raise UserError(f"OnlySources.sources is {self.sources!r}; give a list of names")
        _check_part(self.rule, "verdict", "OnlySources.rule")
        if isinstance(self.rule, OnlySources):
            raise UserError("OnlySources.rule is an OnlySources itself; name the sources of the rule once")
        if getattr(self.rule, "after_selection", False):
            raise UserError(
                f"OnlySources.rule cannot be a {type(self.rule).__name__}; DuplicateScoring.scope = 'source' keeps "
                "sources apart"
            )

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns the rule's verdict on a document of one of the sources, None on any other."""
        return self.rule.verdict(row, statistics) if row["source"] in self.sources else None


def _check_part(part: Any, method: str, where: str) -> None:
    """Raises UserError unless a part of a policy has a method; a class without brackets is not yet a part."""
    if isinstance(part, type):
        raise UserError(f"{where} holds the class {part.__name__}; write @{part.__name__}() with brackets")
    if not callable(getattr(part, method, None)):
        raise UserError(f"{where} holds {part!r}, which has no {method}; correct it")


def with_member(parts: Sequence[Any], name: str) -> list[Any]:
    """Returns the scorings or rules, also those inside `OnlySources`, that have this member and say it is so."""
    return [part for part in map(questions.inner, parts) if getattr(part, name, None)]


def only(parts: Sequence[Any], name: str) -> Any | None:
    """Returns the one scoring or rule that has this member, see `with_member`; None without one.

    Raises:
      UserError: there are several.
    """
    found = with_member(parts, name)
    if len(found) > 1:
        names = " and ".join(dict.fromkeys(type(part).__name__ for part in found))
        raise UserError(f"the policy holds {len(found)} parts {names}; keep one")
    return found[0] if found else None


def describe(value: Any) -> Any:
    """Returns a part of a policy as JSON: dataclasses by class name and fields, which is what their identity is.

    One from outside of the package is what its source makes it, too.
    """
    if dataclasses.is_dataclass(value):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields, **foreign_source(value)}
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


def check_columns(rules: Sequence[Rule], scorers: Sequence[Scorer]) -> None:
    """Raises UserError when a rule decides by a column that no scorer of its policy writes, see `Rule`."""
    written = {field.name for scorer in scorers for field in scorer.schema()}
    for rule in with_member(rules, "reads"):
        missing = [name for name in rule.reads if name not in written]
        if missing:
            raise UserError(
                f"the policy holds {type(rule).__name__} but no scorer of {', '.join(missing)}, by which it decides; "
                "add the scoring to Policy.content_scoring, or remove the rule"
            )


def _columns(scorings: Sequence[Scoring], scorers: Sequence[Scorer]) -> Iterator[tuple[str, str]]:
    """Yields (name of the scoring, column)."""
    for scoring, scorer in zip(scorings, scorers, strict=True):
        for field in scorer.schema():
            yield type(scoring).__name__, field.name

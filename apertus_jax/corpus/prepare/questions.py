"""Questions of a policy: what each needs before it can be asked, and which are not asked.

A rule without its source would keep everything and look as if it had been asked. So a policy that lacks a source does
not run, unless its owner says by name that the question is not asked; and what is not asked, for whatever reason, is
named in report, ledger, `why`, data summary and on the console.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.classifiers import ClassifierScoring, QualityScoreRule, ToxicityRule
from apertus_jax.corpus.contamination import ContaminationRule, ContaminationScoring
from apertus_jax.corpus.duplicates import DuplicateRule, DuplicateScoring
from apertus_jax.corpus.language import LanguageRule, LanguageScoring
from apertus_jax.corpus.language.models import DEFAULT_MODEL
from apertus_jax.corpus.licences import LicenceRule, LicenceScoring
from apertus_jax.corpus.quality import EnglishQualityRule, QualityRule, QualityScoring
from apertus_jax.corpus.removal import RemovalRule, RemovalScoring
from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring
from apertus_jax.corpus.signals import KINDS, SignalRule, SignalScoring
from apertus_jax.errors import UserError

# Why a question is not asked.
SWITCHED_OFF = "switched off by the owner of the policy"
NO_RULE = "no rule of the policy asks it"
NO_FILES = "no files were given"
OTHER_SOURCES = "the policy asks it of the named sources alone"
LINKS_PASSED_OVER = "LicenceScoring.links is off"


@dataclasses.dataclass(frozen=True)
class Question:
    """A question by the name that `Policy.not_asked` knows.

    Attributes:
      scoring: the class whose columns answer it.
      rules: classes that decide by these columns.
      sources: parameter of the scoring without which there is no answer → what to give.
      consent: whether it is about what people allow.
      always_scored: its scoring has columns that are needed for more than this question.
    """

    scoring: type
    rules: tuple[type, ...]
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    consent: bool = False
    always_scored: bool = False


_SNAPSHOT = "the folder that `apertus robots-snapshot` wrote"
_CLASSIFIER = "the folder that `apertus train-classifier` wrote"
QUESTIONS: dict[str, Question] = {
    # Digests of texts are kept for requests that come later.
    "removal": Question(
        RemovalScoring,
        (RemovalRule,),
        {"tombstones": "the folder that `apertus remove` wrote"},
        consent=True,
        always_scored=True,
    ),
    "robots": Question(RobotsScoring, (RobotsRule,), {"snapshot": _SNAPSHOT}, consent=True),
    "signals": Question(SignalScoring, (SignalRule,), {"snapshot": _SNAPSHOT}, consent=True),
    "licences": Question(LicenceScoring, (LicenceRule,), consent=True),
    "language": Question(LanguageScoring, (LanguageRule,), {"model": f"{DEFAULT_MODEL} or a fastText file"}),
    "quality": Question(QualityScoring, (QualityRule, EnglishQualityRule)),
    "quality_score": Question(ClassifierScoring, (QualityScoreRule,), {"quality": _CLASSIFIER}),
    "toxicity": Question(ClassifierScoring, (ToxicityRule,), {"toxicity": _CLASSIFIER}),
    "contamination": Question(
        ContaminationScoring, (ContaminationRule,), {"benchmarks": "JSONL files of benchmark, item, text"}
    ),
    "duplicates": Question(DuplicateScoring, (DuplicateRule,)),
}
# Files beside a crawl that few collect: they may be left out, and then the record says so.
COLLECTED = {"tdmrep": "tdmrep.json", "ai_txt": "ai.txt"}
_CARRIED_BY_ROBOTS = ("aipref", "content_signal")


def inner(part: Any) -> Any:
    """Returns a rule without the `OnlySources` around it."""
    return getattr(part, "rule", part)


def check_names(names: Sequence[str]) -> None:
    """Raises UserError unless every name is that of a question."""
    if isinstance(names, str):
        raise UserError(f"Policy.not_asked is the text {names!r}; give a list of names, as ['contamination']")
    if not isinstance(names, (list, tuple)):
        raise UserError(f"Policy.not_asked is {names!r}; give a list of names, as ['contamination'], or []")
    for name in names:
        if name not in QUESTIONS:
            close = difflib.get_close_matches(str(name), QUESTIONS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(f"Policy.not_asked names {name!r}; {hint}known are {', '.join(QUESTIONS)}")


def check_not_given(names: Sequence[str], scorings: Sequence[Any]) -> None:
    """Raises UserError when a question is switched off and its source is given all the same."""
    for name in names:
        question = QUESTIONS[name]
        if name == "language":
            continue  # its model has a default
        for scoring in _of(scorings, question.scoring):
            for parameter in (*question.sources, *(COLLECTED if name == "signals" else ())):
                if value := getattr(scoring, parameter):
                    raise UserError(
                        f"Policy.not_asked switches {name} off, but {question.scoring.__name__}.{parameter} = "
                        f"{value!r} is given; remove one of the two"
                    )


def check_groups(consent: Sequence[Any], content: Sequence[Any], consent_rules: Sequence[Any]) -> None:
    """Raises UserError when the scoring of a consent rule stands with those of content, which come later."""
    for question in QUESTIONS.values():
        if _asks(consent_rules, question) and not _of(consent, question.scoring) and _of(content, question.scoring):
            asking = next(inner(rule) for rule in consent_rules if isinstance(inner(rule), question.rules))
            name = question.scoring.__name__
            raise UserError(
                f"Policy.content_scoring holds {name}, which {type(asking).__name__} in Policy.consent_rules needs "
                "earlier; put both into one group"
            )


def check_source_names(rules: Sequence[Any], names: Sequence[str]) -> None:
    """Raises UserError when a rule of consent is to be asked about a source that is not there: of none, perhaps."""
    consent = tuple(rule for question in QUESTIONS.values() if question.consent for rule in question.rules)
    restricted = (rule for rule in rules if isinstance(inner(rule), consent) and inner(rule) is not rule)
    for rule, source in [(each, source) for each in restricted for source in each.sources]:
        if source not in names:
            raise UserError(
                f"OnlySources.sources of {type(inner(rule)).__name__} names {source!r}, which is no source of this "
                f"run ({', '.join(names)}); correct the name or remove it"
            )


def dropped_by(names: Sequence[str], rules: Sequence[Any]) -> tuple[type, ...]:
    """Returns the classes of rules and scorings that go when these questions are not asked; what others need stays."""
    off = tuple(rule for name in names for rule in QUESTIONS[name].rules)
    kept = [rule for rule in rules if not isinstance(inner(rule), off)]
    scorings = []
    for question in (QUESTIONS[name] for name in names):
        shared = any(each.scoring is question.scoring and _asks(kept, each) for each in QUESTIONS.values())
        if not (shared or question.always_scored):
            scorings.append(question.scoring)
    return (*off, *scorings)


def share_snapshot(scorings: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the scorings with one snapshot, and one set of agents, for the rules of robots.txt and its signals.

    Raises:
      UserError: both are given, and they are two.
    """
    robots, signals = _of(scorings, RobotsScoring), _of(scorings, SignalScoring)
    given = {_place(each.snapshot): each.snapshot for each in (*robots, *signals) if each.snapshot}
    if len(given) > 1:
        raise UserError(
            f"RobotsScoring.snapshot and SignalScoring.snapshot are two, {' and '.join(given.values())}; "
            "bind RobotsScoring.snapshot alone, it serves both"
        )
    snapshot = next(iter(given.values()), "")
    agents = robots[0].agents if robots else ""

    def shared(scoring: Any) -> Any:
        if isinstance(scoring, RobotsScoring):
            return dataclasses.replace(scoring, snapshot=scoring.snapshot or snapshot)
        if isinstance(scoring, SignalScoring):
            return dataclasses.replace(scoring, snapshot=scoring.snapshot or snapshot, agents=scoring.agents or agents)
        return scoring

    return tuple(map(shared, scorings))


def require_sources(name: str, scorings: Sequence[Any], rules: Sequence[Any], others: Sequence[str] = ()) -> None:
    """Raises UserError that names everything which the questions of a policy lack, at once.

    Args:
      name: of the policy.
      scorings: all of its scorings.
      rules: all of its rules.
      others: what else is missing, as a person should read it; named only beside what the policy lacks.
    """
    lacking = {question: list(_lacking(question, scorings, rules)) for question in QUESTIONS}
    lacking = {question: what for question, what in lacking.items() if what}
    if not lacking:
        return
    missing = [*others, *dict.fromkeys(text for what in lacking.values() for text in what)]
    names = [question for question in lacking if any(not text.startswith("no @") for text in lacking[question])]
    remedy = f', or say what is not asked: --gin.Policy.not_asked="{names}"' if names else ""
    what = "; ".join(missing)
    raise UserError(f"policy {name} lacks {what}. Bind all of them in a gin file or as --gin.NAME=VALUE{remedy}")


def unasked(scorings: Sequence[Any], rules: Sequence[Any], switched_off: Sequence[str]) -> dict[str, str]:
    """Returns everything that a policy does not ask → why, in a fixed order."""
    found = {}
    for name, question in QUESTIONS.items():
        if name in switched_off:
            found[name] = SWITCHED_OFF
            continue
        if not _asks(rules, question):
            found[name] = NO_RULE
            continue
        if question.consent and (named := _named_sources(rules, question)) is not None:
            found[f"{name} of sources other than {', '.join(named)}"] = OTHER_SOURCES
        if name == "licences" and not all(each.links for each in _of(scorings, LicenceScoring)):
            found["licence links"] = LINKS_PASSED_OVER
        if name == "signals":
            found |= _unasked_signals(_of(scorings, SignalScoring), [inner(rule) for rule in rules])
    return found


def in_words(not_asked: Mapping[str, str]) -> str:
    """Returns what is not asked as one line, those with one reason together; empty for nothing."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in not_asked.items():
        by_reason.setdefault(reason, []).append(name)
    order = sorted(by_reason, key=lambda reason: reason != SWITCHED_OFF)
    return "; ".join(f"{', '.join(by_reason[reason])} ({reason})" for reason in order)


def _unasked_signals(scorings: Sequence[SignalScoring], rules: Sequence[Any]) -> dict[str, str]:
    heard = {kind for rule in rules if isinstance(rule, SignalRule) for kind in rule.deny}
    found = {}
    for scoring in scorings:
        for kind in KINDS:
            if kind not in heard or kind not in scoring.signals:
                found[f"signal {kind}"] = NO_RULE
            elif kind in COLLECTED and not getattr(scoring, kind):
                found[COLLECTED[kind]] = NO_FILES
    return found


def _lacking(name: str, scorings: Sequence[Any], rules: Sequence[Any]) -> Iterator[str]:
    """Yields what a question that is asked lacks."""
    question = QUESTIONS[name]
    if not _asks(rules, question):
        return
    there = _of(scorings, question.scoring)
    if not there:
        asking = next(inner(rule) for rule in rules if isinstance(inner(rule), question.rules))
        group = "consent" if question.consent else "content"
        yield f"no @{question.scoring.__name__}() in Policy.{group}_scoring, which {type(asking).__name__} needs"
    for scoring in there:
        for parameter, what in question.sources.items():
            if name == "signals" and not set(scoring.signals) & set(_CARRIED_BY_ROBOTS):
                continue
            trouble = _trouble(getattr(scoring, parameter))
            if trouble and name == "signals" and not scoring.snapshot and _asks(rules, QUESTIONS["robots"]):
                yield from _lacking("robots", scorings, rules)  # one snapshot serves both
            elif trouble:
                yield f"{question.scoring.__name__}.{parameter}{trouble} (give {what})"
        for parameter in COLLECTED if name == "signals" else ():
            if getattr(scoring, parameter) and (trouble := _trouble(getattr(scoring, parameter))):
                yield f"SignalScoring.{parameter}{trouble}"


def _trouble(value: Any) -> str:
    """Returns why a source cannot be read, or an empty text."""
    if not value:
        return " is empty"
    paths = [value] if isinstance(value, (str, os.PathLike)) else list(value)
    absent = [os.fspath(path) for path in paths if path != DEFAULT_MODEL and not epath.Path(path).exists()]
    return f": {', '.join(absent)} does not exist" if absent else ""


def _asks(rules: Sequence[Any], question: Question) -> bool:
    return any(isinstance(inner(rule), question.rules) for rule in rules)


def _named_sources(rules: Sequence[Any], question: Question) -> list[str] | None:
    """Returns the sources that a question is asked about, None for all."""
    asking = [rule for rule in rules if isinstance(inner(rule), question.rules)]
    if any(inner(rule) is rule for rule in asking):
        return None
    return sorted({name for rule in asking for name in rule.sources})


def _of(parts: Sequence[Any], kind: type) -> list[Any]:
    return [part for part in parts if isinstance(part, kind)]


def _place(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)

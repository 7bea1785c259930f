"""Identity of a prepared corpus (what decides its bytes), and where its stages lie."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE
from apertus_jax.corpus.duplicates import DEFAULT_MEMORY
from apertus_jax.corpus.language import document_language
from apertus_jax.corpus.prepare.plan import Plan
from apertus_jax.corpus.prepare.policy import Policy, describe, only, scorers_of
from apertus_jax.corpus.prepare.score import CHARACTERS_PER_BATCH, DOCUMENTS_PER_BATCH, UnitScorer
from apertus_jax.corpus.scorer import Scorer
from apertus_jax.process.module_sources import foreign_source
from apertus_jax.storage import artifacts

FORMAT = 1
SELECTION_FORMAT = 2


def identity_of_scorer(scorer: Scorer) -> dict[str, Any]:
    """Returns what decides the scores of a scorer, the source of one from outside of the package included."""
    return {**scorer.identity(), **foreign_source(scorer)}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A plan under a policy; travels to worker processes, where models are loaded anew.

    Attributes:
      plan: the units.
      policy: what is looked at and decided.
      work: folder of the intermediate stages, named after what decided them, so that policies can share scores.
      output: folder of the result.
      seconds_per_document: a document that needs longer is quarantined.
      sort_bytes: memory for sorting; no byte of the result depends on it.
      show_hosts: whether the report names domains instead of masking them.
    """

    plan: Plan
    policy: Policy
    work: str
    output: str
    seconds_per_document: float
    sort_bytes: int = DEFAULT_MEMORY
    show_hosts: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Leaves loaded models behind."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def under(self, plan: Plan) -> Preparation:
        """Returns the preparation of another plan; itself, models loaded, when the plan is the same."""
        return self if plan == self.plan else dataclasses.replace(self, plan=plan)

    @functools.cached_property
    def scorer(self) -> UnitScorer:
        """The scorers of the policy, loaded."""
        # Requests and the like are judged on the day of the plan, so that the same plan gives the same corpus.
        consent = [
            scoring.on_day(self.plan.as_of) if hasattr(scoring, "on_day") else scoring
            for scoring in self.policy.consent_scoring
        ]
        return UnitScorer(self.policy, scorers_of(consent), self.language_of, self.seconds_per_document)

    @functools.cached_property
    def selection_rule(self) -> Any | None:
        """The rule that is asked last and says how to choose among copies, if the policy has one."""
        return only(self.policy.content_rules, "after_selection")

    @functools.cached_property
    def _language_rule(self) -> Any | None:
        return only(self.policy.content_rules, "names_language")

    @functools.cached_property
    def trusts_declared_languages(self) -> bool:
        """Whether a language that the source declared wins over the model's."""
        return self._language_rule is None or self._language_rule.trust_declared

    def language_of(self, row: Mapping[str, Any]) -> str | None:
        """Returns the label that a document goes by; None where consent did not let its text be looked at."""
        if "language_label" not in row:
            return UNKNOWN_LANGUAGE
        return document_language(row, self.trusts_declared_languages)

    @functools.cached_property
    def score_inputs(self) -> dict[str, Any]:
        """What decides the scores: not the thresholds."""
        return {
            "format": FORMAT,
            "plan": self.plan.digest(),
            "consent": [identity_of_scorer(scorer) for scorer in self.scorer.consent],
            "consent_rules": describe(tuple(self.policy.consent_rules)),
            "content": [identity_of_scorer(scorer) for scorer in self.scorer.content],
            "personal_data": describe(self.policy.personal_data),
            "trusts_declared_languages": self.trusts_declared_languages,
            "duplicate_scope": self.scorer.duplicate_scope,
            "tokenizer": self.scorer.tokenizer_digest,
            "batch": [DOCUMENTS_PER_BATCH, CHARACTERS_PER_BATCH],
            "seconds_per_document": self.seconds_per_document,
        }

    @functools.cached_property
    def policy_in_force(self) -> dict[str, Any]:
        """The policy as JSON: its rules, and scorers by what decides their scores, never by where a list lies."""
        described = describe(self.policy)
        for group, scorers in (("consent_scoring", self.scorer.consent), ("content_scoring", self.scorer.content)):
            scorings = zip(getattr(self.policy, group), scorers, strict=True)
            described[group] = [
                {"class": type(each).__name__, **identity_of_scorer(scorer)} for each, scorer in scorings
            ]
        return described | {
            "tokenizer": self.policy.tokenizer.rstrip("/").rpartition("/")[2],
            "tokenizer_digest": self.scorer.tokenizer_digest,
            "duplicate_scope": self.scorer.duplicate_scope,
            "unasked": self.policy.unasked,
        }

    @functools.cached_property
    def policy_digest(self) -> str:
        """The digest of the policy in force: the same wherever its lists and models lie, another when one changes."""
        return artifacts.digest_json(self.policy_in_force)

    @functools.cached_property
    def decision_inputs(self) -> dict[str, Any]:
        """What decides which documents stay."""
        return {"scores": artifacts.digest_json(self.score_inputs), "rules": describe(self.policy.rules)}

    @functools.cached_property
    def selection_inputs(self) -> dict[str, Any]:
        """What decides which copies stay."""
        return self.decision_inputs | {"format": SELECTION_FORMAT}

    @functools.cached_property
    def part_inputs(self) -> dict[str, Any]:
        """What decides the permitted documents and the ledger."""
        return {
            "decisions": artifacts.digest_json(self.decision_inputs),
            "policy": self.policy_digest,
            "policy_name": self.policy.name,
        }

    def stage_folder(self, name: str, inputs: dict[str, Any]) -> epath.Path:
        """Returns the folder of an intermediate stage: its name and what decided its content."""
        return epath.Path(self.work) / f"{name}-{artifacts.digest_json(inputs)[:16]}"

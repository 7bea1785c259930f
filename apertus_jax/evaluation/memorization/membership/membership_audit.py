"""Membership inference in the audit: probes against unseen controls, and any two sets of documents."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from apertus_jax.evaluation.intervals import Estimate
from apertus_jax.evaluation.memorization.grid import AuditedModel
from apertus_jax.evaluation.memorization.membership.attack_quality import AttackQuality
from apertus_jax.evaluation.memorization.membership.attacks import (
    DocumentStatistics,
    membership_by_mask,
    membership_inference,
)
from apertus_jax.evaluation.memorization.membership.blind_baseline import FOLDS, blind_baseline
from apertus_jax.evaluation.memorization.probes import AuditProbe, Candidate
from apertus_jax.evaluation.scoring import LikelihoodScorer, ScoringRequest
from apertus_jax.objectives import LossMask, combine_masks

ROWS_AT_ONCE = 16
SMALLEST_LENGTH = 32


@dataclasses.dataclass(frozen=True)
class CandidateSet:
    """Members and non-members of one kind."""

    name: str
    members: Sequence[Candidate]
    non_members: Sequence[Candidate]


def probe_sets(probes: Sequence[AuditProbe]) -> list[CandidateSet]:
    """Returns one set per exposure: its probes against the controls, which are of the same kind by construction."""
    by_exposure: dict[int, list[Candidate]] = {}
    for probe in probes:
        by_exposure.setdefault(probe.planted.copies, []).append(probe)
    controls = by_exposure.pop(0)
    return [CandidateSet(f"exposure {exposure}", by_exposure[exposure], controls) for exposure in sorted(by_exposure)]


def membership_rows(
    sets: Sequence[CandidateSet],
    model: AuditedModel,
    loss_masks: Sequence[LossMask],
    reference: LikelihoodScorer | None,
    seed: int,
) -> list[dict[str, Any]]:
    """Returns what every score achieves on every set, on all tokens and, under `loss_masks`, on each kind of token.

    Blind baselines, which do not see the model, are reported beside them where both classes are large enough.
    """
    rows: list[dict[str, Any]] = []
    everyone = [candidate for each in sets for candidate in (*each.members, *each.non_members)]
    statistics = iter(document_statistics(everyone, model, loss_masks, reference))
    for each in sets:
        candidates = [*each.members, *each.non_members]
        is_member = [True] * len(each.members) + [False] * len(each.non_members)
        documents = [next(statistics) for _ in candidates]
        for score, quality in membership_inference(documents, is_member, seed).items():
            rows.append(_row(each.name, score, "all", quality))
        if min(len(each.members), len(each.non_members)) >= FOLDS:
            blind = blind_baseline([candidate.ids.tolist() for candidate in candidates], is_member, seed)
            rows.extend(_row(each.name, score, "none", quality) for score, quality in blind.items())
        if _masks_something(documents, is_member):
            for score, gap in membership_by_mask(documents, is_member, seed).items():
                rows.append(_row(each.name, score, "masked", gap.masked, gap.gap))
                rows.append(_row(each.name, score, "as many unmasked", gap.unmasked_as_many))
                rows.append(_row(each.name, score, "unmasked", gap.unmasked))
    return rows


def document_statistics(
    candidates: Sequence[Candidate],
    model: AuditedModel,
    loss_masks: Sequence[LossMask],
    reference: LikelihoodScorer | None,
) -> list[DocumentStatistics]:
    """Returns the statistics of each document after <s>, up to the length of the context."""
    longest = model.scorer.longest
    cut = [dataclasses.replace(candidate, ids=candidate.ids[:longest]) for candidate in candidates]
    requests = [ScoringRequest([model.tokenizer.bod_id], candidate.ids) for candidate in cut]
    scored = model.scorer.score(requests, statistics=True, progress=False)
    other = reference.score(requests, progress=False) if reference is not None else [None] * len(cut)
    kept = labels_in_loss(cut, model.tokenizer.bod_id, loss_masks) if loss_masks else [None] * len(cut)
    return [
        DocumentStatistics(
            log_probabilities=own.log_probabilities,
            means=own.means,
            deviations=own.deviations,
            reference_log_probabilities=None if theirs is None else theirs.log_probabilities,
            text=model.tokenizer.decode(candidate.ids),
            in_loss=in_loss,
        )
        for candidate, own, theirs, in_loss in zip(cut, scored, other, kept, strict=True)
    ]


def labels_in_loss(candidates: Sequence[Candidate], bod_id: int, loss_masks: Sequence[LossMask]) -> list[np.ndarray]:
    """Returns bool[n] per document: which of its tokens the masks keep where it opens a row of its own.

    Rows are padded on the right to a power of two, which no mask that looks back can see.
    """
    kept: list[np.ndarray] = [np.zeros(0, bool)] * len(candidates)
    weigh = _weights_of(tuple(loss_masks))
    order = sorted(range(len(candidates)), key=lambda number: len(candidates[number].ids))
    for start in range(0, len(order), ROWS_AT_ONCE):
        numbers = order[start : start + ROWS_AT_ONCE]
        needed = max(len(candidates[number].ids) for number in numbers)
        length = max(SMALLEST_LENGTH, 1 << (needed - 1).bit_length())
        tokens = np.zeros((ROWS_AT_ONCE, length + 1), np.int32)
        keys = np.zeros((ROWS_AT_ONCE, length), np.uint32)
        tokens[:, 0] = bod_id
        for row, number in enumerate(numbers):
            tokens[row, 1 : 1 + len(candidates[number].ids)] = candidates[number].ids
            keys[row] = candidates[number].key
        batch = {"tokens": tokens, "segment_ids": np.zeros((ROWS_AT_ONCE, length), np.int32), "document_keys": keys}
        weights = np.asarray(weigh(batch))
        for row, number in enumerate(numbers):
            kept[number] = weights[row, : len(candidates[number].ids)] > 0
    return kept


@functools.lru_cache(maxsize=8)
def _weights_of(loss_masks: tuple[LossMask, ...]) -> Callable[[Mapping[str, np.ndarray]], jax.Array]:
    """Returns the compiled weights of a batch, so that masks asked for again are not compiled again."""
    return jax.jit(functools.partial(combine_masks, loss_masks))


def _masks_something(documents: Sequence[DocumentStatistics], is_member: Sequence[bool]) -> bool:
    """Whether both classes have a document with masked and unmasked tokens."""
    mixed = [each.in_loss is not None and each.in_loss.any() and not each.in_loss.all() for each in documents]
    return {member for member, both in zip(is_member, mixed, strict=True) if both} == {True, False}


def _row(name: str, score: str, tokens: str, quality: AttackQuality, gap: Estimate | None = None) -> dict[str, Any]:
    return {
        "set": name,
        "score": score,
        "tokens": tokens,
        "members": quality.members,
        "non_members": quality.non_members,
        "area": dataclasses.asdict(quality.area),
        "balanced_accuracy": dataclasses.asdict(quality.balanced_accuracy),
        "true_positive_rates": {
            f"{allowed:g}": dataclasses.asdict(found) for allowed, found in _rates(quality.true_positive_rates)
        },
        "gap_to_as_many_unmasked": None if gap is None else dataclasses.asdict(gap),
    }


def _rates(rates: Mapping[float, Estimate]) -> list[tuple[float, Estimate]]:
    return sorted(rates.items())

"""Membership inference attacks: was this document in the training data?

Every score is higher for members. (The original Goldfish evaluation hands the raw loss to its curve as the score of a
member, which is lower for members; that sign is not ours.) All statistics come from one forward pass, so the same
scores can be taken of the tokens that Goldfish kept out of the loss and of those it did not.

Source: docs/reference/evaluation_and_release.md §3.7.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.evaluation.intervals import RESAMPLES, Estimate
from apertus_jax.evaluation.memorization.membership.attack_quality import AttackQuality, area_difference, attack_quality

LOWEST_FRACTION = 0.2
SMALLEST_DEVIATION = 1e-6
LOSS, ZLIB, REFERENCE, MIN_K, MIN_K_PLUS_PLUS = "loss", "zlib", "reference", "min_k", "min_k_plus_plus"


@dataclasses.dataclass(frozen=True)
class DocumentStatistics:
    """Likelihood statistics of one document's n tokens; what is None leaves out the scores that need it.

    `means` and `deviations` are of log p over the vocabulary, under the model's own distribution at each place.
    `in_loss` is False for tokens that Goldfish kept out of the training loss, as in `objectives.goldfish_mask`.
    """

    log_probabilities: np.ndarray  # float[n]
    means: np.ndarray | None = None  # float[n]
    deviations: np.ndarray | None = None  # float[n]
    reference_log_probabilities: np.ndarray | None = None  # float[n], of a model that did not see the document
    text: str | None = None
    in_loss: np.ndarray | None = None  # bool[n]

    def at(self, places: np.ndarray) -> DocumentStatistics:
        """Returns the statistics of some places only, int[m] or bool[n]; the text stays whole."""
        fields = ("log_probabilities", "means", "deviations", "reference_log_probabilities", "in_loss")
        values = {name: getattr(self, name) for name in fields}
        return dataclasses.replace(
            self, **{name: np.asarray(value)[places] for name, value in values.items() if value is not None}
        )


@dataclasses.dataclass(frozen=True)
class MaskGap:
    """One score on the tokens that Goldfish masked, on as many of the others, and on all of the others.

    `gap` is area(masked) − area(as many unmasked): negative where the mask hides membership.
    """

    masked: AttackQuality
    unmasked_as_many: AttackQuality
    unmasked: AttackQuality
    gap: Estimate


def loss_score(log_probabilities: np.ndarray) -> float:
    """Returns −NLL, the mean of log p over tokens: float[n], n ≥ 1."""
    return float(np.mean(log_probabilities, dtype=np.float64))


def zlib_score(log_probabilities: np.ndarray, text: str) -> float:
    """Returns −NLL over the bytes of the compressed text (Carlini et al. 2021): float[n], n ≥ 1."""
    return loss_score(log_probabilities) / len(zlib.compress(text.encode()))


def reference_score(log_probabilities: np.ndarray, reference_log_probabilities: np.ndarray) -> float:
    """Returns NLL under a reference model − NLL: float[n] each, n ≥ 1."""
    return loss_score(log_probabilities) - loss_score(reference_log_probabilities)


def min_k_score(log_probabilities: np.ndarray, fraction: float = LOWEST_FRACTION) -> float:
    """Returns the mean of the lowest `fraction` of log p, at least one token (Min-K%, arXiv 2310.16789).

    Raises:
      UserError: the fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"Min-K% fraction={fraction} must be above 0 and at most 1")
    values = np.asarray(log_probabilities, np.float64)
    # Of 0.29 × 100 = 28.999999999999996 tokens, 29 are meant.
    number = max(1, int(len(values) * fraction + 1e-9))
    return float(np.sort(values)[:number].mean())


def min_k_plus_plus_score(
    log_probabilities: np.ndarray, means: np.ndarray, deviations: np.ndarray, fraction: float = LOWEST_FRACTION
) -> float:
    """Returns the mean of the lowest `fraction` of (log p − mean) / deviation (Min-K%++, arXiv 2404.02936).

    Where all of the distribution has one log p, deviation and difference are rounding, and the quotient counts as 0.
    """
    difference = np.asarray(log_probabilities, np.float64) - np.asarray(means, np.float64)
    deviations = np.asarray(deviations, np.float64)
    spread = deviations > SMALLEST_DEVIATION
    return min_k_score(np.where(spread, difference / np.where(spread, deviations, 1.0), 0.0), fraction)


def document_scores(document: DocumentStatistics, fraction: float = LOWEST_FRACTION) -> dict[str, float]:
    """Returns every score whose statistics the document has, by name, higher for members.

    Raises:
      UserError: it has no token, or lengths differ, or a statistic is NaN.
    """
    _check(document)
    values = document.log_probabilities
    scores = {LOSS: loss_score(values), MIN_K: min_k_score(values, fraction)}
    if document.text is not None:
        scores[ZLIB] = zlib_score(values, document.text)
    if document.reference_log_probabilities is not None:
        scores[REFERENCE] = reference_score(values, document.reference_log_probabilities)
    if document.means is not None and document.deviations is not None:
        scores[MIN_K_PLUS_PLUS] = min_k_plus_plus_score(values, document.means, document.deviations, fraction)
    return scores


def membership_inference(
    documents: Sequence[DocumentStatistics],
    is_member: Sequence[bool],
    seed: int,
    fraction: float = LOWEST_FRACTION,
    resamples: int = RESAMPLES,
) -> dict[str, AttackQuality]:
    """Returns what each score achieves on all tokens of the documents; bool[N] says which are members.

    Only scores that every document has are reported.

    Raises:
      UserError: a document has no token or NaN statistics, or a class is empty.
    """
    table = _score_table([document_scores(document, fraction) for document in documents])
    return {name: attack_quality(scores, is_member, seed, resamples=resamples) for name, scores in table.items()}


def membership_by_mask(
    documents: Sequence[DocumentStatistics],
    is_member: Sequence[bool],
    seed: int,
    fraction: float = LOWEST_FRACTION,
    resamples: int = RESAMPLES,
) -> dict[str, MaskGap]:
    """Returns what each score achieves on tokens that Goldfish kept out of the loss and on the others, with the gap.

    A score of few tokens is noisier than one of many, and masked tokens are few. So the gap compares them with as many
    unmasked ones, drawn at random in each document; non-members are split by the mask they would have had. Documents
    without a token of either kind are left out.

    Raises:
      UserError: a document has no `in_loss`, or too few documents have tokens of both kinds.
    """
    parts: dict[str, list[dict[str, float]]] = {"masked": [], "unmasked_as_many": [], "unmasked": []}
    labels = []
    for number, (document, label) in enumerate(zip(documents, is_member, strict=True)):
        if document.in_loss is None:
            raise UserError(f"document {number} has no in_loss; give the Goldfish mask of its tokens")
        _check(document)
        masked, unmasked = np.flatnonzero(~document.in_loss), np.flatnonzero(document.in_loss)
        if not len(masked) or not len(unmasked):
            continue
        generator = np.random.default_rng([seed, number])
        as_many = generator.choice(unmasked, min(len(masked), len(unmasked)), replace=False)
        masked = generator.choice(masked, len(as_many), replace=False)
        for name, places in (("masked", masked), ("unmasked_as_many", as_many), ("unmasked", unmasked)):
            parts[name].append(document_scores(document.at(places), fraction))
        labels.append(bool(label))
    if not labels:
        raise UserError("no document has both masked and unmasked tokens; give longer documents or another mask")
    tables = {name: _score_table(scores) for name, scores in parts.items()}
    return {
        score: MaskGap(
            **{name: attack_quality(table[score], labels, seed, resamples=resamples) for name, table in tables.items()},
            gap=area_difference(
                tables["masked"][score], tables["unmasked_as_many"][score], labels, seed, resamples=resamples
            ),
        )
        for score in tables["masked"]
    }


def _score_table(rows: Sequence[dict[str, float]]) -> dict[str, np.ndarray]:
    """Returns float64[N] for each score that all documents have."""
    names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    return {name: np.array([row[name] for row in rows]) for name in names}


def _check(document: DocumentStatistics) -> None:
    """Raises UserError where the statistics of a document do not fit together."""
    size = len(document.log_probabilities)
    if not size:
        raise UserError("a document of membership inference has no token")
    for name in ("log_probabilities", "means", "deviations", "reference_log_probabilities", "in_loss"):
        values = getattr(document, name)
        if values is None:
            continue
        if len(values) != size:
            raise UserError(f"{name} has {len(values)} values for {size} tokens; give one value for each token")
        if np.isnan(values).any():
            raise UserError(f"{name} holds NaN; the model has diverged or its parameters are damaged")

"""Blind baseline of membership inference: what length or a bag of words tells without the model.

Where members and non-members differ in kind (other dates, other sources), attacks look good that measure nothing of the
model (docs/reference/evaluation_and_release.md §3.7; Das et al. 2024, Meeus et al. 2024). A score of an attack counts
only as far as it beats these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.evaluation.intervals import RESAMPLES
from apertus_jax.evaluation.memorization.membership.attack_quality import AttackQuality, attack_quality, checked

LENGTH, BAG_OF_WORDS = "blind_length", "blind_bag_of_words"
FOLDS = 5
WORDS = 512
PENALTY = 10.0
NEWTON_STEPS = 30


def blind_baseline(
    documents: Sequence[Sequence[int]],
    is_member: Sequence[bool],
    seed: int,
    folds: int = FOLDS,
    words: int = WORDS,
    resamples: int = RESAMPLES,
) -> dict[str, AttackQuality]:
    """Returns what logistic regression on length, and on a bag of words, achieves on documents it was not fitted to.

    Args:
      documents: token ids, N documents.
      is_member: bool[N].
      seed: of the folds and the resampling.
      folds: each document is scored by a regression fitted to the other folds.
      words: the most frequent ids, by documents, that the bag counts.
      resamples: draws of the intervals.

    Raises:
      UserError: a class has fewer documents than there are folds.
    """
    features = {LENGTH: length_features(documents), BAG_OF_WORDS: bag_of_words(documents, words)}
    return {
        name: attack_quality(
            cross_validated_scores(matrix, is_member, seed, folds), is_member, seed, resamples=resamples
        )
        for name, matrix in features.items()
    }


def length_features(documents: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns float64[N, 2], the logarithm of each document's length and its square."""
    lengths = np.log1p([len(document) for document in documents])
    return np.stack([lengths, lengths**2], axis=1)


def bag_of_words(documents: Sequence[Sequence[int]], words: int = WORDS) -> np.ndarray:
    """Returns float64[N, W], log(1 + count) of the W ids found in most documents; W is at most `words`."""
    counted = [np.unique(np.asarray(document, np.int64), return_counts=True) for document in documents]
    ids, in_documents = np.unique(
        np.concatenate([found for found, _ in counted] or [np.zeros(0, np.int64)]), return_counts=True
    )
    chosen = np.sort(ids[np.argsort(-in_documents, kind="stable")[:words]])
    matrix = np.zeros((len(documents), len(chosen)))
    for row, (found, counts) in enumerate(counted):
        known = np.isin(found, chosen)
        matrix[row, np.searchsorted(chosen, found[known])] = np.log1p(counts[known])
    return matrix


def cross_validated_scores(
    features: np.ndarray, is_member: Sequence[bool], seed: int, folds: int = FOLDS, penalty: float = PENALTY
) -> np.ndarray:
    """Returns the score of each document under a regression fitted without its fold: float64[N, W] → float64[N].

    Folds hold equal shares of both classes. Scores are ranks within the fold, from 0 to 1, because logits of different
    fits do not compare.

    Raises:
      UserError: a class has fewer documents than there are folds.
    """
    features = np.asarray(features, np.float64)
    _, labels = checked(np.zeros(len(features)), is_member)
    fewest = min(int(labels.sum()), int((~labels).sum()))
    if folds < 2 or fewest < folds:
        raise UserError(f"{folds} folds need at least 2 and at most {fewest}, the documents of the smaller class")
    generator = np.random.default_rng(seed)
    fold_of = np.zeros(len(labels), np.int64)
    for places in (np.flatnonzero(labels), np.flatnonzero(~labels)):
        fold_of[generator.permutation(places)] = np.arange(len(places)) % folds
    scores = np.zeros(len(labels))
    for fold in range(folds):
        inside = fold_of == fold
        weights, intercept, center, scale = _fit_standardized(features[~inside], labels[~inside], penalty)
        logits = (features[inside] - center) / scale @ weights + intercept
        scores[inside] = _mean_ranks(logits)
    return scores


def fit_logistic_regression(features: np.ndarray, labels: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Returns (weights float64[W], intercept) that minimise Σ log-loss + penalty/2 · |weights|², by Newton's method.

    The penalty spares the intercept and must be positive, so the minimum exists and is one. Steps are halved until the
    objective falls.
    """
    if features.shape[1] > len(features):
        # The weights of the minimum lie in the span of the rows: fit their coordinates there.
        basis, coordinates = np.linalg.qr(features.T)
        weights, intercept = fit_logistic_regression(coordinates.T, labels, penalty)
        return basis @ weights, intercept
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 0.0
    signs = np.where(labels, 1.0, -1.0)

    def objective(parameters: np.ndarray) -> float:
        return np.logaddexp(0.0, -signs * (design @ parameters)).sum() + 0.5 * (ridge * parameters**2).sum()

    parameters = np.zeros(design.shape[1])
    value = objective(parameters)
    for _ in range(NEWTON_STEPS):
        predicted = 0.5 * (1 + np.tanh(design @ parameters / 2))
        gradient = design.T @ (predicted - (signs > 0)) + ridge * parameters
        curvature = (design * (predicted * (1 - predicted))[:, None]).T @ design + np.diag(ridge + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while objective(parameters - size * step) > value and size > 1e-6:
            size /= 2
        parameters = parameters - size * step
        previous, value = value, objective(parameters)
        if previous - value <= 1e-12 * max(1.0, abs(value)):
            break
    return parameters[:-1], float(parameters[-1])


def _fit_standardized(features: np.ndarray, labels: np.ndarray, penalty: float):
    """→ weights, intercept, and the centre and scale of the features that they apply to."""
    center, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    weights, intercept = fit_logistic_regression((features - center) / scale, labels, penalty)
    return weights, intercept, center, scale


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Returns each value's rank from 0 to 1, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts
    return ((before + (counts - 1) / 2) / max(1, len(values) - 1))[inverse]

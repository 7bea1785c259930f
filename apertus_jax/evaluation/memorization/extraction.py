"""(n, p)-discoverable extraction by teacher forcing: how likely n draws reproduce a training suffix.

`p_z` is the probability that one draw under a decoding scheme gives the whole suffix z after its prefix. It is the
product of the scheme's probabilities of the suffix' own tokens, read off one teacher-forced pass. n draws give z at
least once with probability 1 − (1 − p_z)^n; z is (n, p)-extractable where that reaches p (arXiv 2410.19482).

Source: docs/reference/evaluation_and_release.md §3.8.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.evaluation.intervals import Rate, rate
from apertus_jax.inference import Sampling
from apertus_jax.model import ModelConfig, Transformer

QUERIES = (1, 10, 100, 1000, 10_000)
PROBABILITIES = (0.1, 0.5, 0.9)
NUCLEUS = Sampling(temperature=1.0, top_p=0.9)
SMALLEST_BUCKET = 16
NUM_TILES = 8
# n is an integer, and the two logarithms whose quotient it is round: a quotient this close above one counts as it.
ROUNDING = 1e-12
# Below, 1 − exp(log p) is 1 in float64.
TINY_LOG_PROBABILITY = -30.0


@dataclasses.dataclass(frozen=True)
class ExtractionPoint:
    """The share of suffixes that `queries` draws give with probability `probability` or more."""

    queries: int
    probability: float
    extractable: Rate


def token_log_probabilities(scores: np.ndarray, targets: np.ndarray, scheme: Sampling) -> np.ndarray:
    """Returns the scheme's log-probability of each target, float64[T]; -inf where it is never drawn.

    Args:
      scores: float[T, V], logits or log-probabilities before the scheme's temperature.
      targets: int[T].
      scheme: how tokens are drawn; greedy gives 0 or -inf.

    Raises:
      UserError: a score is NaN or +inf.
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets)
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise UserError("logits are NaN or infinite; the model has diverged or its parameters are damaged")
    places = np.arange(len(targets))
    if scheme.greedy:
        return np.where(scores.argmax(axis=-1) == targets, 0.0, -np.inf)
    scaled = scores / scheme.temperature
    kept = np.ones(scaled.shape, bool)
    if scheme.truncated:
        order = np.argsort(-scaled, axis=-1, kind="stable")[:, : scheme.top_k]
        ranked = np.take_along_axis(scaled, order, axis=-1)
        probabilities = np.exp(ranked - _log_sum_exp(ranked))
        mass_before = np.cumsum(probabilities, axis=-1) - probabilities
        in_top_p = (mass_before < scheme.top_p) | (scheme.top_p >= 1.0)
        kept[:] = False
        kept[places[:, None], order] = in_top_p
    scaled = np.where(kept, scaled, -np.inf)
    return (scaled - _log_sum_exp(scaled))[places, targets]


def scheme_log_probabilities(
    hidden: jax.Array,
    lm_head: jax.Array,
    targets: jax.Array,
    schemes: Sequence[Sampling],
    num_tiles: int = NUM_TILES,
) -> jax.Array:
    """Each scheme's log-probability of each target, float32[len(schemes), B, T]; the logits of one tile at a time.

    hidden [B, T, D], lm_head [D, V], targets int32[B, T]. As `token_log_probabilities`, with the decoder's order among
    equal logits and its float32 sums. NaN where a logit is not finite.
    """
    kernel = lm_head.astype(hidden.dtype)

    def step(_, tile):
        hidden_tile, targets_tile = tile
        logits = jnp.einsum("BTD,DV->BTV", hidden_tile, kernel, preferred_element_type=jnp.float32)
        found = jnp.stack([_log_probabilities_of_tile(logits, targets_tile, scheme) for scheme in schemes])
        return None, jnp.where(jnp.isfinite(logits).all(axis=-1), found, jnp.nan)

    batch_size, length, embed = hidden.shape
    num_tiles = min(num_tiles, length)
    padding = -length % num_tiles
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0))).reshape(batch_size, -1, num_tiles, embed)
    padded_targets = jnp.pad(targets, ((0, 0), (0, padding))).reshape(batch_size, -1, num_tiles)
    _, found = jax.lax.scan(step, None, (jnp.moveaxis(hidden, 2, 0), jnp.moveaxis(padded_targets, 2, 0)))
    return jnp.moveaxis(found, 0, 3).reshape(len(schemes), batch_size, -1)[..., :length]


def suffix_log_probabilities(
    config: ModelConfig,
    params: Any,
    prefixes: Sequence[Sequence[int]],
    suffixes: Sequence[Sequence[int]],
    schemes: Sequence[Sampling] = (NUCLEUS,),
    batch_tokens: int = 8192,
) -> np.ndarray:
    """Returns log p_z of each suffix after its prefix under each scheme, float64[len(schemes), N].

    One forward pass serves all schemes; only the suffix' places meet the vocabulary. Rows are grouped by lengths
    rounded up to powers of two, one compilation for each group.

    Args:
      config: the model's shape.
      params: its parameter tree.
      prefixes: token ids, each with its `<s>`, at least one.
      suffixes: token ids, at least one each.
      schemes: decoding schemes.
      batch_tokens: tokens of one forward pass, at most, where a single row is not longer.

    Raises:
      UserError: an empty prefix or suffix, unequal numbers of them, or logits that are not finite.
    """
    if len(prefixes) != len(suffixes):
        raise UserError(f"{len(prefixes)} prefixes and {len(suffixes)} suffixes: give one prefix for each suffix")
    groups: dict[tuple[int, int], list[int]] = {}
    for number, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
        if not len(prefix) or not len(suffix):
            raise UserError(f"row {number} has an empty prefix or suffix; a prefix holds at least `<s>`")
        shape = _bucket(len(prefix) + len(suffix) - 1), _bucket(len(suffix))
        groups.setdefault(shape, []).append(number)
    found = np.zeros((len(schemes), len(prefixes)))
    for (length, suffix_length), numbers in sorted(groups.items()):
        rows_per_batch = max(1, batch_tokens // length)
        for start in range(0, len(numbers), rows_per_batch):
            chosen = numbers[start : start + rows_per_batch]
            tokens = np.zeros((rows_per_batch, length), np.int32)
            targets = np.zeros((rows_per_batch, suffix_length), np.int32)
            starts = np.zeros(rows_per_batch, np.int32)
            for place, number in enumerate(chosen):
                row = np.concatenate([prefixes[number], suffixes[number]])
                tokens[place, : len(row) - 1] = row[:-1]
                targets[place, : len(suffixes[number])] = suffixes[number]
                starts[place] = len(prefixes[number]) - 1
            scores = np.asarray(_teacher_forced(config, tuple(schemes), params, tokens, starts, targets))
            for place, number in enumerate(chosen):
                found[:, number] = sequence_log_probability(scores[:, place, : len(suffixes[number])])
    return found


def sequence_log_probability(token_scores: np.ndarray) -> np.ndarray:
    """Returns the sum over the last axis in float64, at most 0: float[…, T] → float64[…].

    Raises:
      UserError: a score is NaN.
    """
    if np.isnan(token_scores).any():
        raise UserError("log-probabilities are NaN; the model has diverged or its parameters are damaged")
    return np.minimum(np.asarray(token_scores, np.float64).sum(axis=-1), 0.0)


def extraction_probability(log_probability: np.ndarray, queries: float) -> np.ndarray:
    """Returns 1 − (1 − p_z)^n for log p_z float64[…] and n `queries`, exact to rounding for tiny p_z."""
    return -np.expm1(-queries * np.exp(_log_hazard(np.asarray(log_probability, np.float64))))


def minimal_queries(log_probability: np.ndarray, probability: float) -> np.ndarray:
    """Returns the least n with 1 − (1 − p_z)^n ≥ p, float64[…]: inf where p_z = 0 or n is beyond float64.

    Raises:
      UserError: p is not between 0 and 1, both excluded, or a log p_z is NaN or above 0.
    """
    log_probability = np.asarray(log_probability, np.float64)
    if not 0 < probability < 1:
        raise UserError(f"extraction probability {probability} must be above 0 and below 1")
    if np.isnan(log_probability).any() or (log_probability > 0).any():
        raise UserError("log-probabilities of suffixes must be at most 0 and not NaN")
    with np.errstate(over="ignore"):
        quotient = np.exp(np.log(-np.log1p(-probability)) - _log_hazard(log_probability))
    return np.maximum(np.ceil(quotient * (1 - ROUNDING)), 1)


def is_extractable(log_probability: np.ndarray, queries: float, probability: float) -> np.ndarray:
    """Returns whether n draws give the suffix with probability p or more, bool[…]; errors as `minimal_queries`."""
    return minimal_queries(log_probability, probability) <= queries


def extraction_curve(
    log_probability: np.ndarray,
    queries: Sequence[int] = QUERIES,
    probabilities: Sequence[float] = PROBABILITIES,
) -> list[ExtractionPoint]:
    """Returns the extractable share of suffixes with log p_z float64[N], for every p and, within it, every n.

    Each share has its exact interval and, for the case of no event, the upper bound of the true share.
    """
    points: list[ExtractionPoint] = []
    for probability in probabilities:
        needed = minimal_queries(log_probability, probability)
        points.extend(ExtractionPoint(n, probability, rate(needed <= n)) for n in queries)
    return points


def extraction_by_bucket(
    buckets: Sequence[Hashable],
    log_probability: np.ndarray,
    queries: Sequence[int] = QUERIES,
    probabilities: Sequence[float] = PROBABILITIES,
) -> dict[Hashable, list[ExtractionPoint]]:
    """Returns the curve of each bucket, by exposure for example, in the order in which buckets first occur."""
    scores = np.asarray(log_probability, np.float64)
    return {name: extraction_curve(scores[places], queries, probabilities) for name, places in _places(buckets).items()}


def discoverable_by_bucket(buckets: Sequence[Hashable], exact: Sequence[bool]) -> dict[Hashable, Rate]:
    """Returns how often the greedy continuation equals the suffix in each bucket: bool[N] → rates with bounds."""
    hits = np.asarray(exact, bool)
    return {name: rate(hits[places]) for name, places in _places(buckets).items()}


@functools.partial(jax.jit, static_argnames=("config", "schemes"))
def _teacher_forced(config, schemes, params, tokens, starts, targets):
    """int32[B, T], int32[B], int32[B, S] → float32[schemes, B, S]; `starts` are the places before the suffixes."""
    hidden = Transformer(config).apply({"params": params}, tokens, method="hidden_states")
    places = jnp.minimum(starts[:, None] + jnp.arange(targets.shape[1]), tokens.shape[1] - 1)
    hidden = jnp.take_along_axis(hidden, places[..., None], axis=1)
    return scheme_log_probabilities(hidden, params["lm_head"]["kernel"], targets, schemes)


def _log_probabilities_of_tile(logits: jax.Array, targets: jax.Array, scheme: Sampling) -> jax.Array:
    """float32[B, t, V], int32[B, t] → float32[B, t]."""
    if scheme.greedy:
        return jnp.where(jnp.argmax(logits, axis=-1) == targets, 0.0, -jnp.inf)
    scaled = logits / scheme.temperature
    target = jnp.take_along_axis(scaled, targets[..., None], axis=-1)
    if not scheme.truncated:
        return target[..., 0] - jax.nn.logsumexp(scaled, axis=-1)
    lower_id = jax.lax.broadcasted_iota(jnp.int32, scaled.shape, 2) < targets[..., None]
    find = _nucleus_of_all if scheme.top_k is None else _nucleus_of_top_k
    is_kept, normalizer = find(scaled, target, lower_id, scheme)
    return jnp.where(is_kept, target - normalizer, -jnp.inf)[..., 0]


def _nucleus_of_top_k(scaled, target, lower_id, scheme):
    """→ whether the target is kept, log of the kept tokens' mass; [B, t, 1] each. The target's rank decides."""
    ranked = jax.lax.top_k(scaled, min(scheme.top_k, scaled.shape[-1]))[0]
    probabilities = jax.nn.softmax(ranked, axis=-1)
    mass_before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = ((mass_before < scheme.top_p) | (scheme.top_p >= 1.0)).at[..., 0].set(True)
    rank = ((scaled > target) | ((scaled == target) & lower_id)).sum(axis=-1, keepdims=True)
    normalizer = jax.nn.logsumexp(jnp.where(kept, ranked, -jnp.inf), axis=-1, keepdims=True)
    return rank < kept.sum(axis=-1, keepdims=True), normalizer


def _nucleus_of_all(scaled, target, lower_id, scheme):
    """As `_nucleus_of_top_k`, of the whole vocabulary without sorting it, which takes a CPU eight times as long.

    The nucleus ends at the greatest value such that it and all above reach top_p. It is found by halving the range of
    the values' bit patterns, which as integers are in the order of the values.
    """
    log_total = jax.nn.logsumexp(scaled, axis=-1, keepdims=True)
    probabilities = jnp.exp(scaled - log_total)
    keys, target_key = _ordered_bits(scaled), _ordered_bits(target)

    def halve(_, bounds):
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)
        mass = jnp.where(keys >= middle, probabilities, 0).sum(axis=-1, keepdims=True)
        return jnp.where(mass >= scheme.top_p, middle, low), jnp.where(mass >= scheme.top_p, high, middle)

    bounds = keys.min(axis=-1, keepdims=True), keys.max(axis=-1, keepdims=True) + 1
    last, _ = jax.lax.fori_loop(0, 32, halve, bounds)
    mass_above = jnp.where(keys > last, probabilities, 0).sum(axis=-1, keepdims=True)
    ties = keys == last
    each = jnp.where(ties, probabilities, 0).max(axis=-1, keepdims=True)
    wanted = jnp.ceil((scheme.top_p - mass_above) / each)
    kept_ties = jnp.clip(wanted, 1, ties.sum(axis=-1, keepdims=True))
    ties_before = (ties & lower_id).sum(axis=-1, keepdims=True)
    is_kept = (target_key > last) | ((target_key == last) & (ties_before < kept_ties))
    return is_kept, log_total + jnp.log(mass_above + kept_ties * each)


def _ordered_bits(values: jax.Array) -> jax.Array:
    """float32[…] → int32[…] in the same order; both zeros give 0."""
    bits = jax.lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def _log_hazard(log_probability: np.ndarray) -> np.ndarray:
    """Returns log(−log(1 − p)) of log p: of log p = 0 inf, of -inf -inf."""
    with np.errstate(divide="ignore"):
        near_one = np.log(-np.log(-np.expm1(np.maximum(log_probability, -1.0))))
        middle = np.log(-np.log1p(-np.exp(np.clip(log_probability, TINY_LOG_PROBABILITY, -0.5))))
    found = np.where(log_probability > -np.log(2), near_one, middle)
    return np.where(log_probability < TINY_LOG_PROBABILITY, log_probability, found)


def _places(buckets: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Returns where each name occurs."""
    places: dict[Hashable, list[int]] = {}
    for place, name in enumerate(buckets):
        places.setdefault(name, []).append(place)
    return places


def _bucket(length: int) -> int:
    """Returns the smallest power of two that is at least `length` and `SMALLEST_BUCKET`."""
    return max(SMALLEST_BUCKET, 1 << max(0, length - 1).bit_length())


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """float64[T, K] → float64[T, 1]."""
    highest = values.max(axis=-1, keepdims=True)
    return highest + np.log(np.exp(values - highest).sum(axis=-1, keepdims=True))

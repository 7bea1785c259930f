"""Scoring requests and their results.

Source: docs/reference/evaluation_and_release.md §2.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apertus_jax.errors import UserError

TokenIds = Sequence[int] | np.ndarray


@dataclasses.dataclass(frozen=True)
class ScoringRequest:
    """A likelihood request: `continuation` after `context`. Token ids; both have at least one."""

    context: TokenIds
    continuation: TokenIds


@dataclasses.dataclass(frozen=True)
class Scored:
    """The answer to one request whose continuation has n tokens.

    Attributes:
      log_likelihood: sum of `log_probabilities` in float64, nats.
      is_greedy: every token is the most probable one at its place (the lowest id among equals).
      log_probabilities: float32[n], log p of each continuation token.
      means: float32[n], mean of log p over the vocabulary under p, which is minus the entropy; None unless asked for.
      deviations: float32[n], standard deviation of log p under p (docs/reference/evaluation_and_release.md §3.7); None
      unless asked for.
    """

    log_likelihood: float
    is_greedy: bool
    log_probabilities: np.ndarray
    means: np.ndarray | None = None
    deviations: np.ndarray | None = None


def join_scored(parts: Sequence[Scored]) -> Scored:
    """Returns the answer for a text from those of its consecutive pieces; no piece gives an empty, greedy answer."""

    def joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
        given = [array for array in arrays if array is not None]
        return _concatenated(given) if len(given) == len(arrays) else None

    log_probabilities = _concatenated([part.log_probabilities for part in parts])
    return Scored(
        log_likelihood=float(log_probabilities.sum(dtype=np.float64)),
        is_greedy=all(part.is_greedy for part in parts),
        log_probabilities=log_probabilities,
        means=joined([part.means for part in parts]),
        deviations=joined([part.deviations for part in parts]),
    )


def _concatenated(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *arrays])


def rolling_windows(tokens: TokenIds, prefix_token: int, longest: int) -> list[ScoringRequest]:
    """Cuts a text into requests that together score every token exactly once.

    The first window begins with `prefix_token`; every later one begins with the last token of the window before it,
    but the last window reaches back so that its tokens see as much context as fits.

    Source: docs/reference/evaluation_and_release.md §2.1.

    Args:
      tokens: ids of the text without the prefix; may be empty.
      prefix_token: what stands before the text, usually <s>.
      longest: most tokens that one forward pass reads, at least 1.

    Raises:
      UserError: longest is below 1.
    """
    if longest < 1:
        raise UserError(f"longest={longest} must be at least 1 token")
    requests = []
    for start in range(0, len(tokens), longest):
        end = min(start + longest, len(tokens))
        if start == 0:
            context: TokenIds = [prefix_token]
        else:
            context = tokens[end - longest - 1 : start]
        requests.append(ScoringRequest(context, tokens[start:end]))
    return requests


def model_input(request: ScoringRequest, number: int, longest: int, vocab_size: int) -> tuple[np.ndarray, int]:
    """Returns what the model reads, int32[T] with T ≤ longest, and the last token to predict.

    Of a request longer than longest + 1 ids the first ones are left out
    (docs/reference/evaluation_and_release.md §2.1); all but the last are read.

    Args:
      request: what is asked.
      number: its place, for errors.
      longest: most tokens that one forward pass reads.
      vocab_size: ids are below this.

    Raises:
      UserError: nothing to predict, nothing to predict it from, a continuation longer than `longest`, or an id outside
        the vocabulary.
    """
    if len(request.continuation) == 0:
        raise UserError(f"request {number} has an empty continuation; there is nothing to score")
    if len(request.context) == 0:
        raise UserError(f"request {number} has an empty context; begin it with a prefix token such as <s>")
    if len(request.continuation) > longest:
        raise UserError(
            f"request {number} has a continuation of {len(request.continuation)} tokens, longer than the context of "
            f"{longest}; shorten it or score it in rolling windows"
        )
    kept = max(longest + 1 - len(request.continuation), 0)
    ids = np.concatenate([np.asarray(request.context)[-kept:], np.asarray(request.continuation)])
    if ids.min() < 0 or ids.max() >= vocab_size:
        outside = ids[(ids < 0) | (ids >= vocab_size)][0]
        raise UserError(
            f"request {number} holds token id {outside}, outside the vocabulary of {vocab_size}; encode it with the "
            "model's own tokenizer"
        )
    return ids[:-1].astype(np.int32), int(ids[-1])

"""What is asked of the scoring engine and what it answers (evaluation spec §2.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ScoringRequest:
    """How likely is `continuation` after `context`? Token ids; both have at least one."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Scored:
    """The answer to one request whose continuation has n tokens.

    Attributes:
      log_likelihood: sum of `log_probabilities` in float64, nats.
      is_greedy: every token is the most probable one at its place (the lowest id among equals).
      log_probabilities: float32[n], log p of each continuation token.
      means: float32[n], mean of log p over the vocabulary under p, which is minus the entropy; None unless asked for.
      deviations: float32[n], standard deviation of log p under p (evaluation spec §3.7); None unless asked for.
    """

    log_likelihood: float
    is_greedy: bool
    log_probabilities: np.ndarray
    means: np.ndarray | None = None
    deviations: np.ndarray | None = None


def join_scored(parts: Sequence[Scored]) -> Scored:
    """Returns the answer for a text from those of its consecutive pieces; no piece gives an empty, greedy answer."""

    def joined(name: str) -> np.ndarray | None:
        arrays = [getattr(part, name) for part in parts]
        if any(array is None for array in arrays):
            return None
        return np.concatenate([np.zeros(0, np.float32), *arrays])

    log_probabilities = joined("log_probabilities")
    return Scored(
        log_likelihood=float(log_probabilities.sum(dtype=np.float64)),
        is_greedy=all(part.is_greedy for part in parts),
        log_probabilities=log_probabilities,
        means=joined("means"),
        deviations=joined("deviations"),
    )


def rolling_windows(tokens: Sequence[int], prefix_token: int, longest: int) -> list[ScoringRequest]:
    """Cuts a text into requests that together score every token exactly once (evaluation spec §2.1).

    The first window begins with `prefix_token`; every later one begins with the last token of the window before it,
    but the last window reaches back so that its tokens see as much context as fits.

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
            context: Sequence[int] = [prefix_token]
        else:
            context = tokens[end - longest - 1 : start]
        requests.append(ScoringRequest(context, tokens[start:end]))
    return requests


def model_input(request: ScoringRequest, number: int, longest: int, vocab_size: int) -> tuple[np.ndarray, int]:
    """Returns what the model reads, int32[T] with T ≤ longest, and the last token to predict.

    Of a request longer than longest + 1 ids the first ones are left out (evaluation spec §2.1); all but the last are
    read.

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

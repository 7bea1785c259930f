"""Batched decoding of prompts: padded batches in, lists of tokens out.

Shapes are rounded up to powers of two, so a handful of compiled programs serves all lengths.

Source: docs/reference/evaluation_and_release.md §2.4.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.inference.program import Program, Request, State, continue_batch, decode_batch
from apertus_jax.inference.sampling import Sampling
from apertus_jax.inference.unrolled import is_unrolled, unknown_part, unroll_layers
from apertus_jax.model.config import ModelConfig
from apertus_jax.validation import require_seed, require_whole_number

Array = jax.Array
SMALLEST_BUCKET = 16
# New tokens between two questions to `is_finished`.
CHECK_EVERY = 16
_log = logging.getLogger(__name__)


def bucket(size: int, smallest: int = SMALLEST_BUCKET) -> int:
    """Returns the smallest power of two that is at least `size` and `smallest`."""
    return max(smallest, 1 << max(0, size - 1).bit_length())


def generate_tokens(
    config: ModelConfig,
    params: Mapping[str, Any],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int] = 64,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    stop_tokens: Sequence[int] = (),
    seed: int = 0,
    row_seeds: Sequence[int] | None = None,
    batch_size: int = 8,
    cache_dtype: str | None = None,
    is_finished: Callable[[int, list[int]], bool] | None = None,
) -> list[list[int]]:
    """Returns the continuation of every prompt, in order, without the prompt.

    A continuation has exactly `max_new_tokens` tokens unless a stop token ends it, which is then its last token. For
    continuations of exactly S tokens give no stop tokens, or min_new_tokens = max_new_tokens = S: then stop tokens are
    never drawn. Results do not depend on `batch_size`, nor on which prompts come together: each prompt has random
    numbers of its own. `generate_texts` adds stop strings.

    Args:
      config: the architecture.
      params: the plain parameter tree; NumPy, or jax arrays placed on any mesh.
      prompts: token ids, at least one each.
      max_new_tokens: new tokens of every prompt, or one number per prompt.
      min_new_tokens: stop tokens cannot be drawn before so many; the draw is from the other tokens.
      temperature: 0 is greedy; see `Sampling` for the three.
      top_k: None keeps all tokens.
      top_p: 1 keeps all tokens.
      stop_tokens: ids that end a continuation.
      seed: of the whole call.
      row_seeds: one number per prompt that, with `seed`, decides its draws; None means its place in `prompts`.
      batch_size: prompts decoded together.
      cache_dtype: type of the cache; None means config.compute_dtype.
      is_finished: asked after every `CHECK_EVERY` tokens, with the place of a prompt and its new tokens so far, whether
        the prompt needs no more of them; it may get up to `CHECK_EVERY` - 1 tokens more than it needs.

    Raises:
      UserError: an empty prompt, a token id outside the vocabulary, a prompt and continuation longer than the context,
        or logits that are not finite; the message names the prompt.
    """
    sampling = Sampling(temperature, top_k, top_p)
    if isinstance(max_new_tokens, Sequence | np.ndarray) and not isinstance(max_new_tokens, str):
        limits = list(max_new_tokens)
    else:
        limits = [max_new_tokens] * len(prompts)
    seeds = list(range(len(prompts))) if row_seeds is None else list(row_seeds)
    _check_request(config, prompts, limits, seeds, stop_tokens, batch_size)
    require_whole_number("min_new_tokens", min_new_tokens, at_least=0)
    require_seed("seed", seed)
    if limits and min_new_tokens > max(limits):
        raise UserError(f"min_new_tokens={min_new_tokens} must be between 0 and max_new_tokens; change one of them")
    params = decoding_parameters(config, params)
    results: list[list[int]] = [[] for _ in prompts]
    # Rows of similar length share a batch, so little of it is padding.
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), limits[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        request = _pad_request(config, prompts, limits, seeds, rows, stop_tokens, min_new_tokens, seed, sampling)
        program = Program(
            config=config,
            output_length=bucket(max(limits[row] for row in rows)),
            cache_dtype=cache_dtype,
            greedy=sampling.greedy,
            truncated=sampling.truncated,
            has_minimum=min_new_tokens > 0,
            axis_rules=tuple(nn.get_logical_axis_rules()),
        )
        outputs, counts, finite = _run_batch(params, request, program, rows, is_finished)
        for place, row in enumerate(rows):
            if not finite[place]:
                raise UserError(
                    f"prompt {row} gave logits that are not finite after {int(counts[place])} new tokens; "
                    "the parameters are damaged or training had diverged"
                )
            results[row] = outputs[place, : counts[place]].tolist()
    return results


def decoding_parameters(config: ModelConfig, params: Mapping[str, Any], unroll: bool | None = None) -> dict[str, Any]:
    """Returns the parameters as decoding wants them: on the device, matrices in compute_dtype, layers apart.

    Only `kernel` and `embedding` leaves change type: the model rounds exactly those before use, so results are the
    same. Do this once before several calls of `generate_tokens`, which otherwise does it in each. A line is logged that
    says what decodes: the model's own module, or the unrolled layers.

    Args:
      config: the architecture.
      params: the plain parameter tree; what this function returned is returned as it is.
      unroll: hold each layer's parameters apart (see `inference.unrolled`); None means on CPU, and only when they
        know the feedforward and every parameter.

    Raises:
      UserError: `unroll` for a model that the unrolled layers do not know.
    """
    if is_unrolled(params):
        return dict(params)

    def convert(path: tuple[Any, ...], leaf: Any) -> Array:
        leaf = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
        return leaf.astype(config.compute_dtype) if path[-1].key in ("kernel", "embedding") else leaf

    converted = jax.tree_util.tree_map_with_path(convert, dict(params))
    unknown = unknown_part(config, converted)
    if unroll and unknown:
        raise UserError(f"unrolled decoding does not know {unknown}; leave unroll=None")
    if unroll is None:
        unroll = jax.default_backend() == "cpu" and unknown is None
        _log_once(jax.default_backend(), unroll, unknown)
    return unroll_layers(converted) if unroll else converted


@functools.cache
def _log_once(backend: str, unroll: bool, unknown: str | None) -> None:
    how = "unrolled layers" if unroll else "the model's own module"
    why = f" (the unrolled layers do not know {unknown})" if backend == "cpu" and unknown else ""
    _log.info("decoding on %s with %s%s", backend, how, why)


def _run_batch(params, request: Request, program: Program, rows, is_finished) -> tuple[np.ndarray, ...]:
    """Decodes one padded batch: → tokens int32 [B,O], how many of them count int32 [B], finite logits bool [B]."""
    until = program.output_length if is_finished is None else CHECK_EVERY
    state = decode_batch(params, request, np.int32(until), program)
    while is_finished is not None:
        done = _ask(state, rows, is_finished)
        if done.all() or until >= program.output_length:
            break
        until += CHECK_EVERY
        state = continue_batch(params, request, state._replace(done=done), np.int32(until), program)
    return np.asarray(state.outputs), np.asarray(state.counts), np.asarray(state.finite)


def _ask(state: State, rows: Sequence[int], is_finished: Callable[[int, list[int]], bool]) -> np.ndarray:
    """Returns which rows are done, with those that `is_finished` says are: bool [B]."""
    outputs, counts, done = np.asarray(state.outputs), np.asarray(state.counts), np.array(state.done)
    for place, row in enumerate(rows):
        done[place] = done[place] or is_finished(row, outputs[place, : counts[place]].tolist())
    return done


def _check_request(config, prompts, limits, seeds, stop_tokens, batch_size) -> None:
    require_whole_number("batch_size", batch_size, at_least=1, at_most=2**20)
    for limit in limits:
        require_whole_number("max_new_tokens", limit, at_least=0, at_most=2**31 - 1)
    for name, values in (("max_new_tokens", limits), ("row_seeds", seeds)):
        if len(values) != len(prompts):
            raise UserError(f"{name} has {len(values)} numbers for {len(prompts)} prompts; give one each")
    for token in stop_tokens:
        if not 0 <= token < config.vocab_size:
            raise UserError(f"stop token {token} is outside the vocabulary of {config.vocab_size} tokens")
    for row, prompt in enumerate(prompts):
        if not 0 <= seeds[row] < 2**32:
            raise UserError(f"row_seeds[{row}]={seeds[row]} must be between 0 and 2**32 - 1")
        if len(prompt) == 0:
            raise UserError(f"prompt {row} is empty; begin it with at least one token, such as <s>")
        if len(prompt) + limits[row] > config.max_position_embeddings:
            raise UserError(
                f"prompt {row} has {len(prompt)} tokens and {limits[row]} new ones are wanted, but the context is "
                f"{config.max_position_embeddings}; shorten one of them"
            )
        outside = [token for token in prompt if not 0 <= token < config.vocab_size]
        if outside:
            raise UserError(
                f"prompt {row} holds token id {outside[0]}, outside the vocabulary of {config.vocab_size}; "
                "encode it with the model's own tokenizer"
            )


def _pad_request(
    config, prompts, limits, seeds, rows, stop_tokens, min_new_tokens, seed, sampling: Sampling
) -> Request:
    size = bucket(len(rows), smallest=1)
    tokens = np.zeros((size, bucket(max(len(prompts[row]) for row in rows))), np.int32)
    lengths, row_limits = np.ones(size, np.int32), np.zeros(size, np.int32)
    row_seeds = np.zeros(size, np.uint32)
    for place, row in enumerate(rows):
        tokens[place, : len(prompts[row])] = prompts[row]
        lengths[place], row_limits[place], row_seeds[place] = len(prompts[row]), limits[row], seeds[row]
    stops = np.full(bucket(len(stop_tokens), smallest=4), config.vocab_size, np.int32)
    stops[: len(stop_tokens)] = stop_tokens
    return Request(
        tokens=tokens,
        lengths=lengths,
        limits=row_limits,
        minimum=np.int32(min_new_tokens),
        stop_tokens=stops,
        row_seeds=row_seeds,
        seed=np.uint32(seed),
        temperature=np.float32(sampling.temperature),
        top_k=np.int32(config.vocab_size if sampling.top_k is None else sampling.top_k),
        top_p=np.float32(sampling.top_p),
    )

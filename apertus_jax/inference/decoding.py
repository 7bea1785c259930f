"""Continuing prompts: prefill and decoding in one compiled program (evaluation spec §2.4).

Prompts of a batch are padded on the right and each row keeps its own length. The cache is filled with whole prompts;
then the loop starts from each row's last prompt token, so every new token of every row comes from the same one-token
step, and a padding slot is overwritten before any token can read it. Shapes are rounded up to powers of two, so a
handful of compiled programs serves all lengths.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.inference.cache import init_cache
from apertus_jax.inference.sampling import Sampling, draw, filtered_logits, row_keys
from apertus_jax.inference.unrolled import decode_unrolled, is_unrolled, unroll_layers
from apertus_jax.model import Transformer
from apertus_jax.model.config import ModelConfig

Array = jax.Array
Cache = dict[str, Array] | tuple[dict[str, Array], ...]
SMALLEST_BUCKET = 16
# Attention scores of the prefill are [B, N, chunk, S]; prompts are read in chunks so that they never are [B, N, S, S].
PREFILL_CHUNK = 512


class Request(NamedTuple):
    """A padded batch: what the compiled program is told."""

    tokens: Any  # int32 [B,P], padded on the right
    lengths: Any  # int32 [B], at least 1
    limits: Any  # int32 [B], new tokens wanted; 0 for rows that only fill the batch
    minimum: Any  # int32 [], stop tokens are not drawn before so many new tokens
    stop_tokens: Any  # int32 [E], filled up with vocab_size
    row_seeds: Any  # uint32 [B]
    seed: Any  # uint32 []
    temperature: Any  # float32 []
    top_k: Any  # int32 []
    top_p: Any  # float32 []


class State(NamedTuple):
    """What one step of the loop hands to the next."""

    step: Array  # int32 []
    current: Array  # int32 [B], the newest token of each row
    cache: Cache  # [L,B,S,K,H] each, or one [B,S,K,H] pair per layer
    outputs: Array  # int32 [B,O]
    counts: Array  # int32 [B], new tokens so far
    done: Array  # bool [B]
    finite: Array  # bool [B], False once logits were NaN or infinite


@dataclasses.dataclass(frozen=True)
class Program:
    """What is fixed in a compiled program, besides the shapes of its request."""

    config: ModelConfig
    output_length: int
    cache_dtype: str | None
    greedy: bool
    truncated: bool
    has_minimum: bool
    # The table of axis names in force shapes the program but is no part of jit's own key.
    axis_rules: tuple[Any, ...]


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
) -> list[list[int]]:
    """Returns the continuation of every prompt, in order, without the prompt.

    A continuation has exactly `max_new_tokens` tokens unless a stop token ends it, which is then its last token.
    Results do not depend on `batch_size`, nor on which prompts come together.

    Args:
      config: the architecture.
      params: the plain parameter tree; NumPy, or jax arrays placed on any mesh.
      prompts: token ids, at least one each.
      max_new_tokens: new tokens of every prompt, or one number per prompt.
      min_new_tokens: stop tokens cannot be drawn before so many.
      temperature: 0 is greedy; see `Sampling` for the three.
      top_k: None keeps all tokens.
      top_p: 1 keeps all tokens.
      stop_tokens: ids that end a continuation.
      seed: of the whole call.
      row_seeds: one number per prompt that, with `seed`, decides its draws; None means its place in `prompts`.
      batch_size: prompts decoded together.
      cache_dtype: type of the cache; None means config.compute_dtype.

    Raises:
      UserError: an empty prompt, a token id outside the vocabulary, a prompt and continuation longer than the context,
        or logits that are not finite; the message names the prompt.
    """
    sampling = Sampling(temperature, top_k, top_p)
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, numbers.Integral) else list(max_new_tokens)
    seeds = list(range(len(prompts))) if row_seeds is None else list(row_seeds)
    _check_request(config, prompts, limits, seeds, stop_tokens, batch_size)
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
        outputs, counts, finite = map(np.asarray, _decode_batch(params, request, program))
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
    same. Do this once before several calls of `generate_tokens`, which otherwise does it in each.

    Args:
      config: the architecture.
      params: the plain parameter tree; what this function returned is returned as it is.
      unroll: hold each layer's parameters apart (see `inference.unrolled`); None means on CPU only.
    """
    if is_unrolled(params):
        return dict(params)

    def convert(path: tuple[Any, ...], leaf: Any) -> Array:
        leaf = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
        return leaf.astype(config.compute_dtype) if path[-1].key in ("kernel", "embedding") else leaf

    converted = jax.tree_util.tree_map_with_path(convert, dict(params))
    if unroll is None:
        unroll = jax.default_backend() == "cpu"
    return unroll_layers(converted) if unroll else converted


def _check_request(config, prompts, limits, seeds, stop_tokens, batch_size) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be at least 1")
    for name, values in (("max_new_tokens", limits), ("row_seeds", seeds)):
        if len(values) != len(prompts):
            raise UserError(f"{name} has {len(values)} numbers for {len(prompts)} prompts; give one each")
    for token in stop_tokens:
        if not 0 <= token < config.vocab_size:
            raise UserError(f"stop token {token} is outside the vocabulary of {config.vocab_size} tokens")
    for row, prompt in enumerate(prompts):
        if not 0 <= seeds[row] < 2**32:
            raise UserError(f"row_seeds[{row}]={seeds[row]} must be between 0 and 2**32 - 1")
        if limits[row] < 0:
            raise UserError(f"max_new_tokens={limits[row]} for prompt {row} must not be negative")
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


@functools.partial(jax.jit, static_argnames="program")
def _decode_batch(params, request: Request, program: Program) -> tuple[Array, Array, Array]:
    """Runs one padded batch: → tokens int32 [B,O], how many of them count int32 [B], whether logits stayed finite."""
    config = program.config
    batch_size, prompt_length = request.tokens.shape
    cache = init_cache(config, batch_size, prompt_length + program.output_length, program.cache_dtype)
    if is_unrolled(params):
        cache = tuple({name: leaf[layer] for name, leaf in cache.items()} for layer in range(config.num_layers))
    keys = None if program.greedy else row_keys(request.seed, request.row_seeds)

    def step(state: State) -> State:
        slots = request.lengths - 1 + state.step
        logits, cache = _decode(config, params, state.current[:, None], slots[:, None], state.cache, slots)
        logits = logits[:, 0]
        finite = state.finite & (state.done | jnp.isfinite(logits).all(axis=-1))
        if program.has_minimum:
            stops = jnp.where(state.step < request.minimum, request.stop_tokens, config.vocab_size)
            logits = logits.at[:, stops].set(-jnp.inf, mode="drop")
        if program.greedy:
            chosen = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            kept = filtered_logits(logits, request.temperature, request.top_k, request.top_p, program.truncated)
            chosen = draw(keys, state.step, kept)
        live = ~state.done & finite
        counts = state.counts + live
        stopped = (chosen[:, None] == request.stop_tokens).any(axis=-1)
        return State(
            step=state.step + 1,
            current=chosen,
            cache=cache,
            outputs=state.outputs.at[:, state.step].set(jnp.where(live, chosen, 0)),
            counts=counts,
            done=state.done | ~finite | stopped | (counts >= request.limits),
            finite=finite,
        )

    start = State(
        step=jnp.int32(0),
        current=jnp.take_along_axis(request.tokens, request.lengths[:, None] - 1, axis=1)[:, 0],
        cache=_prefill(params, request, cache, config),
        outputs=jnp.zeros((batch_size, program.output_length), jnp.int32),
        counts=jnp.zeros(batch_size, jnp.int32),
        done=request.limits <= 0,
        finite=jnp.ones(batch_size, bool),
    )
    end = jax.lax.while_loop(lambda state: ~state.done.all() & (state.step < program.output_length), step, start)
    return end.outputs, end.counts, end.finite


def _decode(
    config: ModelConfig, params, tokens: Array, positions: Array, cache: Cache, cache_index: Array
) -> tuple[Array, Cache]:
    """tokens, positions int32 [B,T], cache_index int32 [B] → (float32 [B,T,V], the new cache)."""
    if is_unrolled(params):
        return decode_unrolled(config, params, tokens, positions, cache, cache_index)
    return Transformer(config).apply(
        {"params": params}, tokens, positions=positions, cache=cache, cache_index=cache_index, method="decode"
    )


def _prefill(params, request: Request, cache: Cache, config: ModelConfig) -> Cache:
    """Fills the cache with all prompts but their last tokens, chunk by chunk; logits are not computed."""
    batch_size, prompt_length = request.tokens.shape
    chunk = min(PREFILL_CHUNK, prompt_length)

    def fill(number: Array, cache: Cache) -> Cache:
        start = jnp.full(batch_size, number * chunk, jnp.int32)
        tokens = jax.lax.dynamic_slice_in_dim(request.tokens, number * chunk, chunk, axis=1)
        positions = start[:, None] + jnp.arange(chunk, dtype=jnp.int32)
        return _decode(config, params, tokens, positions, cache, start)[1]

    # The last prompt token is read by the first step of the loop, so prompts of one token need no prefill at all.
    num_chunks = (jnp.max(request.lengths) - 1 + chunk - 1) // chunk
    return jax.lax.fori_loop(0, num_chunks, fill, cache)

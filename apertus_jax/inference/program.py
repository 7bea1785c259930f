"""Compiled decoding: prefill and the loop of single steps, one program a batch shape.

Prompts of a batch are padded on the right and each row keeps its own length. The cache is filled with whole prompts;
then the loop starts from each row's last prompt token, so every new token of every row comes from the same one-token
step, and a padding slot is overwritten before any token can read it.

Source: docs/reference/evaluation_and_release.md §2.4.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from apertus_jax.inference.cache import init_cache
from apertus_jax.inference.sampling import draw, filtered_logits, largest, row_keys
from apertus_jax.inference.unrolled import decode_unrolled, init_unrolled_cache, is_unrolled
from apertus_jax.model import Transformer
from apertus_jax.model.config import ModelConfig

Array = jax.Array
Cache = dict[str, Array] | tuple[dict[str, Array], ...]
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
    """Loop state of decoding."""

    step: Array  # int32 []
    current: Array  # int32 [B], the newest token of each row
    cache: Cache  # see `init_cache` and `init_unrolled_cache`
    outputs: Array  # int32 [B,O]
    counts: Array  # int32 [B], new tokens so far
    done: Array  # bool [B]
    finite: Array  # bool [B], False once logits were NaN or infinite


@dataclasses.dataclass(frozen=True)
class Program:
    """Static arguments of a compiled decoding program, besides the shapes of its request."""

    config: ModelConfig
    output_length: int
    cache_dtype: str | None
    greedy: bool
    truncated: bool
    has_minimum: bool
    # The table of axis names in force shapes the program but is no part of jit's own key.
    axis_rules: tuple[Any, ...]


@functools.partial(jax.jit, static_argnames="program")
def decode_batch(params, request: Request, until: Array, program: Program) -> State:
    """Reads the prompts and makes new tokens until all rows are done or have `until` (int32 []) of them."""
    config = program.config
    batch_size, prompt_length = request.tokens.shape
    new_cache = init_unrolled_cache if is_unrolled(params) else init_cache
    cache = new_cache(config, batch_size, prompt_length + program.output_length, program.cache_dtype)
    state = State(
        step=jnp.int32(0),
        current=jnp.take_along_axis(request.tokens, request.lengths[:, None] - 1, axis=1)[:, 0],
        cache=prefill(params, request, cache, config),
        outputs=jnp.zeros((batch_size, program.output_length), jnp.int32),
        counts=jnp.zeros(batch_size, jnp.int32),
        done=request.limits <= 0,
        finite=jnp.ones(batch_size, bool),
    )
    return _make_tokens(params, request, state, until, program)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="state")
def continue_batch(params, request: Request, state: State, until: Array, program: Program) -> State:
    """Goes on from a state that `decode_batch` or this function returned; the state is used up."""
    return _make_tokens(params, request, state, until, program)


def _make_tokens(params, request: Request, state: State, until: Array, program: Program) -> State:
    config = program.config
    keys = None if program.greedy else row_keys(request.seed, request.row_seeds)

    def step(state: State) -> State:
        slots = request.lengths - 1 + state.step
        logits, cache = decode(config, params, state.current[:, None], slots[:, None], state.cache, slots)
        logits = logits[:, 0]
        finite = state.finite & (state.done | jnp.isfinite(logits).all(axis=-1))
        if program.has_minimum:
            stops = jnp.where(state.step < request.minimum, request.stop_tokens, config.vocab_size)
            logits = logits.at[:, stops].set(-jnp.inf, mode="drop")
        if keys is None:
            chosen = largest(logits)
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

    last = jnp.minimum(until, program.output_length)
    return jax.lax.while_loop(lambda state: ~state.done.all() & (state.step < last), step, state)


def decode(
    config: ModelConfig, params, tokens: Array, positions: Array, cache: Cache, cache_index: Array
) -> tuple[Array, Cache]:
    """tokens, positions int32 [B,T], cache_index int32 [B] → (float32 [B,T,V], the new cache)."""
    if is_unrolled(params):
        assert isinstance(cache, tuple)  # of `init_unrolled_cache`
        return decode_unrolled(config, params, tokens, positions, cache, cache_index)
    decoded: Any = Transformer(config).apply(
        {"params": params}, tokens, positions=positions, cache=cache, cache_index=cache_index, method="decode"
    )
    return decoded


def prefill(params, request: Request, cache: Cache, config: ModelConfig) -> Cache:
    """Fills the cache with all prompts but their last tokens, chunk by chunk; logits are not computed."""
    batch_size, prompt_length = request.tokens.shape
    chunk = min(PREFILL_CHUNK, prompt_length)

    def fill(number: Array, cache: Cache) -> Cache:
        start = jnp.full(batch_size, number * chunk, jnp.int32)
        tokens = jax.lax.dynamic_slice_in_dim(request.tokens, number * chunk, chunk, axis=1)
        positions = start[:, None] + jnp.arange(chunk, dtype=jnp.int32)
        return decode(config, params, tokens, positions, cache, start)[1]

    # The last prompt token is read by the first step of the loop, so prompts of one token need no prefill at all.
    num_chunks = (jnp.max(request.lengths) - 1 + chunk - 1) // chunk
    return jax.lax.fori_loop(0, num_chunks, fill, cache)

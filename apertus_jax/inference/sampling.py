"""Sampling: greedy, temperature, top-k and top-p, from logits to the next token."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from apertus_jax.validation import require_number, require_whole_number

Array = jax.Array
LARGEST_TEMPERATURE = 1e30  # float32 divides by it


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling settings. Temperature 0 is greedy: the largest logit, the lowest id among equals.

    Otherwise, in this order: logits are divided by `temperature`; only the `top_k` largest stay (None: all); of what
    stays, renormalised and sorted from the most probable, the shortest prefix whose probability reaches `top_p` stays,
    so the token that crosses the line is in, and at least one is; the draw is from that prefix, renormalised. Among
    equal logits the lower id comes first.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        require_number("temperature", self.temperature, at_least=0, at_most=LARGEST_TEMPERATURE)
        require_whole_number("top_k", self.top_k, at_least=1, at_most=2**31 - 1, optional=True)
        require_number("top_p", self.top_p, above=0, at_most=1)

    @property
    def greedy(self) -> bool:
        """Whether no randomness is involved."""
        return self.temperature == 0.0

    @property
    def truncated(self) -> bool:
        """Whether top_k or top_p takes tokens away."""
        return not self.greedy and (self.top_k is not None or self.top_p < 1.0)


def keep_most_probable(logits: Array, top_k: Array, top_p: Array) -> Array:
    """Returns which tokens stay: float32 [B,V] (already divided by temperature), int32 [], float32 [] → bool [B,V]."""
    order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    in_top_k = jnp.arange(logits.shape[-1]) < top_k
    probabilities = jax.nn.softmax(jnp.where(in_top_k, ranked, -jnp.inf), axis=-1)
    mass_before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # Rounding may bring the whole sum below 1, or the mass before the tail to 1: p = 1 keeps everything regardless.
    in_top_p = (mass_before < top_p) | (top_p >= 1.0)
    kept = in_top_k & in_top_p.at[:, 0].set(True)
    rows = jnp.arange(logits.shape[0])[:, None]
    return jnp.zeros(logits.shape, bool).at[rows, order].set(kept)


def filtered_logits(logits: Array, temperature: Array, top_k: Array, top_p: Array, truncated: bool) -> Array:
    """Returns unnormalised log-probabilities of the draw, -inf for what was taken away: float32 [B,V] → float32 [B,V].

    `truncated` is static and spares the sort when neither top_k nor top_p is in use.
    """
    scaled = logits / temperature
    if not truncated:
        return scaled
    return jnp.where(keep_most_probable(scaled, top_k, top_p), scaled, -jnp.inf)


def largest(logits: Array) -> Array:
    """Returns the id of the largest logit, the lowest among equals: float32 [B,V] → int32 [B]; V where it is NaN.

    Two plain reductions: XLA:CPU does not vectorise the one of argmax.
    """
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    highest = logits.max(axis=-1, keepdims=True)
    return jnp.where(logits == highest, ids, logits.shape[-1]).min(axis=-1)


def row_keys(seed: int, row_seeds: Array) -> Array:
    """Returns one random key per row, from the seed and the row's own number: uint32 [B] → keys [B]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed, impl="threefry2x32"), row_seeds)


def draw(keys: Array, step: Array, log_probabilities: Array) -> Array:
    """Draws one token per row: keys [B], step int32 [], float32 [B,V] → int32 [B].

    A row's draw depends on its key, the step and its own logits only, so not on which rows share its batch.
    """
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
    return jax.vmap(jax.random.categorical)(step_keys, log_probabilities).astype(jnp.int32)

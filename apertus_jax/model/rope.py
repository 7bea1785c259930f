"""Rotary position embeddings (RoPE) with the llama3 frequency rule.

Angles reach 60,000 radians, where one float32 step of a frequency already turns a pair by 0.004 radians. So the
frequencies are made once on the host, with the roundings the published weights were trained and served under: a
float64 power, rounded to float32, and every later operation in float32. Cosine and sine are left to XLA: its range
reduction is exact to half a unit in the last place up to 1e8 radians, as tests/model/test_rope.py shows.

Source: docs/reference/model_and_training.md §3; arXiv 2509.14233 §2.1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.model.config import RopeScaling

Array = jax.Array


def inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
    """Radians per position of each rotated pair: float32 [H/2].

    Source: docs/reference/model_and_training.md §3.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.float32(1.0) / powers
    return frequencies if scaling is None else _slow_low_frequencies(frequencies, scaling)


def _slow_low_frequencies(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """The llama3 rule: keep short waves, divide long ones by the factor, blend between."""
    original = np.float32(scaling.original_max_position_embeddings)
    low, high = np.float32(scaling.low_frequency_factor), np.float32(scaling.high_frequency_factor)
    factor = np.float32(scaling.factor)
    wavelengths = np.float32(2 * np.pi) / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    blended = (np.float32(1) - smooth) * frequencies / factor + smooth * frequencies
    return np.select(
        [wavelengths < original / high, wavelengths > original / low],
        [frequencies, frequencies / factor],
        blended,
    ).astype(np.float32)


def rotary_tables(positions: Array, frequencies: np.ndarray, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Cosine and sine of `position * frequency`, in float32 and then rounded to `dtype`: [B,T] → two of [B,T,H/2]."""
    angles = positions.astype(jnp.float32)[..., None] * jnp.asarray(frequencies)
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)


def apply_rotary(heads: Array, cosine: Array, sine: Array) -> Array:
    """Rotate the pairs (i, i + H/2) of every head: [B,T,N,H], two of [B,T,H/2] → [B,T,N,H].

    Source: docs/reference/model_and_training.md §3.
    """
    first, second = jnp.split(heads, 2, axis=-1)
    cosine, sine = cosine[..., None, :], sine[..., None, :]
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def positions_from_segments(segment_ids: Array) -> Array:
    """Position within the document, starting at 0 wherever the segment id changes: int32 [B,T] → int32 [B,T]."""
    slots = jnp.arange(segment_ids.shape[-1], dtype=jnp.int32)
    first = jnp.ones_like(segment_ids[:, :1], dtype=bool)
    starts = jnp.concatenate([first, segment_ids[:, 1:] != segment_ids[:, :-1]], axis=-1)
    return slots - jax.lax.cummax(jnp.where(starts, slots, 0), axis=1)

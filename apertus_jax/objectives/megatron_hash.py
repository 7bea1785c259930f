"""Published Goldfish hash, bit for bit, on devices with 32-bit integers only.

The key of a label is the product of the last h labels in 64-bit two's complement, reduced modulo 1,000,003. The product
is carried in two uint32 limbs. The table of uniform numbers never reaches the device: for a given k it is one bit per
key, 125 kB in all.

Source: docs/reference/model_and_training.md §5.1.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.objectives.windows import Array, fold_windows

TABLE_SIZE = 1_000_003
TABLE_SEED = 2_971_215_073
TABLE_BITS = 24
_TABLE_SHA256 = "d5226756f7567ac042242828d55191d14384df78b0df990afd3d2162ecbdde43"

Limbs = tuple[jax.Array, jax.Array]


@functools.cache
def hash_table() -> np.ndarray:
    """The table as integers: uint32[1000003], each the published float32 entry times 2**24.

    Raises RuntimeError if NumPy's Mersenne Twister gives other numbers than the published ones.
    """
    raw = np.random.RandomState(TABLE_SEED).randint(0, 2**32, size=TABLE_SIZE, dtype=np.uint32)
    table = raw & np.uint32(2**TABLE_BITS - 1)
    digest = hashlib.sha256(table.astype("<u4").tobytes()).hexdigest()
    if digest != _TABLE_SHA256:
        raise RuntimeError(f"Goldfish table has sha256 {digest}, expected {_TABLE_SHA256}: NumPy's MT19937 has changed")
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=8)
def packed_drops(k: int) -> np.ndarray:
    """One bit per key, uint32[31251]: bit `key % 32` of word `key // 32` is set iff table[key] < 1/k."""
    drops = hash_table().astype(np.int64) * k < 2**TABLE_BITS
    padded = np.zeros(-(-TABLE_SIZE // 32) * 32, np.uint8)
    padded[:TABLE_SIZE] = drops
    return np.packbits(padded, bitorder="little").view("<u4").astype(np.uint32)


def megatron_drops(labels: Array, k: int, h: int) -> jax.Array:
    """Labels int32[..., T] → bool[..., T], True where the published hash drops it; never one of the first h-1."""
    has_window = jnp.arange(labels.shape[-1]) >= h - 1
    return drops_of_keys(megatron_keys(labels, h), k) & has_window


def drops_of_keys(keys: jax.Array, k: int) -> jax.Array:
    """Keys int32 in [0, 1000003) → bool, True where the table's entry is below 1/k."""
    words = jnp.take(jnp.asarray(packed_drops(k)), keys >> 5, mode="clip")
    return ((words >> (keys & 31).astype(jnp.uint32)) & 1) == 1


def megatron_keys(labels: Array, h: int) -> jax.Array:
    """Labels int32[..., T] → keys int32[..., T] in [0, 1000003); meaningful from position h-1 on."""
    labels = jnp.asarray(labels, jnp.int32)
    sign_extension = jnp.where(labels < 0, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))
    product = fold_windows((sign_extension, labels.astype(jnp.uint32)), h, multiply_limbs, (0, 1))
    return floor_modulo(product).astype(jnp.int32)


def multiply_limbs(first: Limbs, second: Limbs) -> Limbs:
    """(high, low) × (high, low) modulo 2**64."""
    first_high, first_low = first
    second_high, second_low = second
    high = _high_of_product(first_low, second_low) + first_low * second_high + first_high * second_low
    return high, first_low * second_low


def _high_of_product(first: jax.Array, second: jax.Array) -> jax.Array:
    """The upper 32 bits of the 64-bit product of two uint32 arrays, by 16-bit halves that cannot overflow."""
    first_high, first_low = first >> 16, first & 0xFFFF
    second_high, second_low = second >> 16, second & 0xFFFF
    middle = first_high * second_low + ((first_low * second_low) >> 16)
    other_middle = first_low * second_high + (middle & 0xFFFF)
    return first_high * second_high + (middle >> 16) + (other_middle >> 16)


def floor_modulo(value: Limbs) -> jax.Array:
    """The 64-bit two's-complement value modulo 1000003, never negative, uint32.

    A remainder has 20 bits, so 12 more bits of the low limb can be brought down at a time.
    """
    high, low = value
    remainder = high % TABLE_SIZE
    for digits, offset in ((12, 20), (12, 8), (8, 0)):
        chunk = (low >> offset) & (2**digits - 1)
        remainder = ((remainder << digits) | chunk) % TABLE_SIZE
    is_negative = high >> 31
    return (remainder + is_negative * (TABLE_SIZE - 2**64 % TABLE_SIZE)) % TABLE_SIZE

"""Keyed 64-bit hashes of document ids, for sampling that does not depend on order, worker or neighbours."""

from __future__ import annotations

import hashlib

import numpy as np

from apertus_jax.mix64 import mix64

KEYS = 1 << 64


def document_key(document_id: str, seed: int) -> int:
    """Returns the BLAKE2b-64 of a document's identity, keyed by the seed, as an integer below 2⁶⁴."""
    key = str(seed).encode()
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8, key=key).digest(), "little")


def derived_keys(keys: np.ndarray, purpose: str, seed: int) -> np.ndarray:
    """Returns new keys from keys, one to one, so that two choices over one document are independent.

    Args:
      keys: uint64 [n].
      purpose: what is chosen; different purposes and seeds give unrelated keys.
      seed: any integer.
    """
    salt = hashlib.blake2b(f"{purpose}|{seed}".encode(), digest_size=16).digest()
    first, second = (np.frombuffer(salt[at : at + 8], "<u8").astype(np.uint64)[0] for at in (0, 8))
    values = keys.astype(np.uint64) + first
    values = mix64(values) ^ second
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return values ^ (values >> np.uint64(33))


def chosen(key: int, share: float, purpose: str, seed: int) -> bool:
    """Returns whether a document is in a random sample of `share`; the sample of a smaller share lies inside."""
    return int(derived_keys(np.array([key], np.uint64), purpose, seed)[0]) < int(share * KEYS)

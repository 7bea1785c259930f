"""Source keys: a number for the name of a source of a token store, which batches carry for loss masks."""

from __future__ import annotations

import hashlib


def source_key(name: str) -> int:
    """Returns the 32-bit key that stands for a source in batches, the same in every store."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4, person=b"source key").digest(), "little")

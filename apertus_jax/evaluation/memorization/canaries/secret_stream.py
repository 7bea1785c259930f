"""Keyed random stream (BLAKE2b in counter mode): choices that only the holder of a secret can foresee."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


class SecretStream:
    """A stream of random choices. The same secret and label give the same choices; labels are unrelated streams."""

    def __init__(self, secret: str, label: str):
        self._key = hashlib.blake2b(secret.encode(), digest_size=64).digest()
        self._label = label.encode()
        self._counter = 0
        self._buffer = b""

    def take(self, size: int) -> bytes:
        """Returns the next `size` bytes."""
        while len(self._buffer) < size:
            block = self._counter.to_bytes(8, "little") + self._label
            self._buffer += hashlib.blake2b(block, key=self._key).digest()
            self._counter += 1
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def below(self, limit: int) -> int:
        """Returns a whole number from 0 to limit − 1, all with equal probability; limit is at most 2**64."""
        accepted = 2**64 - 2**64 % limit
        while (value := int.from_bytes(self.take(8), "little")) >= accepted:
            pass
        return value % limit

    def choice(self, items: Sequence[Item]) -> Item:
        """Returns one of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Returns the items in random order (Fisher and Yates)."""
        result = list(items)
        for place in range(len(result) - 1, 0, -1):
            other = self.below(place + 1)
            result[place], result[other] = result[other], result[place]
        return result

    def word(self) -> str:
        """Returns an invented word of two or three syllables."""
        return "".join(self.choice(SYLLABLES) for _ in range(2 + self.below(2)))

    def sentences(self, words: int) -> str:
        """Returns invented words in sentences of four to eleven, each beginning with a capital; "" for no words."""
        result = []
        while words > 0:
            length = min(words, 4 + self.below(8))
            result.append(" ".join(self.word() for _ in range(length)).capitalize() + ".")
            words -= length
        return " ".join(result)

"""Anchor tables of the Goldfish strategy "cluster": the text of each id without what copies change.

Two copies of a text differ in line ends, indentation, runs of spaces, capitals, and where the tokenizer happened to
cut. So white space and control characters go, A to Z become a to z, and what is left is one stream of bytes whatever
the tokens are. Both rules look at one byte at a time: a character that is split between ids is treated as a whole one.
The tables fit on a device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from apertus_jax.errors import UserError

ANCHOR_BYTES = 8  # the bytes that decide about the last of them: two uint32
LONGEST_TEXT = 32  # holes are looked for in so many bytes of an id; only runs of one character are longer
_DROPPED_BYTES = bytes(range(0x21)) + b"\x7f"
_LOWERED = bytes(range(256)).lower()
_BISECTIONS = 60
Part = TypeVar("Part")


class VocabularyText(Protocol):
    """Protocol of what `data.vocabulary_text` returns."""

    pieces: Sequence[bytes]  # the text of each id, empty for special ones
    counts: np.ndarray  # int[V], how often each id occurs in the text that is trained on


class Window(NamedTuple, Generic[Part]):
    """The last bytes of a text, the newest lowest; arrays of one shape."""

    high: Part  # uint32, the four older bytes
    low: Part  # uint32, the four newer bytes
    filled: Part  # uint32, how many of the eight are there


@dataclasses.dataclass(frozen=True, eq=False)
class AnchorTable:
    """The vocabulary on the device: 45 bytes for an id, 6 MB for the 131,072 of Apertus.

    text uint32[V, W]: the first 4 W normalised bytes of each id, first byte lowest; length uint32[V]: how many of
    them there are; tail [V]: the last eight; length_shares float64[4 W + 1]: the share of labels with each length.
    """

    text: np.ndarray
    length: np.ndarray
    tail: Window[np.ndarray]
    length_shares: np.ndarray

    def byte_rate(self, k: int) -> float:
        """The share of bytes to be holes so that one label in k holds one.

        A label of n bytes escapes with probability (1 - rate)^n, so the rate solves Σ share_n (1 - (1 - rate)^n) = 1/k.
        Raises UserError when more than one label in k would have to come from ids without text.
        """
        lengths = np.arange(len(self.length_shares))
        if 1 - self.length_shares[0] <= 1 / k:
            raise UserError(
                f"goldfish k={k} drops 1 label in {k}, but {self.length_shares[0]:.0%} of the labels are white space "
                "or special tokens, which have no text to anchor a hole; raise k"
            )
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            dropped = self.length_shares @ (1 - (1 - middle) ** lengths)
            low, high = (middle, high) if dropped < 1 / k else (low, middle)
        return high


def normalized(text: bytes) -> bytes:
    """The bytes of a text that its copies have in common: no white space, no control characters, no ASCII capitals."""
    return text.translate(_LOWERED, _DROPPED_BYTES)


def anchor_table(vocabulary: VocabularyText) -> AnchorTable:
    """Builds the table of a vocabulary.

    Raises UserError when nothing was counted, or pieces and counts are not of one length.
    """
    counts = np.asarray(vocabulary.counts, np.float64)
    if len(counts) != len(vocabulary.pieces) or counts.sum() <= 0:
        raise UserError(
            f"the anchors of goldfish need the text and the count of every id, found {len(vocabulary.pieces)} texts, "
            f"{len(counts)} counts, {counts.sum():.0f} tokens in all; use vocabulary_text on a token store"
        )
    pieces = [normalized(piece) for piece in vocabulary.pieces]
    length = np.array([min(len(piece), LONGEST_TEXT) for piece in pieces], np.uint32)
    width = max(-(-int(length.max()) // 4), 1)
    text = np.frombuffer(b"".join(piece[: 4 * width].ljust(4 * width, b"\0") for piece in pieces), "<u4")
    tails = np.frombuffer(b"".join(piece[-ANCHOR_BYTES:].rjust(ANCHOR_BYTES, b"\0") for piece in pieces), ">u4")
    high, low = tails.reshape(-1, 2).T.astype(np.uint32)
    count = np.array([min(len(piece), ANCHOR_BYTES) for piece in pieces], np.uint32)
    shares = np.bincount(length, weights=counts, minlength=4 * width + 1) / counts.sum()
    return AnchorTable(text.reshape(-1, width).astype(np.uint32), length, Window(high, low, count), shares)

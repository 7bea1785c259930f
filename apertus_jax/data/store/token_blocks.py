"""Block digests of token files, so that a sample of a store of many TB is checked without reading it all.

`tokens.blocks` holds the BLAKE2b-128 digests (16 bytes each, in order, nothing else) of the consecutive blocks of
`tokens.bin` of 4 MiB; the last block is what remains. The commit marker has the digest of this file, as of all files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from etils import epath

from apertus_jax.errors import UserError

BLOCK_BYTES = 1 << 22
DIGEST_BYTES = 16
SUFFIX = ".blocks"


class BlockDigests:
    """Digests what is written to a token file, block by block."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._current = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._room = BLOCK_BYTES

    def update(self, content: bytes) -> None:
        """Adds the next bytes of the file."""
        rest = memoryview(content)
        while len(rest) >= self._room:
            self._current.update(rest[: self._room])
            rest = rest[self._room :]
            self._digests.append(self._current.digest())
            self._current, self._room = hashlib.blake2b(digest_size=DIGEST_BYTES), BLOCK_BYTES
        self._current.update(rest)
        self._room -= len(rest)

    def finish(self) -> bytes:
        """Returns the content of the file of digests."""
        last = [self._current.digest()] if self._room < BLOCK_BYTES else []
        return b"".join([*self._digests, *last])


class Source(Protocol):
    """Protocol of a source of a store."""

    prefix: str
    dtype: np.dtype

    @property
    def num_tokens(self) -> int:
        """How many tokens it has."""


class Block(NamedTuple):
    """A block of a source, counted from 0."""

    source: str
    number: int


def num_blocks(num_bytes: int) -> int:
    """Returns how many blocks a token file of so many bytes has."""
    return -(-num_bytes // BLOCK_BYTES)


def chosen_blocks(bytes_of_sources: Sequence[tuple[str, int]], count: int, seed: int) -> list[Block]:
    """Returns `count` different blocks of all sources' files, each as likely as the other; all when there are fewer."""
    sizes = [num_blocks(size) for _, size in bytes_of_sources]
    total = sum(sizes)
    numbers: Sequence[int] = range(total)
    if count < total:
        # Drawn with repetition and thinned: choice() would list all blocks of a store.
        draws = np.random.default_rng(seed).integers(0, total, 16 * count + 64).tolist()
        numbers = sorted(list(dict.fromkeys(draws))[:count])
    ends = np.cumsum(sizes)
    places = [int(np.searchsorted(ends, number, side="right")) for number in numbers]
    return [
        Block(bytes_of_sources[place][0], number - int(ends[place] - sizes[place]))
        for place, number in zip(places, numbers, strict=True)
    ]


def read_digests(source: Source) -> list[bytes] | None:
    """Returns the digests of a source's blocks, or None when it was written without.

    Raises:
      UserError: there are more or fewer of them than blocks.
    """
    path = epath.Path(f"{source.prefix}{SUFFIX}")
    if not path.exists():
        return None
    expected = num_blocks(source.num_tokens * source.dtype.itemsize)
    if path.stat().length != expected * DIGEST_BYTES:
        raise UserError(
            f"{path} has {path.stat().length} bytes where {expected} blocks take {expected * DIGEST_BYTES}; "
            "restore it or tokenize again"
        )
    content = path.read_bytes()
    return [content[start : start + DIGEST_BYTES] for start in range(0, len(content), DIGEST_BYTES)]


def check_block(source: Source, number: int, digest: bytes | None, vocab_size: int) -> None:
    """Reads one block and checks its digest, when there is one, and that every id is one of the tokenizer's.

    Raises:
      UserError: it has changed since it was written, or holds an id that is none; file and place are named.
    """
    path = epath.Path(f"{source.prefix}.bin")
    with path.open("rb") as file:
        file.seek(number * BLOCK_BYTES)
        content = file.read(BLOCK_BYTES)
    first = number * BLOCK_BYTES // source.dtype.itemsize
    if digest is not None and hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest() != digest:
        raise UserError(
            f"{path} has changed since it was committed (block {number}, from token {first:,} on); restore it, or "
            "tokenize again"
        )
    tokens = np.frombuffer(content, dtype=source.dtype)
    if len(tokens) and (int(tokens.max()) >= vocab_size or int(tokens.min()) < 0):
        place = int(np.flatnonzero((tokens >= vocab_size) | (tokens < 0))[0])
        raise UserError(
            f"{path} holds the token id {int(tokens[place])} at token {first + place:,}, outside the vocabulary "
            f"of {vocab_size}; tokenize again"
        )

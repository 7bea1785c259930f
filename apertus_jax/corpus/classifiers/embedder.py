"""Text embedders: the contract of what turns text into the vectors that classifiers read.

A document is cut into chunks and every chunk becomes one vector. Vectors are rounded to half precision right away:
that is what can be kept beside the scores, so a head sees the same numbers whether they were kept or computed anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Chunk = Any


class Embedder(Protocol):
    """Chunks of text as vectors; each vector depends on its own chunk and nothing else."""

    @property
    def dimensions(self) -> int:
        """The length D of a vector."""

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the vectors, as JSON: implementation, sizes, digest of the weights."""

    def chunks(self, text: str) -> Sequence[Chunk]:
        """Cuts a text into at least one chunk; nothing of the text is left out."""

    def embed(self, chunks: Sequence[Chunk]) -> np.ndarray:
        """Returns float16 [number of chunks, D]."""


class Embedding(Protocol):
    """Options of an embedder; `build` loads what it needs."""

    def build(self) -> Embedder:
        """Returns the embedder.

        Raises:
          UserError: a package or the weights are missing.
        """


def embed_in_blocks(embedder: Embedder, chunks: Sequence[Chunk], block: int = 64) -> Iterator[np.ndarray]:
    """Yields float16 [at most `block`, D] for consecutive chunks, so that memory does not grow with a document."""
    for start in range(0, len(chunks), block):
        yield embedder.embed(chunks[start : start + block])

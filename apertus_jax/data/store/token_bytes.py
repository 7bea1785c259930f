"""Vocabulary bytes: the text and frequency of every id of a token store."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from apertus_jax.data.store.token_store import TokenStore
from apertus_jax.data.tokenizer.bpe import Tokenizer

SAMPLED_TOKENS = 1 << 20
SLICES = 64


class VocabularyText(NamedTuple):
    """One entry per id: `pieces` the bytes it stands for (none for special tokens), `counts` int64[V] occurrences."""

    pieces: tuple[bytes, ...]
    counts: np.ndarray


def vocabulary_text(store: str, sampled_tokens: int = SAMPLED_TOKENS) -> VocabularyText:
    """Reads a token store: its vocabulary, and counts from about `sampled_tokens` tokens of all training sources.

    Every source gives a share in proportion to its size, in slices spread evenly over it; the held-out documents give
    none. The same store gives the same counts.

    Raises:
      UserError: the folder is not a complete token store.
    """
    opened = TokenStore.open(store)
    counts = np.zeros(opened.vocab_size, np.int64)
    share = min(1.0, sampled_tokens / max(opened.num_tokens, 1))
    for name in opened.training_sources:
        source = opened.source(name)
        length = max(-(-math.ceil(source.num_tokens * share) // SLICES), 1)
        for start in np.linspace(0, max(source.num_tokens - length, 0), SLICES).astype(int).tolist():
            tokens = source.tokens(start, min(length, source.num_tokens - start))
            counts += np.bincount(tokens, minlength=opened.vocab_size)
    return VocabularyText(token_pieces(opened.tokenizer), counts)


def token_pieces(tokenizer: Tokenizer) -> tuple[bytes, ...]:
    """Returns the bytes that each id of a tokenizer stands for, none for special tokens and personal-data markers."""
    lengths, markers = tokenizer.token_byte_lengths, tokenizer.marker_ids
    return tuple(
        tokenizer.decode_bytes([each]) if lengths[each] and each not in markers else b""
        for each in range(tokenizer.vocab_size)
    )

"""Bytes, characters and words per token, so that any cut of a text can be summed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.evaluation.intervals import BLOCK_TOKENS, MIN_DOCUMENTS

TOKENS, WORDS, CHARACTERS, BYTES, NATS = range(5)
WORD = re.compile(r"\S+")


@dataclasses.dataclass(frozen=True)
class Passage:
    """A document, or a line of one: int32[n] token ids without boundary tokens.

    Attributes:
      language: `iso639-3_Script` label.
      ids: the tokens.
      origin: `held out`, `training` or `unknown`: whether the model has been trained on this text.
      line: passages of several languages with the same line are translations of each other.
    """

    language: str
    ids: np.ndarray
    origin: str
    line: str = ""


def count_tokens(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """Returns float64[n, 4]: per token 1, the words and characters that begin in it, and its bytes.

    A word is what lies between white space; personal-data markers are text, other special tokens are none. `ids` must
    spell whole characters.
    """
    ids = np.asarray(ids)
    lengths = tokenizer.token_byte_lengths[ids].astype(np.int64)
    text = tokenizer.decode_bytes(ids[lengths > 0]).decode()
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    starts = np.cumsum(sizes) - sizes  # the byte at which each character begins
    words = starts[[match.start() for match in WORD.finditer(text)]] if len(starts) else starts
    ends = np.cumsum(lengths)

    def in_tokens(places: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(ends, places, side="right"), minlength=len(ids))

    return np.stack([np.ones(len(ids)), in_tokens(words), in_tokens(starts), lengths], axis=1).astype(np.float64)


def whole_characters(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """Returns the beginning of a text, int32[n], without those last ids that spell only a part of a character."""
    while len(ids):
        try:
            tokenizer.decode_bytes(ids[tokenizer.token_byte_lengths[ids] > 0]).decode()
            break
        except UnicodeDecodeError:
            ids = ids[:-1]
    return ids


def with_losses(counts: np.ndarray, losses: np.ndarray | None) -> np.ndarray:
    """Returns float64[n, 5]: the counts beside the nats of each token, which are NaN without a model.

    Tokens without text cost nothing, see `bits_per_byte`.
    """
    nats = np.full(len(counts), np.nan) if losses is None else np.where(counts[:, BYTES] > 0, losses, 0.0)
    return np.concatenate([counts, nats[:, None]], axis=1)


def resampling_units(passages: Sequence[np.ndarray]) -> tuple[np.ndarray, str]:
    """Returns (float64[U, 5] sums, what a unit is): passages, or blocks of 32 tokens where there are fewer than eight.

    As `loss_interval` does: blocks say how sure the figures of these very texts are, not how others would differ.

    Args:
      passages: float64[n, 5] of each passage, as `with_losses` gives it.
    """
    if len(passages) >= MIN_DOCUMENTS:
        return np.stack([each.sum(axis=0) for each in passages]), "passages"
    blocks = [each[i : i + BLOCK_TOKENS].sum(axis=0) for each in passages for i in range(0, len(each), BLOCK_TOKENS)]
    return np.stack(blocks), f"blocks of {BLOCK_TOKENS} tokens"

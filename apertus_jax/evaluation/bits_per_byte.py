"""Bits per byte: one definition for every command that reports it.

    bits per byte = Σ −log₂ p(token | what stands before it in its document) / Σ bytes

Both sums run over the same tokens: those that stand for text. Bytes are those of the text as the corpus holds it, in
UTF-8: a personal-data marker counts as it is spelled (`<email-pii>` has eleven), since the corpus holds it and models
are asked for it. `<s>`, `</s>` and other control tokens stand for no text: they cost nothing and have no bytes. Half a
character, where a text was cut, counts with the bytes that are there. A figure of several texts is the ratio of the
sums (docs/reference/evaluation_and_release.md §2.2). The harness divides by the bytes of the text that it was given,
which is the same.
"""

from __future__ import annotations

import math

import numpy as np

BITS_PER_NAT = 1 / math.log(2)
# Part of what identifies results: those of another definition are not read again as if they were these.
DEFINITION = (
    "bits of the tokens of text over the UTF-8 bytes of the text as the corpus holds it, personal-data markers as "
    "spelled; <s>, </s> and other control tokens count neither above nor below"
)


def text_sums(losses: np.ndarray, token_bytes: np.ndarray) -> tuple[float, float]:
    """Returns (nats, bytes) of the tokens that stand for text.

    Args:
      losses: float[n], cross-entropy of each predicted token in nats.
      token_bytes: int[n], the bytes of text that each stands for, see `Tokenizer.token_byte_lengths`.
    """
    spelled = np.asarray(token_bytes) > 0
    return float(np.sum(losses, dtype=np.float64, where=spelled)), float(np.sum(token_bytes))


def bits_per_byte(nats: float, utf8_bytes: float) -> float:
    """Returns bits per byte of summed nats and bytes; NaN for no text."""
    return float(nats * BITS_PER_NAT / utf8_bytes) if utf8_bytes > 0 else math.nan

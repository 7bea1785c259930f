"""Near-duplicate leakage under a loss mask: copies with different dropped tokens reveal every token.

The mask of a passage is a hash of what stands before each label. A copy with one more line break, one other word or
another tokenization has other hashes, so other holes. For one passage and its variants this recomputes the mask of
each copy, lays the copies over one another, and counts what no copy hides.

Source: docs/reference/evaluation_and_release.md §3.8.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.membership.membership_audit import labels_in_loss
from apertus_jax.evaluation.memorization.probes import Candidate
from apertus_jax.objectives import LossMask
from apertus_jax.objectives.megatron_hash import hash_table, megatron_keys

BYTES, TOKENS = "bytes", "tokens"
_WHITE_SPACE = bytes([*range(0x21), 0x7F])


@dataclasses.dataclass(frozen=True)
class MaskLeak:
    """Leakage of one passage by its copies; shares of the passage's units, tokens or bytes.

    `masked` in the passage itself; `never_masked` in the loss wherever it stands; `masked_in_all` in no copy's loss;
    `union` in the loss of at least one copy, so 1 − `masked_in_all`; `hidden_left` of what the passage's own mask
    hides, the share that stays hidden, NaN where it hides nothing. `present` is the mean share of units that a variant
    has at all, NaN without variants.
    """

    unit: str
    copies: int
    units: int
    masked: float
    never_masked: float
    masked_in_all: float
    union: float
    hidden_left: float
    present: float


@dataclasses.dataclass(frozen=True)
class KeyDegeneracy:
    """Degeneracy of the published hash: how far it is from giving each window a key of its own.

    `zero` is the share of windows of h labels whose product is 0 in 64 bits or a multiple of the table's size, so that
    all read entry 0; `distinct` the number of keys over that of windows, `commonest` the share of the commonest key.
    """

    windows: int
    zero: float
    distinct: float
    commonest: float
    zero_is_dropped: bool
    realised_rate: float
    meant_rate: float


def mask_leak(
    text: str,
    variants: Sequence[str],
    tokenizer: Tokenizer,
    loss_masks: Sequence[LossMask],
    cluster_key: int = 0,
    unit: str = BYTES,
) -> MaskLeak:
    """Returns what a text and its variants, each a document that opens a row, show together under the masks.

    Bytes without white space are compared by default, since variants can be tokenized differently; a byte is masked
    with the token that holds it.

    Args:
      text: the passage whose units are counted.
      variants: other copies of it, exact or nearly so.
      tokenizer: makes the labels.
      loss_masks: as in training.
      cluster_key: document key of all copies, for masks that use one.
      unit: `bytes` or `tokens`.

    Raises:
      UserError: an empty text or an unknown unit.
    """
    if unit not in (BYTES, TOKENS):
        raise UserError(f"near-duplicate unit {unit!r} is unknown; use {BYTES} or {TOKENS}")
    copies = tokenizer.encode_batch([text, *variants])
    if not all(len(ids) for ids in copies):
        raise UserError("a text of the near-duplicate audit is empty; give texts with at least one token")
    kept = labels_in_loss([Candidate(ids, cluster_key) for ids in copies], tokenizer.bod_id, loss_masks)
    if unit == TOKENS:
        units, in_loss = [ids.tolist() for ids in copies], kept
    else:
        units, in_loss = [], []
        for ids, keep in zip(copies, kept, strict=True):
            symbols, flags = visible_bytes(ids, keep, tokenizer)
            units.append(symbols)
            in_loss.append(flags)
    return leak_of_copies(units, in_loss, unit)


def leak_of_copies(units: Sequence[Sequence[int]], in_loss: Sequence[np.ndarray], unit: str) -> MaskLeak:
    """Returns what copies show together: int[n_i] units and bool[n_i] of each, the first one the passage itself.

    Raises:
      UserError: the passage has no unit.
    """
    if not len(units[0]):
        raise UserError("the passage of a near-duplicate audit has no visible text")
    size = len(units[0])
    shown, hidden, present = (np.zeros(size, np.int64) for _ in range(3))
    for symbols, keep in zip(units, in_loss, strict=True):
        ours, theirs = align(units[0], symbols)
        present[ours] += 1
        shown[ours] += keep[theirs]
        hidden[ours] += ~keep[theirs]
    own_hidden = ~in_loss[0]
    masked_in_all = shown == 0
    return MaskLeak(
        unit=unit,
        copies=len(units),
        units=size,
        masked=float(own_hidden.mean()),
        never_masked=float((hidden == 0).mean()),
        masked_in_all=float(masked_in_all.mean()),
        union=float((shown > 0).mean()),
        hidden_left=float(masked_in_all[own_hidden].mean()) if own_hidden.any() else math.nan,
        present=float((present - 1).mean() / (len(units) - 1)) if len(units) > 1 else math.nan,
    )


def align(first: Sequence[int], second: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64[m] places in each at which both hold the same unit, in order: blocks of difflib's matching.

    What both begin and end with is matched first, so that near duplicates take little time.
    """
    ours, theirs = np.asarray(first, np.int64), np.asarray(second, np.int64)
    shorter = min(len(ours), len(theirs))
    differ = np.flatnonzero(ours[:shorter] != theirs[:shorter])
    head = int(differ[0]) if len(differ) else shorter
    rest = shorter - head
    differ = np.flatnonzero(ours[::-1][:rest] != theirs[::-1][:rest])
    tail = int(differ[0]) if len(differ) else rest
    middle = (ours[head : len(ours) - tail].tolist(), theirs[head : len(theirs) - tail].tolist())
    blocks = [
        (head + block.a, head + block.b, block.size)
        for block in difflib.SequenceMatcher(None, *middle, autojunk=False).get_matching_blocks()
    ]
    blocks = [(0, 0, head), *blocks, (len(ours) - tail, len(theirs) - tail, tail)]
    places = [np.arange(size, dtype=np.int64) for _, _, size in blocks]
    return (
        np.concatenate([start + each for (start, _, _), each in zip(blocks, places, strict=True)]),
        np.concatenate([start + each for (_, start, _), each in zip(blocks, places, strict=True)]),
    )


def visible_bytes(ids: np.ndarray, keep: np.ndarray, tokenizer: Tokenizer) -> tuple[list[int], np.ndarray]:
    """Returns the bytes of a text without white space, and for each whether its token is kept: int[n], bool[n]."""
    pieces = [tokenizer.decode_bytes([token]).translate(None, _WHITE_SPACE) for token in ids.tolist()]
    return list(b"".join(pieces)), np.repeat(np.asarray(keep, bool), [len(piece) for piece in pieces])


def key_degeneracy(documents: Sequence[Sequence[int]], k: int = 50, h: int = 50) -> KeyDegeneracy:
    """Returns what the published hash does to the labels of documents, counted over their full windows.

    Raises:
      UserError: no document has h labels.
    """
    long_enough = [np.asarray(ids, np.int32) for ids in documents if len(ids) >= h]
    if not long_enough:
        raise UserError(f"no document has the {h} labels of one window; give longer documents or lower h")
    keys = np.asarray(megatron_keys(jnp.asarray(np.concatenate(long_enough)[None]), h))[0]
    place_in_document = np.concatenate([np.arange(len(ids)) for ids in long_enough])
    found = keys[place_in_document >= h - 1]
    _, counts = np.unique(found, return_counts=True)
    drops = hash_table()[found].astype(np.float64) * k < 2**24
    return KeyDegeneracy(
        windows=len(found),
        zero=float((found == 0).mean()),
        distinct=len(counts) / len(found),
        commonest=float(counts.max() / len(found)),
        zero_is_dropped=bool(int(hash_table()[0]) * k < 2**24),
        realised_rate=float(drops.mean()),
        meant_rate=1 / k,
    )

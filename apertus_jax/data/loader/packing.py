"""Sequence packing metadata: segment ids, positions and left context of packed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from apertus_jax.data.sample_order.sample_index import TokenSource

NO_LABEL = -1


def segment_ids_and_positions(tokens: np.ndarray, eod_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns segment ids and positions, both int32[B, T], of input tokens int[B, T].

    A segment ends with its end-of-document token: that input still belongs to the document it closes, and the next
    input opens segment + 1 at position 0. A document continued from an earlier window starts at position 0 too.
    Leading axes are free: [T] and [..., T] work alike.

    Source: docs/reference/model_and_training.md §4.3.
    """
    is_end = np.asarray(tokens) == eod_id
    opens = np.zeros(is_end.shape, dtype=bool)
    opens[..., 1:] = is_end[..., :-1]
    segment_ids = np.cumsum(opens, axis=-1, dtype=np.int32)
    indices = np.arange(is_end.shape[-1], dtype=np.int32)
    segment_starts = np.maximum.accumulate(np.where(opens, indices, np.int32(0)), axis=-1)
    return segment_ids, (indices - segment_starts).astype(np.int32)


def left_context(source: TokenSource, document: int, start: int, length: int) -> np.ndarray:
    """Returns int32[length]: the document's labels before a window whose first input is token `start` of `document`.

    Oldest first, right-aligned, -1 where the document has no such label. Token 0 of a document is never a label of
    its own document (it is predicted from the document before), so the labels before the window are tokens 1..start.
    """
    context = np.full(length, NO_LABEL, dtype=np.int32)
    count = min(start, length)
    if count > 0:
        begin = int(source.document_starts[document]) + start - count + 1
        context[length - count :] = source.tokens(begin, count)
    return context

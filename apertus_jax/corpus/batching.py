"""Batches of a stream, bounded by number and by weight: documents and their characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batched(
    items: Iterable[Item], count: int | None = None, weight: Callable[[Item], int] | None = None, heaviest: int = 0
) -> Iterator[list[Item]]:
    """Yields lists of consecutive items; each ends with the item that makes it `count` long or `heaviest` heavy.

    Args:
      items: the stream.
      count: most items of a list; None bounds the weight alone.
      weight: what an item weighs, such as its characters; None bounds the number alone.
      heaviest: the weight at which a list ends.
    """
    batch: list[Item] = []
    total = 0
    for item in items:
        batch.append(item)
        total += weight(item) if weight else 0
        if len(batch) == count or (weight and total >= heaviest):
            yield batch
            batch, total = [], 0
    if batch:
        yield batch

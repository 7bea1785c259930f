"""Boxes of an array: one slice for each axis, and the cuts of an array into boxes of bounded size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Box = tuple[slice, ...]
# Name and box → the values there, C order, of the tensor's own type.
ReadBox = Callable[[str, Box], np.ndarray]
# Large enough for disks and networks; a small part of any device or host.
PIECE_BYTES = 32 << 20
# Between files whose axes are in another order a piece passes over all that it is spread over: fewer, larger pieces.
TRANSPOSED_PIECE_BYTES = 256 << 20


def whole_box(shape: Sequence[int]) -> Box:
    """Returns the box of all elements."""
    return tuple(slice(0, size) for size in shape)


def box_shape(box: Box) -> tuple[int, ...]:
    """Returns the shape of what is in a box."""
    return tuple(part.stop - part.start for part in box)


def box_of(index: Sequence[slice], shape: Sequence[int]) -> Box:
    """Returns a box with both ends of every slice said, from an index as shardings give it."""
    return tuple(slice(*part.indices(size)[:2]) for part, size in zip(index, shape, strict=True))


def moved(box: Box, by: Sequence[int]) -> Box:
    """Returns the box moved along each axis."""
    return tuple(slice(part.start + step, part.stop + step) for part, step in zip(box, by, strict=True))


def seen_from(box: Box, origin: Box) -> Box:
    """Returns the box as it reads when positions are counted from where another one begins."""
    return moved(box, [-part.start for part in origin])


def overlap(one: Box, other: Box) -> Box | None:
    """Returns the box that lies in both, or None."""
    both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return both if all(part.start < part.stop for part in both) else None


def c_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Returns the strides in bytes of an array in C order."""
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def consecutive_boxes(shape: Sequence[int], itemsize: int, limit_bytes: int) -> Iterator[Box]:
    """Cuts an array into boxes of at most `limit_bytes`, one element at least, that follow each other in C order."""
    return boxes_within(shape, c_strides(shape, itemsize), itemsize, limit_bytes)


def boxes_within(shape: Sequence[int], strides: Sequence[int], itemsize: int, limit_bytes: int) -> Iterator[Box]:
    """Cuts a part of a larger array, whose strides in bytes it has, into boxes that span at most `limit_bytes` of it.

    All but the last of an axis have one size, so that what is compiled for a shape is compiled for few.
    """
    axis = len(shape)
    span = itemsize
    while axis and span + (shape[axis - 1] - 1) * strides[axis - 1] <= limit_bytes:
        axis -= 1
        span += (shape[axis] - 1) * strides[axis]
    if axis == 0 or 0 in shape:
        yield whole_box(shape)
        return
    cut = axis - 1
    most = max(1, (limit_bytes - span) // strides[cut] + 1)
    step = -(-shape[cut] // -(-shape[cut] // most))
    inner = whole_box(shape[axis:])
    for outer in itertools.product(*map(range, shape[:cut])):
        before = tuple(slice(index, index + 1) for index in outer)
        for start in range(0, shape[cut], step):
            yield (*before, slice(start, min(start + step, shape[cut])), *inner)

"""Complexity of a function, read from processor time so that a busy machine cannot fail it.

What other processes take only ever adds to a measurement, by a factor of several on a shared core, and the collector's
work depends on all that earlier tests left. So the sizes lie a factor of twenty apart (quadratic work then shows as
400), the collector rests, and one good round of several is enough: work that is not linear has none.
"""

import gc
import time
from collections.abc import Callable

import pytest

ROUNDS = 6


def seconds(function: Callable[[], object]) -> float:
    """Returns the processor seconds of one call, without the garbage collector."""
    collects = gc.isenabled()
    gc.disable()
    try:
        started = time.process_time()
        function()
        return time.process_time() - started
    finally:
        if collects:
            gc.enable()


def repeated(unit: str) -> Callable[[int], str]:
    """Returns the function that makes a text of some characters from `unit` alone."""
    return lambda size: unit * (size // len(unit))


def assert_linear(work: Callable[..., object], text_of: Callable[[int], object], size: int) -> None:
    """Asserts that `work` of a text of 20 × `size` takes no more than 80 times as long as of one of `size`."""
    small_text, large_text = text_of(size), text_of(20 * size)
    work(small_text)
    small = large = 0.0
    for _ in range(ROUNDS):
        small, large = seconds(lambda: work(small_text)), seconds(lambda: work(large_text))
        if large < 80 * max(small, 1e-3):
            return
    pytest.fail(f"20 times the text took {large:.3f} s after {small:.4f} s, in each of {ROUNDS} rounds")


def assert_bounded(function: Callable[[], object], limit: float) -> None:
    """Asserts that one of several calls takes less than `limit` processor seconds: far above what linear work takes."""
    spent = [0.0]
    for _ in range(3):
        spent.append(seconds(function))
        if spent[-1] < limit:
            return
    pytest.fail(f"took {spent[1:]} processor seconds, not under {limit}")

"""Agreement of the processes of one job: one looks, all act on what it found.

Folders change while they are looked at, and a shared file system shows a change to each process at a time of its own.
Whatever decides what the job does next is therefore seen by the first process alone and told to the others. Every
function is a collective: each process of the job calls it, from its main thread, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Value = TypeVar("Value")


def first_says(look: Callable[[], Value]) -> Value:
    """Returns on every process what `look`, a JSON value, is on the first one; only there it is called.

    What `look` raises on the first process is raised there alone, before the others are told anything.
    """
    if jax.process_count() == 1:
        return look()
    told = np.frombuffer(json.dumps(look()).encode() if jax.process_index() == 0 else b"", np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(told.size)))
    text = multihost_utils.broadcast_one_to_all(told if jax.process_index() == 0 else np.zeros(size, np.uint8))
    return json.loads(np.asarray(text, np.uint8).tobytes())


def set_anywhere(flags: np.ndarray) -> np.ndarray:
    """Returns for each of the flags whether any process set it. Bool array of one shape everywhere."""
    if jax.process_count() == 1:
        return np.asarray(flags, bool)
    gathered = np.asarray(multihost_utils.process_allgather(np.asarray(flags, np.uint8)))
    return np.logical_or.reduce(gathered, axis=0)

"""A process that saves small states: `saving_process.py FOLDER KEEP_LAST STEP…`. The crash tests run it.

What a step holds is a function of the step, so that a test can say what must come back. Prints the message of a
`UserError` and exits with 2, as the command line does.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.errors import UserError


class TrainState(NamedTuple):
    """A stand-in for the train state: parameters, moments in two dtypes, counters in three types."""

    params: dict
    moments: dict
    samples: jax.Array
    tokens: np.int64


def state_of(step: int) -> TrainState:
    """Returns the state that step `step` saves."""
    values = np.random.default_rng(step).standard_normal((3, 24, 16), np.float32)
    return TrainState(
        params={"layers": {"kernel": jnp.asarray(values)}, "scale": jnp.full((16,), step, jnp.float32)},
        moments={"layers": {"kernel": jnp.asarray(values * values, jnp.bfloat16)}},
        samples=jnp.asarray([0, step * 8], jnp.uint32),
        tokens=np.int64(step) << 40,
    )


def main(folder: str, keep_last: str, *steps: str) -> int:
    """Saves the steps one after the other, asynchronously."""
    try:
        with Checkpointer(folder, keep_last=int(keep_last)) as checkpointer:
            for step in steps:
                checkpointer.save(int(step), state_of(int(step)), {"samples": int(step) * 8})
    except UserError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

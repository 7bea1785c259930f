"""A process that saves over storage that fails now and then: `faulty_process.py FOLDER KEEP_LAST STEPS`.

It goes on with the newest step that it can restore, as a run does, and ends as one does that storage has failed.
"""

from __future__ import annotations

import logging
import sys

import jax
import numpy as np

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.errors import REQUEUE_STATUS, TemporaryFailure
from apertus_jax.process import retries
from apertus_jax.training.loop import save_with_retries
from tests.checkpoints.saving_process import state_of


def main(folder: str, keep_last: str, steps: str) -> int:
    """Returns 0 once all steps are saved and the last one is read back, the status for requeue where that failed."""
    retries.FIRST_PAUSE_SECONDS = 0.01
    logging.basicConfig(level=logging.WARNING)
    try:
        with Checkpointer(folder, keep_last=int(keep_last)) as checkpoints:
            done = 0
            if checkpoints.committed_steps():
                state, metadata, done = checkpoints.restore(state_of(0))
                same = jax.tree.map(
                    lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), state, state_of(done)
                )
                assert all(jax.tree.leaves(same)) and metadata["step"] == done
                print("RESTORED", done)
            for step in range(done + 1, int(steps) + 1):
                save_with_retries(checkpoints, step, state_of(step), {"step": step}, wait=True)
                print("SAVED", step)
    except TemporaryFailure as error:
        print("REQUEUE", error)
        return REQUEUE_STATUS
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

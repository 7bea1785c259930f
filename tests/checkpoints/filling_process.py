"""A process whose disk fills up at each operation of a save in turn: `filling_process.py FOLDER STRIDE`.

Prints one JSON line per attempt: the operation at which the disk was full, the message, and what the folder held
afterwards. Ends when a save needs no more space than there is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.errors import UserError
from tests.checkpoints.crash_points import fill_disk_after
from tests.checkpoints.saving_process import state_of


def main(folder: str, stride: int) -> None:
    """Saves step 1 on an empty disk, then step 2 with the disk full from the n-th operation on, n = 1, 1 + stride, …"""
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(1, state_of(1), {}, wait=True)
    for operation in range(1, 1000, stride):
        fill_disk_after(operation)
        message = None
        try:
            with Checkpointer(folder) as checkpointer:
                checkpointer.save(2, state_of(2), {})
        except UserError as error:
            message = str(error)
        fill_disk_after(0)
        left = sorted(str(path.relative_to(folder)) for path in Path(folder).glob("*"))
        valid = Checkpointer(folder).valid_steps()
        print(json.dumps({"operation": operation, "message": message, "left": left, "valid": valid}), flush=True)
        if message is None:
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

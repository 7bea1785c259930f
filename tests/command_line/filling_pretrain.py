"""The command line, in a process whose disk fills up: `filling_pretrain.py PLACE OPERATION ARGUMENT…`.

PLACE is the step whose save meets a full disk, from its OPERATION-th change on, or `start`: full from the start.
Runs under the interposer of tests/checkpoints/crash_points.py.
"""

from __future__ import annotations

import sys
from typing import Any

from apertus_jax import cli
from apertus_jax.checkpoints import Checkpointer
from tests.checkpoints.crash_points import fill_disk_after


def fill_at_step(wanted: int, operation: int) -> None:
    """Lets the disk be full from the `operation`-th change after the save of step `wanted` has begun."""
    save = Checkpointer.save

    def save_on_full_disk(self: Checkpointer, step: int, *arguments: Any, **options: Any) -> bool:
        if step == wanted:
            self.wait()
            fill_disk_after(operation)
        return save(self, step, *arguments, **options)

    Checkpointer.save = save_on_full_disk


if __name__ == "__main__":
    if sys.argv[1] == "start":
        fill_disk_after(int(sys.argv[2]))
    else:
        fill_at_step(int(sys.argv[1]), int(sys.argv[2]))
    sys.exit(cli.main(sys.argv[3:]))

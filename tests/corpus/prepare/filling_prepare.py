"""`apertus prepare` on a disk that fills up at one change after another: `filling_prepare.py STRIDE ARGUMENT…`.

Runs under the interposer of tests/checkpoints/crash_points.py; the last argument is --output=FOLDER. Prints one JSON
line per attempt: the change at which the disk was full, the exit status, what was said. Ends when the space suffices.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

from apertus_jax import cli
from tests.checkpoints.crash_points import fill_disk_after


def main(stride: int, arguments: list[str]) -> int:
    """Prepares from nothing with the disk full from the n-th change on, n = 1, 1 + stride, …"""
    output = Path(arguments[-1].removeprefix("--output="))
    for operation in range(1, 10_000, stride):
        for folder in (output, output.with_name(f"{output.name}.work")):
            shutil.rmtree(folder, ignore_errors=True)
        said = io.StringIO()
        fill_disk_after(operation)
        with contextlib.redirect_stderr(said):
            status = cli.main(["prepare", *arguments])
        fill_disk_after(0)
        committed = (output / "COMMITTED.json").exists()
        attempt = {"operation": operation, "status": status, "said": said.getvalue(), "committed": committed}
        print(json.dumps(attempt), flush=True)
        if status == 0:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

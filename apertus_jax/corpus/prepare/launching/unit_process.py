"""Subprocess for one unit of `prepare`, for launchers whose workers are threads.

python -m apertus_jax.corpus.prepare.launching.unit_process NUMBER     (the preparation comes on standard input)
"""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys

from apertus_jax.corpus.prepare.launching.tasks import do_unit
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.stages import Stages
from apertus_jax.errors import UserError
from apertus_jax.process.failures import as_user_error
from apertus_jax.process.malloc_trim import ARROW_ALLOCATOR
from apertus_jax.terminal.terminal_text import printable

MODULE = "apertus_jax.corpus.prepare.launching.unit_process"
BAD_UNIT_STATUS = 3
# Products of small matrices gain nothing from threads, and their number must not show in a score's last digit.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
WORKER_ENVIRONMENT = ONE_THREAD | ARROW_ALLOCATOR


def encode_job(preparation: Preparation, stage: str) -> str:
    """Returns the text that tells a unit's process what to do."""
    return base64.b64encode(pickle.dumps((preparation, stage))).decode()


def run_in_process(number: int, job: str) -> int:
    """Does one unit in a process of its own and returns its number.

    Raises:
      UserError: what the unit raised.
      RuntimeError: the process ended otherwise.
    """
    ended = subprocess.run(
        [sys.executable, "-m", MODULE, str(number)],
        input=job,
        text=True,
        stderr=subprocess.PIPE,
        env=os.environ | WORKER_ENVIRONMENT,
        check=False,
    )
    if ended.returncode == BAD_UNIT_STATUS:
        raise UserError(ended.stderr.strip().splitlines()[-1])
    if ended.returncode:
        raise RuntimeError(f"unit {number} ended with status {ended.returncode}: {ended.stderr[-2000:]}")
    return number


def main() -> int:
    """Does the unit named on the command line; the job was written by our own parent process."""
    preparation, stage = pickle.loads(base64.b64decode(sys.stdin.read()))
    try:
        do_unit(Stages(preparation)[stage], int(sys.argv[1]))
    except Exception as error:
        failure = as_user_error(error, f"prepare, {stage}")
        if failure is None:
            raise
        print(printable(" ".join(str(failure).split())), file=sys.stderr)
        return BAD_UNIT_STATUS
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

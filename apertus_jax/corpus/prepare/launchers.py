"""Who does which shard task: processes of this machine, this process, or Apache Beam. All run the same `do_unit`."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.stages import stage_of
from apertus_jax.corpus.prepare.tasks import do_unit
from apertus_jax.corpus.prepare.unit_process import ONE_THREAD
from apertus_jax.errors import UserError

PROCESSES, INLINE, BEAM = "processes", "inline", "beam"
LAUNCHERS = (PROCESSES, INLINE, BEAM)

_preparation: Preparation | None = None


def default_workers() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def run_units(
    preparation: Preparation,
    stage: str,
    numbers: Sequence[int],
    launcher: str,
    workers: int,
    beam_options: Sequence[str],
    done: Callable[[int], Any],
) -> None:
    """Does these units of a stage; `done(number)` is called after each, in any order.

    Args:
      launcher: `processes`, `inline` (one after another in this process, for debugging) or `beam`.
      workers: processes; 0 takes one per processor.
      beam_options: of Apache Beam's pipeline, such as --runner=FlinkRunner.

    Raises:
      UserError: of the first unit that failed; the others that were under way are finished and kept.
    """
    if launcher == BEAM:
        from apertus_jax.corpus.prepare.beam_launcher import run_units_on_beam

        run_units_on_beam(preparation, stage, numbers, beam_options, done)
        return
    if launcher == INLINE:
        for number in numbers:
            do_unit(stage_of(preparation, stage), number)
            done(number)
        return
    if numbers:
        workers = min(workers or default_workers(), len(numbers))
        _run_in_processes(preparation, stage, numbers, workers, done)


def check_launcher(launcher: str) -> None:
    """Raises UserError unless this launcher exists and can run here."""
    if launcher not in LAUNCHERS:
        raise UserError(f"prepare.launcher = {launcher!r} is not one of {', '.join(LAUNCHERS)}")
    if launcher == BEAM:
        import importlib.util

        if importlib.util.find_spec("apache_beam") is None:
            raise UserError("prepare.launcher = 'beam' needs Apache Beam; run pip install -r requirements-beam.txt")


def _run_in_processes(
    preparation: Preparation, stage: str, numbers: Sequence[int], workers: int, done: Callable[[int], Any]
) -> None:
    context = multiprocessing.get_context("spawn")
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=_take_preparation, initargs=(preparation,)
        ) as pool:
            futures = [pool.submit(_do_unit_of, stage, number) for number in numbers]
            try:
                for future in concurrent.futures.as_completed(futures):
                    done(future.result())
            except concurrent.futures.process.BrokenProcessPool as error:
                raise UserError(
                    "a worker process died (killed, or out of memory); what is finished stays, run the command again"
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _take_preparation(preparation: Preparation) -> None:
    """Keeps the preparation of this worker process, so that models are loaded once."""
    global _preparation
    _preparation = preparation


def _do_unit_of(stage: str, number: int) -> int:
    """Does one unit in a worker process and returns its number."""
    do_unit(stage_of(_preparation, stage), number)
    return number

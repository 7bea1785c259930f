"""Launchers of shard tasks: local processes, this process, or Apache Beam. All run the same `do_unit`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from apertus_jax.corpus.prepare.launching.tasks import do_unit
from apertus_jax.corpus.prepare.launching.unit_process import WORKER_ENVIRONMENT
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.stages import Stages
from apertus_jax.errors import UserError
from apertus_jax.process.malloc_trim import return_freed_memory

PROCESSES, INLINE, BEAM = "processes", "inline", "beam"
LAUNCHERS = (PROCESSES, INLINE, BEAM)

_stages: Stages | None = None


def default_workers() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class Launcher:
    """Does units in one of three ways; worker processes live until the `with` block ends.

    Args:
      stages: those of the preparation that the units belong to.
      kind: `processes`, `inline` (one after another in this process, for debugging) or `beam`.
      workers: processes; 0 takes one per processor.
      beam_options: of Apache Beam's pipeline, such as --runner=FlinkRunner.
    """

    def __init__(self, stages: Stages, kind: str, workers: int, beam_options: Sequence[str]):
        self._stages = stages
        self._kind = kind
        self._workers = workers or default_workers()
        self._beam_options = beam_options
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        self._lifeline: multiprocessing.connection.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the workers: after what they are doing, or at once when the command was interrupted."""
        if self._pool is None or self._lifeline is None:
            return
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._lifeline.close()
        self._pool.shutdown(cancel_futures=True)
        self._lifeline.close()

    def do(self, stage: str, numbers: Sequence[int], done: Callable[[int], Any]) -> None:
        """Does these units of a stage; `done(number)` is called after each, in any order.

        Raises:
          UserError: of the first unit that failed; those under way are finished and kept.
        """
        if not numbers:
            return
        if self._kind == BEAM:
            from apertus_jax.corpus.prepare.launching.beam_launcher import run_units_on_beam

            run_units_on_beam(self._stages.preparation, stage, numbers, self._beam_options, done)
        elif self._kind == INLINE:
            for number in numbers:
                do_unit(self._stages[stage], number)
                return_freed_memory()
                done(number)
        else:
            self._do_in_processes(stage, numbers, done)

    def _do_in_processes(self, stage: str, numbers: Sequence[int], done: Callable[[int], Any]) -> None:
        try:
            with _environment(WORKER_ENVIRONMENT):
                self._pool = self._pool or self._open_pool()
                futures = [self._pool.submit(_do_unit_of, stage, number) for number in numbers]
            for future in concurrent.futures.as_completed(futures):
                done(future.result())
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a worker process died (killed, or out of memory); what is finished stays, run the command again"
            ) from error

    def _open_pool(self) -> concurrent.futures.ProcessPoolExecutor:
        """Starts worker processes that end when this one does."""
        reader, self._lifeline = multiprocessing.Pipe(duplex=False)
        return concurrent.futures.ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_work,
            initargs=(self._stages.preparation, reader),
        )


def check_launcher(launcher: str) -> None:
    """Raises UserError unless this launcher exists and can run here."""
    if launcher not in LAUNCHERS:
        raise UserError(f"prepare.launcher = {launcher!r} is not one of {', '.join(LAUNCHERS)}")
    if launcher == BEAM:
        import importlib.util

        if importlib.util.find_spec("apache_beam") is None:
            raise UserError("prepare.launcher = 'beam' needs Apache Beam; run pip install -r requirements-beam.txt")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that are started inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin_work(preparation: Preparation, lifeline: multiprocessing.connection.Connection) -> None:
    """Makes the stages of this worker process, so that models are loaded once, and ends with the command.

    A worker that outlived its command would go on holding the lease of its unit. An interrupt from the keyboard goes
    to all processes of a terminal; what becomes of the workers is for the command to say.
    """
    global _stages
    _stages = Stages(preparation)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()


def _end_with(lifeline: multiprocessing.connection.Connection) -> None:
    """Ends this process when the other end of the pipe is closed, by the command or by its death."""
    lifeline.poll(None)
    os._exit(128 + signal.SIGTERM)


def _do_unit_of(stage: str, number: int) -> int:
    """Does one unit in a worker process and returns its number."""
    assert _stages is not None  # by the initializer of the worker
    do_unit(_stages[stage], number)
    return_freed_memory()
    return number

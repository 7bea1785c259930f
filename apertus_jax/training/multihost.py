"""Multi-host training: several processes, one run; who writes, what all must agree on, how they meet."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax._src import distributed
from jax.experimental import multihost_utils

from apertus_jax.errors import UserError
from apertus_jax.storage.lease import acquire_lease
from apertus_jax.training.survival.job_limits import JobLimits

_meetings = itertools.count()  # numbered alike by every process
_LONGEST_MEETING = 3600  # seconds; the job monitor finds those that do not come, and sooner
_LATER = 60  # JAX gives up after our own line
FAILED_STATUS = 2


def join_job(limits: JobLimits = JobLimits()) -> None:  # noqa: B008 (frozen)
    """Connects this process with the others of its job; SLURM, TPU pods and Open MPI are recognised by JAX.

    Elsewhere the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID tell. Must come before
    anything asks for devices. Joined already: does nothing. `limits` says how long to wait for the others.

    Where not all of them come within `limits.start_seconds`, this process ends with a line that says so.

    Raises:
      UserError: the variables are incomplete or contradict each other or the devices.
    """
    if jax.distributed.is_initialized():
        return
    waits: Mapping[str, Any] = {
        "initialization_timeout": math.ceil(limits.start_seconds) + _LATER,
        "heartbeat_timeout_seconds": math.ceil(limits.lost_seconds),
        "shutdown_timeout_seconds": math.ceil(limits.end_seconds),
    }
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        with everyone_comes("the processes of this job", limits.start_seconds):
            jax.distributed.initialize(**waits)
        return
    try:
        count, index = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={address} is set; JAX_NUM_PROCESSES and JAX_PROCESS_ID must be numbers beside it"
        ) from error
    if not 0 <= index < count:
        raise UserError(
            f"JAX_PROCESS_ID={index} must be 0 to {count - 1}, for JAX_NUM_PROCESSES={count}; change either"
        )
    with everyone_comes(f"the JAX_NUM_PROCESSES={count} processes at {address}", limits.start_seconds):
        jax.distributed.initialize(address, count, index, **waits)
    if jax.process_count() != count:
        raise UserError(
            f"JAX_NUM_PROCESSES={count} and the devices are those of {jax.process_count()} processes; start as many "
            "processes as the devices have hosts"
        )


@contextlib.contextmanager
def everyone_comes(whom: str, seconds: float) -> Iterator[None]:
    """Ends this process with one line unless the block is over in time: JAX would abort it with a stack trace."""

    def give_up() -> None:
        line = f"apertus: not all of {whom} came within {seconds:g} s; start each of them, all with the same number"
        print(line, file=sys.stderr, flush=True)
        os._exit(FAILED_STATUS)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_first() -> bool:
    """Returns whether this process is the one that writes what exists once."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set on any process, so that all act alike. Every process must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def same_everywhere(number: int) -> int:
    """Returns the number that the first process has. Every process must call it."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def meet(what: str) -> None:
    """Returns when every process has come here; `what` names the place.

    The coordination service tells, and no device: collectives of devices give up on those that come late sooner (gloo,
    on CPUs, after 30 s), and processes that compile are seldom done together.

    Raises:
      jax.errors.JaxRuntimeError: not all came within an hour.
    """
    client = distributed.global_state.client
    if jax.process_count() > 1 and client is not None:
        client.wait_at_barrier(f"apertus/{what}/{next(_meetings)}", 1000 * _LONGEST_MEETING)


@contextlib.contextmanager
def lease_of_job(folder: epath.PathLike) -> Iterator[None]:
    """Holds the lease of a run folder for the whole job; its first process takes it.

    Raises:
      UserError: another job holds it.
    """
    if not is_first():
        yield
        return
    with acquire_lease(folder):
        yield

"""Multi-host training: several processes, one run; who writes, what all must agree on, how they meet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from apertus_jax.errors import UserError
from apertus_jax.storage.lease import acquire_lease


def join_job() -> None:
    """Connects this process with the others of its job; SLURM, TPU pods and Open MPI are recognised by JAX.

    Elsewhere the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID tell. Must come before
    anything asks for devices. Joined already: does nothing.

    Raises:
      UserError: the variables are incomplete.
    """
    if jax.distributed.is_initialized():
        return
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        jax.distributed.initialize()
        return
    try:
        count, index = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={address} is set; JAX_NUM_PROCESSES and JAX_PROCESS_ID must be numbers beside it"
        ) from error
    jax.distributed.initialize(address, count, index)


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

"""Job channel: small texts that the processes of a job leave for each other, beside the devices' collectives."""

from __future__ import annotations

import itertools

import jax
from jax._src import distributed

_numbers = itertools.count()  # of the runs that this process was in, the same on every process of a job


class JobChannel:
    """The key-value store of JAX's coordination service, which process 0 holds, under names of one run alone.

    Calls raise `jax.errors.JaxRuntimeError` when the service is gone, and block while it does not answer.
    """

    def __init__(self) -> None:
        self.index, self.count = jax.process_index(), jax.process_count()
        self._client = distributed.global_state.client
        self._prefix = f"apertus/{next(_numbers)}/"

    def put(self, name: str, text: str) -> None:
        """Leaves a text; one of the same name is replaced."""
        assert self._client is not None
        self._client.key_value_set(self._prefix + name, text, allow_overwrite=True)

    def read(self, folder: str) -> dict[str, str]:
        """Returns the texts whose names begin with `folder/`, by the rest of their names."""
        assert self._client is not None
        start = f"{self._prefix}{folder}/"
        return {name.rpartition("/")[2]: text for name, text in self._client.key_value_dir_get(start)}

    def leave(self) -> None:
        """Has this process end without waiting for the others, which do not come any more."""
        distributed.global_state.client = None

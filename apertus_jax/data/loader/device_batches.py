"""Device prefetch: a background thread copies batches while the training step runs."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from apertus_jax.data.loader.batch_loader import Batch, BatchIterator
from apertus_jax.errors import UserError

HOST_ONLY = frozenset({"sample_ids"})


class DeviceBatches:
    """Batches as global jax arrays, in the order of their steps; `sample_ids` stays a NumPy array on the host.

    Its state is `next_step`, the step of the batch that comes next. An error in the background reaches whoever asks
    for the batch that met it. Close it, or use it as a context, so that its threads end.
    """

    def __init__(self, batches: BatchIterator, shardings: Any, num_ready: int = 2):
        """Starts the thread.

        Args:
          batches: the host batches; closed with this iterator.
          shardings: one jax sharding for all arrays, or a mapping from field to sharding.
          num_ready: how many batches may wait on the devices.
        """
        self.next_step = batches.next_step
        self._batches = batches
        self._shardings = shardings
        self._ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=num_ready)
        self._stop = threading.Event()
        self._ended: tuple[str, Any] | None = None
        self._thread = threading.Thread(target=self._run, name="device-batches", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        schedule = self._batches.loader.stream.schedule
        try:
            while not self._stop.is_set():
                step = self._batches.next_step
                batch = next(self._batches, None)
                if batch is None:
                    self._ready.put(("end", None))
                    return
                placed = put_on_devices(batch, self._shardings, schedule.size_at(step), self._batches.loader.rows(step))
                self._ready.put(("batch", placed))
        except BaseException as error:  # handed to the consumer, which raises it
            self._ready.put(("error", error))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        kind, value = self._ended or self._ready.get()
        if kind == "batch":
            self.next_step += 1
            return value
        self._ended = (kind, value)
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Stops and joins every thread, those of the host batches included. Safe to call twice."""
        self._stop.set()
        self._ended = self._ended or ("end", None)
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.02)
        self._thread.join()
        self._batches.close()

    def __enter__(self) -> DeviceBatches:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def put_on_devices(batch: Batch, shardings: Any, global_rows: int, rows: np.ndarray) -> dict[str, Any]:
    """Returns the batch as global arrays of `global_rows` rows.

    Args:
      batch: the rows that this process has read.
      shardings: one jax sharding, or a mapping from field to sharding.
      global_rows: the batch size.
      rows: which rows of the global batch those are: int[R], ascending.

    Raises:
      UserError: a device of this process holds rows that it has not read.
    """
    import jax

    placed: dict[str, Any] = {}
    for name, array in batch.items():
        if name in HOST_ONLY:
            placed[name] = array
            continue
        sharding = shardings[name] if isinstance(shardings, Mapping) else shardings
        part = functools.partial(_part_of_batch, array, rows, global_rows)
        placed[name] = jax.make_array_from_callback((global_rows, *array.shape[1:]), sharding, part)
    return placed


def _part_of_batch(array: np.ndarray, rows: np.ndarray, global_rows: int, index: tuple[slice, ...]) -> np.ndarray:
    """Returns the part of the global array at `index`, out of the rows that were read."""
    start, stop, _ = index[0].indices(global_rows)
    first = int(np.searchsorted(rows, start))
    if not np.array_equal(rows[first : first + stop - start], np.arange(start, stop)):
        raise UserError(
            f"the mesh keeps rows {start} to {stop - 1} of the batch on a device of this process, which has not read "
            "all of them; give BatchLoader the rows of sharding.rows_of_process"
        )
    return array[first : first + stop - start][(slice(None), *index[1:])]

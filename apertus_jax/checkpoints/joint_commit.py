"""Joint commit of a step: one process lists its files, each digests a share of them, the first commits.

It runs in a background thread, where a collective of the devices could deadlock with the training step. So the
processes meet at barriers of the coordination service, and what they tell each other lies in small hidden files:

  first: metadata.json, then .files.json, the list of all files    → barrier "listed"
  each:  reads the list, digests its share, .digests_INDEX.json    → barrier "digested"
  first: gathers the shares, removes the hidden files, commits     → barrier "committed"

Nobody else looks into the folder before the barrier that the files stand behind. A process that fails goes to the other
barriers all the same, without the file that the rest then miss: all fail together, and none waits for the timeout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from apertus_jax.checkpoints import step_folders
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.listing import list_files

LIST_FILE = ".files.json"


def commit_jointly(
    folder: epath.Path, step: int, write: Callable[[], None], key: str, timeout_seconds: float
) -> dict[str, dict[str, Any]] | None:
    """Commits a step folder that all processes have written to; each of them calls it.

    Args:
      folder: of the step.
      step: its number.
      write: returns when this process has written everything; on the first one, metadata included.
      key: names this commit among all of the job; the same on each process.
      timeout_seconds: how long a barrier waits for the others.

    Returns:
      On the first process the size and digest of every file, elsewhere None.

    Raises:
      OSError, RuntimeError, ValueError: this process, or another one, failed; the step is not committed.
    """
    index, count = jax.process_index(), jax.process_count()
    barrier = ocp.multihost.get_barrier_sync_fn()
    records: dict[str, dict[str, Any]] = {}
    own: dict[str, dict[str, Any]] = {}

    def written() -> None:
        write()
        if index == 0 and count > 1:
            artifacts.write_atomically(folder / LIST_FILE, json.dumps({"files": list_files(folder)}))

    def digest() -> None:
        names = list_files(folder) if count == 1 else _told(folder / LIST_FILE, "the first process")["files"]
        own.update(step_folders.digest_files(folder, step_folders.file_share(names, index, count)))
        if index > 0:
            artifacts.write_atomically(_share_file(folder, index), json.dumps(own))

    def commit() -> None:
        if index > 0:
            return
        records.update(own)
        for other in range(1, count):
            records.update(_told(_share_file(folder, other), f"process {other}"))
        for hidden in [LIST_FILE, *(_share_file(folder, other).name for other in range(1, count))] if count > 1 else ():
            (folder / hidden).unlink()
        step_folders.commit(folder, step, records)

    failure = None
    for name, act in (("listed", written), ("digested", digest), ("committed", commit)):
        if failure is None:
            try:
                act()
            except Exception as error:
                failure = error
        barrier(key=f"{key}_{name}", timeout_ms=int(1000 * timeout_seconds))
    if failure is not None:
        raise failure
    if index > 0 and not artifacts.is_complete(folder):
        raise RuntimeError(f"the first process could not commit {folder}")
    return records if index == 0 else None


def _share_file(folder: epath.Path, process_index: int) -> epath.Path:
    return folder / f".digests_{process_index:05d}.json"


def _told(path: epath.Path, teller: str) -> dict[str, Any]:
    """Returns what another process has written behind the barrier that was passed just now."""
    if not path.exists():
        raise RuntimeError(f"{teller} could not finish its part (there is no {path}); the folder must be shared by all")
    return read_json_object(path)

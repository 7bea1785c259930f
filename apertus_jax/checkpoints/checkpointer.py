"""Checkpoint saving and restoring with Orbax, and the rule for which steps count as saved."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from apertus_jax.checkpoints import leaves as leaf_tools
from apertus_jax.checkpoints import step_folders
from apertus_jax.checkpoints.joint_commit import commit_jointly
from apertus_jax.checkpoints.step_folders import Rejection
from apertus_jax.errors import TemporaryFailure, UserError
from apertus_jax.process.agreement import first_says, set_anywhere
from apertus_jax.process.failures import is_full_disk
from apertus_jax.process.retries import ATTEMPTS, is_transient, retried
from apertus_jax.storage.reader_lease import remove_unless_read
from apertus_jax.storage.run_folder import list_steps, step_folder

# Small enough that several threads and processes share the digests, large enough for object stores.
DATA_FILE_BYTES = 64 << 20
TIMEOUT_SECONDS = 1800

_log = logging.getLogger(__name__)
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class SaveReport:
    """Timing of a finished save; `blocking_seconds` is what the training loop waited."""

    step: int
    blocking_seconds: float
    write_seconds: float
    digest_seconds: float
    total_bytes: int


class Checkpointer:
    """Asynchronous, sharded checkpoints with digests, in one folder per step.

    A step is valid when its commit marker is there and every file has the size and digest in it. A crash at any moment
    leaves the old valid steps or the new ones. Every process of a job calls each method; the folder is shared.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        keep_last: int = 3,
        keep_every: int | None = None,
        timeout_seconds: int = TIMEOUT_SECONDS,
    ) -> None:
        """Opens a folder of checkpoints; nothing is written or read yet.

        Args:
          folder: local path or object store; step folders go right below it.
          keep_last: how many of the newest steps stay.
          keep_every: multiples of this many steps stay too; None or 0 for none.
          timeout_seconds: how long a process waits for the others of its job.

        Raises:
          UserError: a retention that would keep nothing.
        """
        if keep_last < 1:
            raise UserError(f"Checkpointer.keep_last={keep_last} would keep no checkpoint; use 1 or more")
        if keep_every is not None and keep_every < 0:
            raise UserError(f"Checkpointer.keep_every={keep_every} is negative; use a number of steps, or None")
        self.folder = epath.Path(folder)
        self.keep_last = keep_last
        self.keep_every = keep_every
        self.rejected: tuple[Rejection, ...] = ()
        self.last_save: SaveReport | None = None
        self._timeout_seconds = timeout_seconds
        self._settled: set[int] = set()
        self._number, self._saves = next(_numbers), 0  # name the barriers of this object, the same in every process
        self._pending: tuple[concurrent.futures.Future[SaveReport], int] | None = None  # and its step
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        _silence_reports_of_errors_raised_here()
        self._orbax = ocp.AsyncCheckpointer(
            ocp.PyTreeCheckpointHandler(use_compression=False),
            # With asynchronous directories, a full disk leaves Orbax threads waiting for one until the timeout.
            async_options=ocp.AsyncOptions(timeout_secs=timeout_seconds, create_directories_asynchronously=False),
            checkpoint_metadata_store=ocp.metadata.metadata_store(enable_write=True, blocking_write=True),
        )

    # Saving

    def save(self, step: int, state: Any, metadata: Mapping[str, Any], wait: bool = False) -> bool:
        """Starts saving a state; its values are captured before this returns, so it may be donated at once.

        Waits for the previous save first. Errors of the background part surface at the next `save`, `wait` or `close`.

        Args:
          step: the step the state belongs to.
          state: tree of jax arrays (any sharding), NumPy arrays, NumPy scalars or Python numbers.
          metadata: JSON values that describe the run.
          wait: return only when the step is committed.

        Returns:
          False when this object saved or restored this very step already, and there is nothing to do.

        Raises:
          UserError: this save or the previous one failed (a full disk is named), or the step exists already.
        """
        self.wait()
        if step in self._settled:
            return False
        leaves = leaf_tools.named_leaves(state)
        table = leaf_tools.describe(leaves)
        stored = leaf_tools.nested({path: leaf_tools.captured(leaf) for path, leaf in leaves.items()})
        json.dumps(metadata)
        self._refuse_existing(step)
        started = time.perf_counter()
        with self._removed_on_failure(step), self._failures_explained(step):
            if jax.process_index() == 0:
                self._remove_leftovers()
            self._orbax.save(
                step_folder(self.folder, step) / step_folders.STATE_FOLDER,
                args=ocp.args.PyTreeSave(stored, ocdbt_target_data_file_size=DATA_FILE_BYTES),
            )
        blocking = time.perf_counter() - started
        self._saves += 1
        self._pending = self._pool.submit(self._finish, step, table, dict(metadata), started, blocking), step
        if wait:
            self.wait()
        return True

    def wait(self) -> None:
        """Waits until the save under way is committed.

        Raises:
          UserError: it failed; what it wrote is removed and the last good step is named.
        """
        if self._pending is None:
            return
        (pending, step), self._pending = self._pending, None
        with self._failures_explained(step):
            self.last_save = pending.result()
        self._settled.add(step)

    def close(self) -> None:
        """Waits for the save under way and frees the threads.

        Raises:
          UserError: the save failed.
        """
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_existing(self, step: int) -> None:
        if step not in self.committed_steps():
            return
        rejection = self._examine(step)
        if rejection is None:
            raise UserError(
                f"{step_folder(self.folder, step)} already holds a valid checkpoint of step {step}; "
                "continue from it, remove it, or choose another run folder"
            )
        _log.warning("replacing the damaged checkpoint of %s", rejection)
        if jax.process_index() == 0:
            step_folders.remove_step(self.folder, step)

    def _remove_leftovers(self) -> None:
        for step in list_steps(self.folder, committed=False):
            _log.info("removing what an interrupted save of step %d left behind", step)
            step_folders.remove_step(self.folder, step)

    def _finish(
        self, step: int, table: Mapping[str, Any], metadata: Mapping[str, Any], started: float, blocking: float
    ) -> SaveReport:
        """Runs in the background: waits for Orbax, digests, commits, then applies retention."""
        folder = step_folder(self.folder, step)
        written = started

        def write() -> None:
            nonlocal written
            self._orbax.wait_until_finished()
            written = time.perf_counter()
            if jax.process_index() == 0:
                step_folders.write_metadata(folder, step, table, metadata)

        key = f"checkpointer_{self._number}_save_{self._saves}"
        with self._removed_on_failure(step):
            files = commit_jointly(folder, step, write, key, self._timeout_seconds)
        digested = time.perf_counter()
        if files is not None:
            self._apply_retention(step)
        total_bytes = sum(record["bytes"] for record in (files or {}).values())
        return SaveReport(step, blocking, written - started, digested - written, total_bytes)

    def _apply_retention(self, newest: int) -> None:
        committed = set(list_steps(self.folder, committed=True))
        damaged = {rejection.step for rejection in self.rejected if rejection.step < newest} & committed
        surplus = step_folders.steps_to_remove(committed - damaged, newest, self.keep_last, self.keep_every)
        for step in sorted(damaged.union(surplus)):
            surplus_folder = step_folder(self.folder, step)
            try:
                gone = retried(functools.partial(remove_unless_read, surplus_folder), f"removing {surplus_folder}")
            except OSError as error:  # the newest step is committed all the same
                _log.warning("%s was not removed (%s); the save after that removes it", surplus_folder, error)
                continue
            if not gone:
                _log.info("step %d is being read; the save after that removes it", step)

    @contextlib.contextmanager
    def _removed_on_failure(self, step: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if jax.process_index() == 0:
                step_folders.remove_while_written(self.folder, step)
            raise

    @contextlib.contextmanager
    def _failures_explained(self, step: int) -> Iterator[None]:
        # Orbax and TensorStore raise storage failures as any of these three.
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            # The others may be anywhere now: this process alone looks.
            good = list_steps(self.folder, committed=True) if jax.process_index() == 0 else sorted(self._settled)
            last = f"the last good checkpoint is step {good[-1]}" if good else "there is no good checkpoint yet"
            if is_full_disk(error):
                what, advice = "the disk is full", "free space and resume"
            else:
                first_line = (str(error).splitlines() or [""])[0][:300]
                what, advice = f"{type(error).__name__}: {first_line}", "mend the cause and resume"
            kind = TemporaryFailure if is_transient(error) else UserError
            raise kind(
                f"saving step {step} in {self.folder} failed: {what}; what it wrote was removed; {last}; {advice}"
            ) from error

    # Finding

    def committed_steps(self) -> list[int]:
        """Returns the steps that have a commit marker, ascending, as the first process sees them; none is verified."""
        return first_says(lambda: list_steps(self.folder, committed=True))

    def valid_steps(self) -> list[int]:
        """Returns the steps, ascending, of which every file still has its digest. Reads every file."""
        self.wait()
        return [step for step in self.committed_steps() if self._examine(step) is None]

    def require_valid(self, step: int) -> None:
        """Raises UserError unless every file of a step still has its digest; the message names the file."""
        if (rejection := self._examine(step)) is not None:
            raise UserError(f"the checkpoint in {self.folder} cannot be used: {rejection}; choose another step")

    def latest_valid_step(self) -> int | None:
        """Returns the newest valid step, or None; why newer ones were passed over is logged and left in `rejected`."""
        self.wait()
        rejected: list[Rejection] = []
        found = None
        for step in reversed(self.committed_steps()):
            rejection = self._examine(step)
            if rejection is None:
                found = step
                break
            _log.warning("checkpoint rejected: %s", rejection)
            rejected.append(rejection)
        self.rejected = tuple(rejected)
        return found

    def _examine(self, step: int) -> Rejection | None:
        """Verifies a step; several processes read a share of the files each and agree on the outcome."""
        folder = step_folder(self.folder, step)
        found = first_says(lambda: self._read_manifest(step))
        if "rejection" in found:
            return Rejection(**found["rejection"])
        files = found["files"]
        names = sorted(files)
        share = step_folders.file_share(names, jax.process_index(), jax.process_count())
        damages = step_folders.damages(folder, files, share)
        bad = set_anywhere(np.array([name in damages for name in names], bool))
        elsewhere = "is damaged (another process saw it)"
        damages = {name: damages.get(name, elsewhere) for name, is_bad in zip(names, bad, strict=True) if is_bad}
        if not damages:
            return None
        name = min(damages)
        more = f" (and {len(damages) - 1} more files)" if len(damages) > 1 else ""
        return Rejection(step, name, damages[name] + more)

    def _read_manifest(self, step: int) -> dict[str, Any]:
        """Returns what the commit marker of a step says, or why it is rejected, as a JSON value."""
        manifest = step_folders.read_manifest(self.folder, step)
        if isinstance(manifest, Rejection):
            return {"rejection": dataclasses.asdict(manifest)}
        return {"files": manifest["files"]}

    # Restoring

    def newest_has_leaves(self, part: str) -> bool:
        """Returns whether the newest step whose metadata can be read has leaves of the part `part` of the state."""

        def look() -> bool:
            for step in reversed(list_steps(self.folder, committed=True)):
                with contextlib.suppress(UserError):
                    leaves = step_folders.read_metadata(self.folder, step)["leaves"]
                    return any(name == part or name.startswith(f"{part}/") for name in leaves)
            return False

        return first_says(look)

    def read_metadata(self, step: int | None = None) -> tuple[dict[str, Any], int]:
        """Returns the trainer's metadata and the step (default: the newest valid one), without reading the state.

        Raises:
          UserError: there is no valid checkpoint, or this one's marker or metadata is damaged.
        """
        step = self._newest() if step is None else step
        return step_folders.read_metadata(self.folder, step)["metadata"], step

    def restore(
        self, abstract_state: Any, step: int | None = None, partial: bool = False
    ) -> tuple[Any, dict[str, Any], int]:
        """Restores a verified checkpoint bit for bit onto any mesh.

        Args:
          abstract_state: the tree to restore, its leaves `jax.ShapeDtypeStruct` (or arrays), whose shardings say where
            each array goes; leaves without one come back as NumPy values.
          step: which step; default the newest valid one.
          partial: leaves of the checkpoint that `abstract_state` lacks (an optimizer state, say) are not read.

        Returns:
          The state, the metadata it was saved with, and the step.

        Raises:
          UserError: no valid checkpoint; the asked step is damaged (names the file); leaves are missing, left over,
            of another shape (names leaf and both shapes) or dtype.
          TemporaryFailure: storage keeps failing for a moment.
        """
        self.wait()
        if step is None:
            step = self._newest()
        else:
            self.require_valid(step)
        folder = step_folder(self.folder, step)
        saved = step_folders.read_metadata(self.folder, step)
        wanted = leaf_tools.named_leaves(abstract_state)
        leaf_tools.check_compatible(saved["leaves"], leaf_tools.describe(wanted), str(folder), partial)
        stored = {path: leaf_tools.stored_form(leaf) for path, leaf in wanted.items()}
        arguments = ocp.args.PyTreeRestore(
            item=leaf_tools.nested(stored),
            restore_args=leaf_tools.nested({p: leaf_tools.restore_arguments(x) for p, x in stored.items()}),
            partial_restore=partial,
        )
        read = functools.partial(self._orbax.restore, folder / step_folders.STATE_FOLDER, args=arguments)
        # Processes of a job read together, so that none can begin again alone: they start again together.
        attempts = ATTEMPTS if jax.process_count() == 1 else 1
        restored = leaf_tools.named_leaves(step_folders.read_again(read, folder, attempts))
        self._settled.add(step)
        values = [leaf_tools.restored_like(leaf, restored[path]) for path, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), values), saved["metadata"], step

    def _newest(self) -> int:
        step = self.latest_valid_step()
        if step is None:
            reasons = "; ".join(str(rejection) for rejection in self.rejected)
            raise UserError(f"there is no valid checkpoint in {self.folder}" + (f" ({reasons})" if reasons else ""))
        return step


def _is_not_orbax_error(record: logging.LogRecord) -> bool:
    return not (record.levelno == logging.ERROR and "orbax" in record.pathname)


def _silence_reports_of_errors_raised_here() -> None:
    # Orbax logs the traceback of a failed background save before it raises it; people get our one line instead.
    logging.getLogger("absl").addFilter(_is_not_orbax_error)

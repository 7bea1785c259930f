"""Step folders of checkpoints: valid with a commit marker and a matching digest for every file.

`storage/run_folder.py` draws it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from etils import epath

from apertus_jax.errors import TemporaryFailure, UserError
from apertus_jax.process.retries import ATTEMPTS, Result, is_transient, retried
from apertus_jax.storage import artifacts
from apertus_jax.storage.durable_files import sync, sync_all
from apertus_jax.storage.json_reader import parse_json, read_json_object
from apertus_jax.storage.listing import regular_file
from apertus_jax.storage.run_folder import step_folder

KIND = "checkpoint"
STATE_FOLDER = "state"
METADATA_FILE = "metadata.json"
DIGEST_THREADS = 4
MANIFEST_INDENT = 1
POLL_SECONDS = 0.01
QUIET_SECONDS = 0.05
LONGEST_REMOVAL_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A checkpoint that is not used: the damaged file, and what is wrong with it."""

    step: int
    file: str
    reason: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.file} {self.reason}"


def read_again(read: Callable[[], Result], path: epath.Path, attempts: int = ATTEMPTS) -> Result:
    """Returns what `read` reads of a path, tried again where storage fails for a moment: that is no damage.

    Raises:
      TemporaryFailure: it kept failing so.
    """
    try:
        return retried(read, f"reading {path}", attempts)
    except Exception as error:
        if not is_transient(error):
            raise
        first_line = (str(error).splitlines() or [""])[0][:300]
        raise TemporaryFailure(f"{path} cannot be read now: {first_line}; start again to go on from there") from error


def remove_step(root: epath.PathLike, step: int) -> None:
    """Removes a step's folder; its marker goes first, so that a crash leaves a leftover and never half a checkpoint."""
    folder = step_folder(root, step)
    (folder / artifacts.COMMIT_MARKER).unlink(missing_ok=True)
    folder.rmtree(missing_ok=True)


def remove_while_written(root: epath.PathLike, step: int) -> None:
    """Removes the folder of a failed save. Threads of the save may still write for a moment after it has failed."""
    folder = step_folder(root, step)
    quiet_since = None
    deadline = time.monotonic() + LONGEST_REMOVAL_SECONDS
    while time.monotonic() < deadline:
        if folder.exists():
            quiet_since = None
            # The tree may grow while it is removed: what is left is removed in the next round.
            with contextlib.suppress(OSError):
                remove_step(root, step)
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > QUIET_SECONDS:
            return
        time.sleep(POLL_SECONDS)


def steps_to_remove(committed: Iterable[int], newest: int, keep_last: int, keep_every: int | None) -> list[int]:
    """Returns which older steps retention gives up now that `newest` is committed.

    Kept are the last `keep_last` steps up to `newest` and every multiple of `keep_every`. `newest` itself is always
    kept; later steps, left by a history that was walked back from, are not judged.
    """
    older = sorted((step for step in committed if step < newest), reverse=True)
    surplus = older[keep_last - 1 :]
    return [step for step in surplus if not keep_every or step % keep_every]


def write_metadata(folder: epath.Path, step: int, leaves: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Writes the step, the table of leaves and the trainer's metadata beside the state."""
    content = {"step": step, "leaves": dict(leaves), "metadata": dict(metadata)}
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    retried(lambda: (folder / METADATA_FILE).write_text(text), f"writing {folder / METADATA_FILE}")


def file_share(names: Iterable[str], process_index: int, process_count: int) -> list[str]:
    """Returns the files that one of several processes reads: a file falls to exactly one, by the hash of its name."""
    return [name for name in names if int(artifacts.digest_bytes(name.encode()), 16) % process_count == process_index]


def _file_record(path: epath.Path) -> dict[str, Any]:
    size, digest = retried(lambda: artifacts.size_and_digest(path), f"reading back {path}")
    return {"bytes": size, "blake2b": digest}


def digest_files(folder: epath.Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns size and digest of each named file, several files at a time."""
    names = list(names)
    with concurrent.futures.ThreadPoolExecutor(DIGEST_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: _file_record(folder / name), names), strict=True))


def commit(folder: epath.Path, step: int, files: Mapping[str, Any]) -> None:
    """Writes the commit marker, last of all; on a local path it is on the disk when this returns."""
    manifest = artifacts.sealed({"kind": KIND, "summary": {"step": step}, "files": dict(files)})
    sync_all(folder, sorted(files))
    marker, text = folder / artifacts.COMMIT_MARKER, artifacts.manifest_text(manifest, MANIFEST_INDENT)
    retried(lambda: artifacts.write_atomically(marker, text), f"writing {marker}")
    sync(folder.parent)


def read_manifest(root: epath.PathLike, step: int) -> dict[str, Any] | Rejection:
    """Returns the manifest of a step, or why it cannot be trusted: it vouches for itself, to the last byte."""
    marker = step_folder(root, step) / artifacts.COMMIT_MARKER
    name = artifacts.COMMIT_MARKER
    if not marker.exists():
        return Rejection(step, name, "is missing: the save did not finish")
    try:
        text = read_again(regular_file(marker).read_bytes, marker).decode()
        manifest = parse_json(text, name)
        if fault := artifacts.fault_of(manifest):
            return Rejection(step, name, fault)
        if text != artifacts.manifest_text(manifest, MANIFEST_INDENT) or manifest["kind"] != KIND:
            return Rejection(step, name, "is damaged (it has changed since it was written)")
        if METADATA_FILE not in manifest["files"]:
            return Rejection(step, name, "is damaged (it lacks the metadata)")
        of_step = manifest["summary"].get("step")
    except TemporaryFailure:
        raise
    except (UserError, ValueError, OSError) as error:
        return Rejection(step, name, f"is damaged ({getattr(error, 'reason', type(error).__name__)})")
    if of_step != step:
        return Rejection(step, name, f"belongs to step {str(of_step)[:20]}: the folder was renamed")
    return manifest


def damages(folder: epath.Path, files: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Returns what is wrong with each damaged file among `names`, several files at a time."""
    names = list(names)
    with concurrent.futures.ThreadPoolExecutor(DIGEST_THREADS) as pool:
        found = list(pool.map(lambda name: _damage_of(folder / name, files[name]), names))
    return {name: damage for name, damage in zip(names, found, strict=True) if damage is not None}


def _damage_of(path: epath.Path, record: Mapping[str, Any]) -> str | None:
    return read_again(lambda: artifacts.damage_of(path, record), path)


def read_metadata(root: epath.PathLike, step: int) -> dict[str, Any]:
    """Returns `{"step", "leaves", "metadata"}` of a committed step; only the marker and this file are verified.

    Raises:
      UserError: the marker or the metadata is missing or damaged; the message names the file.
    """
    manifest = read_manifest(root, step)
    path = step_folder(root, step) / METADATA_FILE
    if isinstance(manifest, Rejection):
        raise UserError(f"the checkpoint in {path.parent} cannot be used: {manifest.file} {manifest.reason}")
    damage = _damage_of(path, manifest["files"][METADATA_FILE])
    if damage is not None:
        raise UserError(f"the checkpoint in {path.parent} cannot be used: {METADATA_FILE} {damage}")
    return read_again(lambda: read_json_object(path, allow_nan=True), path)

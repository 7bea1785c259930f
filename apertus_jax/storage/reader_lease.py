"""Shared leases of readers: what somebody reads is not removed under their hands.

On a local path a reader holds a shared lock of the operating system on the commit marker, and who removes asks for the
exclusive one: no file is left behind, a reader needs no right to write, and the lock of a killed reader dies with it.
On an object store a reader keeps a small hidden file with a heartbeat beside the marker; one that stopped beating
counts no longer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Self

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import JSONError, read_json_object
from apertus_jax.storage.lease import HEARTBEAT_SECONDS, MISSED_HEARTBEATS
from apertus_jax.storage.listing import COMMIT_MARKER, is_local

READER_PREFIX = ".reading-"
_log = logging.getLogger(__name__)


class ReaderLease:
    """Keeps a committed folder from being removed until it is released, collected, or its process has ended."""

    def __init__(self, folder: epath.PathLike) -> None:
        """Takes the lease; any number of readers may hold one.

        Raises:
          UserError: the folder is not committed, or is just being removed.
        """
        self.folder = epath.Path(folder)
        hold = _locked_marker if is_local(folder) else _beating_file
        self._held = weakref.finalize(self, *hold(self.folder))
        _open_leases.add(self)

    def release(self) -> None:
        """Gives the lease back; a second call does nothing."""
        _open_leases.discard(self)
        self._held()

    def leave_to_parent(self) -> None:
        """Forgets the lease in a forked child. Closing is not unlocking: the parent's descriptor still holds it."""
        if is_local(self.folder):
            self._held()
        else:
            self._held.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_open_leases: weakref.WeakSet[ReaderLease] = weakref.WeakSet()


def _leave_leases_to_parent() -> None:
    # A forked worker that outlives its killed parent would otherwise keep the lock.
    for lease in list(_open_leases):
        lease.leave_to_parent()
    _open_leases.clear()


os.register_at_fork(after_in_child=_leave_leases_to_parent)


def remove_unless_read(folder: epath.PathLike) -> bool:
    """Removes a committed folder, marker first, unless somebody reads it; returns whether it is gone.

    A crash on the way leaves a folder without a marker and never half of a committed one.
    """
    root = epath.Path(folder)
    gone = _unlink_local_marker(root) if is_local(root) else _unlink_remote_marker(root)
    if gone:
        root.rmtree(missing_ok=True)
    return gone


def _locked_marker(folder: epath.Path) -> tuple[Any, ...]:
    """Locks the marker for reading; returns the call that unlocks it."""
    marker = os.path.join(folder, COMMIT_MARKER)
    try:
        descriptor = os.open(marker, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise _removed(folder) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Whoever removed the marker held the exclusive lock: what was opened before that is gone now.
        if not os.path.samestat(os.fstat(descriptor), os.stat(marker)):
            raise _removed(folder)
    except (BlockingIOError, FileNotFoundError) as error:
        os.close(descriptor)
        raise _removed(folder) from error
    except BaseException:
        os.close(descriptor)
        raise
    return os.close, descriptor


def _unlink_local_marker(folder: epath.Path) -> bool:
    marker = os.path.join(folder, COMMIT_MARKER)
    try:
        # Writable, because network file systems give exclusive locks on nothing else.
        descriptor = os.open(marker, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(marker)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _beating_file(folder: epath.Path) -> tuple[Any, ...]:
    """Announces a reader with a file that is rewritten every few seconds; returns the call that ends it."""
    path = folder / f"{READER_PREFIX}{secrets.token_hex(8)}.json"
    ended = threading.Event()
    try:
        path.write_text(json.dumps({"pid": os.getpid(), "time": time.time()}))
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno not in (errno.EACCES, errno.EROFS):
            raise
        # What is removed while it is read does not pass for whole: digests are compared after reading.
        _log.warning("%s cannot be written to, so whoever trains there cannot know that it is read", folder)
        return (ended.set,)
    # Announced first, looked at afterwards; who removes does it the other way round, so that one of the two gives way.
    if not (folder / COMMIT_MARKER).exists():
        path.unlink(missing_ok=True)
        raise _removed(folder)
    thread = threading.Thread(target=_beat, args=(path, ended), name="reader", daemon=True)
    thread.start()
    return _end_beating, path, ended, thread


def _beat(path: epath.Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):  # the next beat makes up for it
            path.write_text(json.dumps({"pid": os.getpid(), "time": time.time()}))


def _end_beating(path: epath.Path, ended: threading.Event, thread: threading.Thread) -> None:
    ended.set()
    thread.join()
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _unlink_remote_marker(folder: epath.Path) -> bool:
    marker = folder / COMMIT_MARKER
    if any(_beating(folder)):
        return False
    try:
        content = marker.read_text()
    except FileNotFoundError:
        return True
    marker.unlink(missing_ok=True)
    if any(_beating(folder)):  # one came in between, and has seen the marker
        marker.write_text(content)
        return False
    return True


def _beating(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields the files of readers that are alive."""
    for path in folder.iterdir():
        if path.name.startswith(READER_PREFIX):
            with contextlib.suppress(JSONError, FileNotFoundError):
                beaten = read_json_object(path).get("time")
                if isinstance(beaten, int | float) and time.time() - beaten < MISSED_HEARTBEATS * HEARTBEAT_SECONDS:
                    yield path


def _removed(folder: epath.Path) -> UserError:
    return UserError(f"{folder} was removed while it was opened; give another step")

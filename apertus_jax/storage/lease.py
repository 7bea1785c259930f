"""Lease of an output folder: one process writes in it, a second is told which.

On a local path the lease is an advisory lock of the operating system, which dies with its process, so a killed run
leaves nothing to clean up. On an object store it is a small file with a heartbeat. In a job of many processes only
the first takes the lease, for all of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import JSONError, parse_json
from apertus_jax.storage.listing import LEASE_FILE, is_local

LARGEST_LEASE = 4096
HEARTBEAT_SECONDS = 15.0
MISSED_HEARTBEATS = 4


def acquire_lease(folder: epath.PathLike, stays: bool = True) -> LocalLease | HeartbeatLease:
    """Takes the lease of a folder (created when missing); use it as a context manager, or `release` it.

    Args:
      folder: what only one process may write in.
      stays: whether the released lease leaves its file behind in a local folder.

    Raises:
      UserError: another process holds it; the message names its host and pid.
    """
    return LocalLease(folder, stays) if is_local(folder) else HeartbeatLease(folder)


def require_unheld(folder: epath.PathLike) -> None:
    """Raises UserError when another process holds the lease of a local folder; takes and writes nothing."""
    if not is_local(folder):
        return
    path = os.path.join(os.fspath(folder), LEASE_FILE)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # nothing that could be locked
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(epath.Path(folder), descriptor) from None
    finally:
        os.close(descriptor)


def _held(folder: epath.Path, descriptor: int) -> UserError:
    # The holder may have taken the lock and not yet written its name.
    holder = _parsed_with_patience(lambda: os.pread(descriptor, LARGEST_LEASE, 0)) or {}
    return _in_use(folder, holder, "wait for it or stop it, or choose another folder")


def _in_use(folder: epath.Path, holder: dict[str, Any], advice: str) -> UserError:
    who = f"process {holder.get('pid', '(unknown)')} on {holder.get('host', '(unknown host)')}"
    return UserError(f"{folder} is in use by {who}; {advice}")


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _parsed_with_patience(read: Callable[[], bytes]) -> dict[str, Any] | None:
    for _ in range(20):
        with contextlib.suppress(JSONError):
            holder = parse_json(read(), LEASE_FILE)
            if isinstance(holder, dict):
                return holder
        time.sleep(0.05)
    return None


def _is_lease(content: bytes) -> bool:
    """Returns whether this is what a lease holds: nothing (its process was killed at once), or a holder."""
    if not content.strip(b"\0"):
        return True
    try:
        holder = parse_json(content, LEASE_FILE)
    except JSONError:
        return False
    return isinstance(holder, dict) and {"host", "pid"} <= holder.keys() <= {"host", "pid", "token", "time"}


class LocalLease:
    """A lease that the operating system drops when its process ends, however it ends."""

    def __init__(self, folder: epath.PathLike, stays: bool = True) -> None:
        """Takes the lease.

        Raises:
          UserError: another process (or another lease of this one) holds it, or its file is no file.
        """
        self.folder = epath.Path(folder)
        self._stays = stays
        self._path = os.path.join(os.fspath(self.folder), LEASE_FILE)
        self._descriptor: int | None = self._locked()
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(_holder()).encode(), 0)
        except BaseException:  # a full disk, most likely
            self.release()
            raise
        _open_leases.add(self)

    def _locked(self) -> int:
        """Returns a descriptor of the file, locked. A holder may remove file and folder while this one opens it."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                # Not blocking, in case someone put a pipe there.
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o644)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    raise self._not_ours() from error
                raise
            try:
                if self._lock(descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _lock(self, descriptor: int) -> bool:
        """Locks the open file; returns False when it is no longer the one in the folder.

        Raises:
          UserError: another process has locked it, or it is not a lease.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(self.folder, descriptor) from None
        status = os.fstat(descriptor)
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if (found.st_dev, found.st_ino) != (status.st_dev, status.st_ino):
            return False
        if not stat.S_ISREG(status.st_mode) or not _is_lease(os.pread(descriptor, LARGEST_LEASE, 0)):
            raise self._not_ours()
        return True

    def _not_ours(self) -> UserError:
        return UserError(f"{self._path} is not a lease of this program; move it away or choose another folder")

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def check(self) -> None:
        """Does nothing: a local lease cannot be lost while its process lives."""

    def release(self) -> None:
        """Gives the lease back; a second call does nothing."""
        _open_leases.discard(self)
        if self._descriptor is not None and not self._stays:
            # Removed before the lock is dropped: whoever locks this file afterwards sees that it is gone.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        self._close()

    def leave_to_parent(self) -> None:
        """Forgets the lease in a forked child. Closing is not unlocking: the parent's descriptor still holds it."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_open_leases: weakref.WeakSet[LocalLease] = weakref.WeakSet()


def _leave_leases_to_parent() -> None:
    # A forked worker that outlives its killed parent would otherwise keep the lock.
    for lease in list(_open_leases):
        lease.leave_to_parent()
    _open_leases.clear()


os.register_at_fork(after_in_child=_leave_leases_to_parent)


class HeartbeatLease:
    """A lease for stores without locks: a file that its holder rewrites every few seconds.

    A lease whose heartbeat is `MISSED_HEARTBEATS` intervals old is taken over, after one more interval in which it
    did not move. Stores without compare-and-swap leave a small window in which two processes both believe they won;
    each reads its lease back, and `check` reports a lease that was lost.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes the lease.

        Raises:
          UserError: another process holds it, or won the race for it.
        """
        self.folder = epath.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / LEASE_FILE
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = clock
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._lost_to: dict[str, Any] | None = None
        self._take()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def _read(self) -> dict[str, Any] | None:
        # A reader may meet a lease that is just being rewritten.
        try:
            return _parsed_with_patience(self._path.read_bytes)
        except FileNotFoundError:
            return None

    def _write(self) -> None:
        self._path.write_text(json.dumps(_holder() | {"token": self._token, "time": self._clock()}))

    def _take(self) -> None:
        found = self._read()
        if found is not None:
            patience = MISSED_HEARTBEATS * self._heartbeat_seconds
            renewed = found.get("time")
            age = self._clock() - renewed if isinstance(renewed, int | float) else patience
            if age < patience:
                advice = f"its lease ends {patience - age:.0f} s from now unless it is renewed"
                raise _in_use(self.folder, found, f"wait for it or stop it ({advice})")
            time.sleep(self._heartbeat_seconds)
            if self._read() != found:
                raise _in_use(
                    self.folder, self._read() or found, "it renewed its lease just now; wait for it or stop it"
                )
        self._write()
        time.sleep(min(1.0, self._heartbeat_seconds / 4))
        winner = self._read()
        if winner is None or winner.get("token") != self._token:
            raise _in_use(self.folder, winner or {}, "it took the lease at the same moment")

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat_seconds):
            found = self._read()
            if found is not None and found.get("token") != self._token:
                self._lost_to = found
                return
            self._write()

    def check(self) -> None:
        """Checks that the lease is still ours; call it before writing what a second process could overwrite.

        Raises:
          UserError: another process took the lease over.
        """
        if self._lost_to is not None:
            raise _in_use(self.folder, self._lost_to, "it took over the lease of this process; this one must stop")

    def release(self) -> None:
        """Gives the lease back; a second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        found = self._read()
        if found is not None and found.get("token") == self._token:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

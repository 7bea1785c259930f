"""The lease of a run folder: one process trains in it, a second one is told who does.

On a local path the lease is an advisory lock of the operating system, which dies with its process, so a killed run
leaves nothing to clean up. On an object store it is a small file with a heartbeat. In a job of many processes only
the first takes the lease, for all of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

from etils import epath

from apertus_jax.errors import UserError

LEASE_FILE = "LEASE.json"
HEARTBEAT_SECONDS = 15.0
MISSED_HEARTBEATS = 4


def is_local(path: epath.PathLike) -> bool:
    """Returns whether `path` is on a file system of this machine rather than in an object store."""
    return "://" not in os.fspath(path)


def acquire_lease(folder: epath.PathLike) -> LocalLease | HeartbeatLease:
    """Takes the lease of a run folder (created when missing); use it as a context manager, or `release` it.

    Raises:
      UserError: another process holds it; the message names its host and pid.
    """
    return LocalLease(folder) if is_local(folder) else HeartbeatLease(folder)


def _in_use(folder: epath.Path, holder: dict[str, Any], advice: str) -> UserError:
    who = f"process {holder.get('pid', '(unknown)')} on {holder.get('host', '(unknown host)')}"
    return UserError(f"{folder} is in use by {who}; {advice}")


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _parsed_with_patience(read: Callable[[], bytes]) -> dict[str, Any] | None:
    for _ in range(20):
        with contextlib.suppress(ValueError):
            return json.loads(read())
        time.sleep(0.05)
    return None


class LocalLease:
    """A lease that the operating system drops when its process ends, however it ends."""

    def __init__(self, folder: epath.PathLike) -> None:
        """Takes the lease.

        Raises:
          UserError: another process (or another lease of this one) holds it.
        """
        self.folder = epath.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = os.open(self.folder / LEASE_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read_holder()
            self._close()
            raise _in_use(self.folder, holder, "wait for it or stop it, or choose another run folder") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(_holder()).encode(), 0)
        _open_leases.add(self)

    def _read_holder(self) -> dict[str, Any]:
        # The holder may have taken the lock and not yet written its name.
        return _parsed_with_patience(lambda: os.pread(self._descriptor, 4096, 0)) or {}

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def check(self) -> None:
        """Does nothing: a local lease cannot be lost while its process lives."""

    def release(self) -> None:
        """Gives the lease back; a second call does nothing."""
        _open_leases.discard(self)
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_open_leases: weakref.WeakSet[LocalLease] = weakref.WeakSet()


def _leave_leases_to_parent() -> None:
    # A forked worker that outlives its killed parent would otherwise keep the lock. Closing is not unlocking: the
    # parent's own descriptor still holds it.
    for lease in list(_open_leases):
        lease.release()


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
        self._thread = threading.Thread(target=self._beat, name="run_folder_lease", daemon=True)
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
            age = self._clock() - found["time"]
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
        if winner is None or winner["token"] != self._token:
            raise _in_use(self.folder, winner or {}, "it took the lease at the same moment")

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat_seconds):
            found = self._read()
            if found is not None and found["token"] != self._token:
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
        if found is not None and found["token"] == self._token:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

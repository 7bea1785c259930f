"""Durable file writes (fsync, rename): on the disk, whole, after a crash of the machine too."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Sequence

from etils import epath

from apertus_jax.storage.listing import is_local


def write_atomically(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a small file so that a reader sees the old content or the new, never a part.

    On a local path it is on the disk when this returns. Two processes that write the same file do not meet in a
    partial one: each has its own.
    """
    target = epath.Path(path)
    data = content.encode() if isinstance(content, str) else content
    if not is_local(target):
        target.write_bytes(data)  # an object appears whole or not at all
        return
    descriptor, partial = _open_partial(os.fspath(target.parent), target.name)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    sync(target.parent)


def _open_partial(folder: str, name: str) -> tuple[int, str]:
    """Opens a partial file that no other writer has, empty and locked while it is open; returns descriptor and path.

    What a killed process left is used again, so that nothing heaps up.
    """
    path = os.path.join(folder, f".{name}.partial")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # locked by another writer, or by none on file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
                os.ftruncate(descriptor, 0)
                return descriptor, path
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    path = os.path.join(folder, f".{name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path


def sync(path: epath.PathLike) -> None:
    """Returns when a file, or the list of names in a folder, is on the disk; does nothing in object stores."""
    if not is_local(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP):  # file systems without it say so
            raise
    finally:
        os.close(descriptor)


def sync_all(root: epath.Path, names: Sequence[str]) -> None:
    """Returns when the named files below `root` are on the disk, and the folders that name them."""
    folders = {parent for name in names for parent in (root / name).parents if parent == root or root in parent.parents}
    for path in [*(root / name for name in names), *sorted(folders, reverse=True)]:
        sync(path)

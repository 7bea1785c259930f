"""Directory listing and file opening that are safe on what someone else may have put there.

Hidden files and folders are not listed, links are followed and never round in circles, each real file comes once, and
what only looks like a file (a pipe, a socket, a link to nothing) is refused in one line before anything waits for it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from apertus_jax.errors import UserError

COMMIT_MARKER = "COMMITTED.json"
BUILDING_MARKER = "BUILDING.json"
LEASE_FILE = "LEASE.json"
MARKERS = frozenset((COMMIT_MARKER, BUILDING_MARKER, LEASE_FILE))
_KINDS = (
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def is_local(path: epath.PathLike) -> bool:
    """Returns whether `path` is on a file system of this machine rather than in an object store."""
    return "://" not in os.fspath(path)


def is_inside(name: str) -> bool:
    """Returns whether a name that someone wrote down can only be that of something below the folder it is of."""
    return bool(name) and "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))


def list_files(
    folder: epath.PathLike, suffixes: str | Sequence[str] | None = None, every_name: bool = False
) -> list[str]:
    """Returns the paths of the files below `folder`, relative to it, sorted.

    Left out are markers of this project and whatever is hidden, at every level. Links are followed, but not to the
    folders that the link lies in. A file that has several names comes once: under its own name rather than a link's,
    then under the first in order.

    Args:
      folder: what is listed.
      suffixes: only names that end in one of these.
      every_name: a file with several names comes under each of them.

    Raises:
      UserError: the folder is missing, or something that would be listed is no file (a pipe, a socket, a device, a
        link that leads nowhere or round in circles); one line names it.
    """
    endings = (suffixes,) if isinstance(suffixes, str) else None if suffixes is None else tuple(suffixes)
    root = epath.Path(folder)
    if not is_local(root):
        return sorted(_remote_files(root, endings))
    return _LocalListing(root, endings, every_name).names()


def regular_file(path: epath.PathLike, what: str = "") -> epath.Path:
    """Returns `path` when it is a file that can be read to its end.

    Args:
      path: the file.
      what: names its purpose in errors, for example "the tokenizer".

    Raises:
      UserError: it is missing, a folder, a pipe, a socket, a device, a link to nothing or round in circles, or has a
        name that no file can have; one line names it.
    """
    file = epath.Path(path)
    shown = f"{what} {file}" if what else str(file)
    if not is_local(file):
        return file
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError) as error:
        raise UserError(f"{shown} {_why_missing(file, error)}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{shown} is {_kind(mode)}, not a file; give a regular file")
    return file


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "something unknown")


def _why_missing(path: epath.PathLike, error: Exception) -> str:
    """Returns what keeps a path from being looked at, as the end of a sentence."""
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            return f"is a link to {os.readlink(path)}, which does not exist; mend or remove the link"
        return "does not exist; give another path"
    if isinstance(error, ValueError):
        return "is not a possible path (it holds a null character); give another path"
    reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
    return f"cannot be read ({reason}); mend it or give another path"


class _Linked(NamedTuple):
    """A link that was met: its name relative to the folder, and where it lies."""

    name: str
    path: str


class _LocalListing:
    """One listing of a local folder: real files first, then what links add."""

    def __init__(self, root: epath.Path, endings: tuple[str, ...] | None, every_name: bool) -> None:
        self._root = os.fspath(root)
        self._endings = endings
        self._every_name = every_name
        self._found: list[str] = []
        self._files: set[tuple[int, int]] = set()
        self._folders: set[tuple[int, int]] = set()
        self._links: list[_Linked] = []

    def names(self) -> list[str]:
        """Returns the names, sorted."""
        try:
            place = os.path.realpath(self._root, strict=True)
        except (OSError, ValueError) as error:
            raise UserError(f"folder {self._root} {_why_missing(self._root, error)}") from error
        if not os.path.isdir(place):
            raise UserError(f"folder {self._root} is a file; give a folder")
        self._walk(place, "")
        while self._links:
            # Sorted, so that which of two links to one file counts does not depend on the order of the disk.
            links, self._links = sorted(self._links), []
            for link in links:
                self._follow(link)
        return sorted(self._found)

    def _walk(self, folder: str, prefix: str) -> None:
        """Lists a real folder and the real folders below it; puts links aside."""
        pending = [(folder, prefix)]
        while pending:
            place, before = pending.pop()
            status = os.stat(place)
            if self._seen(self._folders, status):
                continue
            with os.scandir(place) as entries:
                children = sorted(entries, key=lambda each: each.name)
            for entry in children:
                if entry.name.startswith("."):
                    continue
                name = before + entry.name
                if entry.is_symlink():
                    self._links.append(_Linked(name, entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{name}/"))
                elif self._wanted(entry.name):
                    self._add(name, entry.path, entry.stat(follow_symlinks=False))

    def _follow(self, link: _Linked) -> None:
        try:
            place = os.path.realpath(link.path, strict=True)
            status = os.stat(place)
        except OSError as error:
            if self._wanted(link.name.rpartition("/")[2]):
                raise UserError(f"{link.path} {_why_missing(link.path, error)}") from error
            return
        if stat.S_ISDIR(status.st_mode):
            around = os.path.realpath(os.path.dirname(link.path))
            if not f"{around}/".startswith(place.rstrip("/") + "/"):
                self._walk(place, f"{link.name}/")
        elif self._wanted(link.name.rpartition("/")[2]):
            self._add(link.name, link.path, status)

    def _wanted(self, name: str) -> bool:
        return name not in MARKERS and (self._endings is None or name.endswith(self._endings))

    def _add(self, name: str, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is {_kind(status.st_mode)}, not a file; remove it from the folder")
        if not self._seen(self._files, status) or self._every_name:
            self._found.append(name)

    @staticmethod
    def _seen(known: set[tuple[int, int]], status: os.stat_result) -> bool:
        """Returns whether a file or folder came before, and notes it. File systems without inodes number all 0."""
        identity = (status.st_dev, status.st_ino)
        if identity in known and status.st_ino:
            return True
        known.add(identity)
        return False


def _remote_files(root: epath.Path, endings: tuple[str, ...] | None) -> list[str]:
    # `walk` knows from the listing itself what is a folder; asking of each name would be a request a file.
    found: list[str] = []
    for place, folders, files in root.walk():
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name not in MARKERS and (endings is None or name.endswith(endings)):
                found.append((place / name).relative_to(root).as_posix())
    return found

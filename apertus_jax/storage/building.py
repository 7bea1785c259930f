"""Build folders before their commit: one process at a time, apart from what anybody else put there.

OUTPUT/BUILDING.json            who began: this program, the kind of the folder, the name of the site, what is published
OUTPUT/.building-0123abcd/…     the site: what the build writes
OUTPUT/LEASE.json               locked by the process at work

When everything is written, the files are moved from the site to their places and the commit marker follows. A process
that is killed leaves BUILDING.json, which says exactly what is ours: the site and, in the moment of moving, the files
listed as published. Everything else belongs to someone else and is never removed. Object stores know no move; there a
build writes in place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.durable_files import sync, write_atomically
from apertus_jax.storage.json_reader import JSONError, read_json_object
from apertus_jax.storage.lease import HeartbeatLease, LocalLease, acquire_lease, require_unheld
from apertus_jax.storage.listing import BUILDING_MARKER, COMMIT_MARKER, LEASE_FILE, MARKERS, is_inside, is_local
from apertus_jax.storage.places import check_output

PROGRAM = "apertus_jax"
_SITE = re.compile(r"\.building-[0-9a-f]{8}")
_PARTIAL = re.compile(rf"\.({'|'.join(map(re.escape, sorted(MARKERS)))})(\.\d+-[0-9a-f]{{8}})?\.partial")
# Real path → lease of the folders that this process holds.
_leases: dict[str, LocalLease | HeartbeatLease] = {}


@dataclasses.dataclass
class Site:
    """A build under way.

    Attributes:
      root: the folder that is going to be committed.
      kind: of that folder.
      name: of the site inside it; empty where files are written in place.
      lease: of the folder.
    """

    root: epath.Path
    kind: str
    name: str
    lease: LocalLease | HeartbeatLease

    @property
    def path(self) -> epath.Path:
        """Where to write."""
        return self.root / self.name if self.name else self.root

    def begin(self) -> None:
        """Says in the folder that a build is under way, and makes the site."""
        self._write_marker([])
        if self.name:
            self.path.mkdir()
            # A site that is found on its own, copied or left over, is known as unfinished too.
            (self.path / BUILDING_MARKER).write_text(json.dumps({"kind": self.kind}))

    def publish(self) -> None:
        """Moves everything from the site to its place, what was written first first."""
        self.lease.check()
        if not self.name:
            return
        written = (each for each in self.path.iterdir() if each.name != BUILDING_MARKER)
        children = sorted((each for each in written if not each.name.startswith(".")), key=_age)
        if taken := next((each.name for each in children if _exists(self.root / each.name)), None):
            raise UserError(f"{self.root / taken} appeared while the folder was written; move it away and run it again")
        self._write_marker(_files_below(self.path, [each.name for each in children]))
        for child in children:
            os.rename(child, self.root / child.name)
        sync(self.root)
        shutil.rmtree(self.path)

    def _write_marker(self, published: list[str]) -> None:
        content = {"program": PROGRAM, "kind": self.kind, "site": self.name, "published": published}
        write_atomically(self.root / BUILDING_MARKER, json.dumps(content))


def _age(path: epath.Path) -> tuple[int, str]:
    """Sorts by time of writing: readers that know nothing of markers find config.json after the weights it is of."""
    return os.stat(path).st_mtime_ns, path.name


def _exists(path: epath.PathLike) -> bool:
    return os.path.lexists(path)


@contextlib.contextmanager
def reserved(root: epath.Path, kind: str) -> Iterator[Site]:
    """Holds an output folder for the block; when the block raises, the folder is left as it was found.

    Raises:
      UserError: another process holds it, or it holds something that is not an abandoned build of ours.
    """
    check_output(root)
    require_free(root, kind)
    with _lease_of(root) as lease:
        _require_ours(root, kind)  # once more, now that nobody else builds here
        _clear(root)
        site = Site(root, kind, f".building-{secrets.token_hex(4)}" if is_local(root) else "", lease)
        try:
            site.begin()
            yield site
        except BaseException:
            with contextlib.suppress(OSError, UserError):  # what failed first is what has to be told
                _clear(root)
            raise


@contextlib.contextmanager
def held(folder: epath.PathLike) -> Iterator[None]:
    """Holds an output folder for a whole command, which may compute for hours before it builds there.

    A folder that is complete or holds what is not ours is left alone: what is wrong with it is for the command to say.

    Raises:
      UserError: another process holds it.
    """
    root = epath.Path(folder)
    require_unheld(root)
    if (root / COMMIT_MARKER).exists() or _holds_others(root):
        yield
        return
    with _lease_of(root):
        yield


def _holds_others(root: epath.Path) -> bool:
    """Returns whether a folder holds anything that no abandoned build of ours wrote, whatever its kind."""
    try:
        _require_ours(root, kind=None)
    except UserError:
        return True
    return False


@contextlib.contextmanager
def _lease_of(root: epath.Path) -> Iterator[LocalLease | HeartbeatLease]:
    """Holds the lease of a folder that is going to be written; this process may hold it already.

    Afterwards the folder and those above it that were made for it are gone again when nothing is in them.
    """
    place = os.path.realpath(root) if is_local(root) else os.fspath(root)
    if place in _leases:
        yield _leases[place]
        return
    made = [each for each in (root, *root.parents) if not each.exists()] if is_local(root) else []
    try:
        with acquire_lease(root, stays=False) as lease:
            _leases[place] = lease
            try:
                yield lease
            finally:
                del _leases[place]
    finally:
        for each in made:
            with contextlib.suppress(OSError):
                os.rmdir(each)


def require_free(root: epath.Path, kind: str) -> None:
    """Raises UserError unless a build may begin in `root`: nobody is at work there, and nothing there is foreign."""
    if not (root / COMMIT_MARKER).exists() and os.path.realpath(root) not in _leases:
        require_unheld(root)
    _require_ours(root, kind)


def _require_ours(root: epath.Path, kind: str | None) -> None:
    """Raises UserError when a folder is complete, or holds what no abandoned build of this (None: any) kind wrote."""
    if not root.exists():
        return
    if (root / COMMIT_MARKER).exists():
        raise UserError(f"{root} is already complete; choose another output folder or remove this one")
    names = sorted(each.name for each in root.iterdir())
    ours = {LEASE_FILE, *filter(_PARTIAL.fullmatch, names)}
    if BUILDING_MARKER in names:
        marker = _read_marker(root)
        if kind is not None and marker["kind"] != kind:
            raise UserError(
                f"{root} holds an unfinished {marker['kind']}, not a {kind}; run the command that began it again, or "
                "choose another output folder"
            )
        foreign = _foreign_to(root, marker, set(names) - ours - {BUILDING_MARKER, marker["site"]})
        if foreign:
            raise UserError(
                f"{root} holds {foreign[0]}, which the unfinished build in it did not write; move it away, or choose "
                "another output folder"
            )
    elif others := [name for name in names if name not in ours]:
        raise UserError(
            f"{root} is not empty and was not written by this command (it holds {others[0]}); "
            "choose another output folder"
        )


def _read_marker(root: epath.Path) -> dict:
    """Returns the mark of an abandoned build of ours.

    Raises:
      UserError: it is of another program, or of another version of this one.
    """
    path = root / BUILDING_MARKER
    foreign = UserError(f"{path} was not written by this version of this program; choose another output folder")
    try:
        marker = read_json_object(path)
    except JSONError as error:
        raise foreign from error
    site, published = marker.get("site"), marker.get("published")
    is_site = isinstance(site, str) and (bool(_SITE.fullmatch(site)) if is_local(root) else not site)
    is_list = isinstance(published, list) and all(isinstance(name, str) and is_inside(name) for name in published)
    if marker.get("program") != PROGRAM or not isinstance(marker.get("kind"), str) or not is_site or not is_list:
        raise foreign
    return marker


def _foreign_to(root: epath.Path, marker: dict, names: set[str]) -> list[str]:
    """Returns which of the top-level `names`, or which files below them, the marked build has not published."""
    if not marker["site"]:
        return []  # in an object store the build wrote in place: all of it is taken for ours
    published = set(marker["published"])
    tops = {name.partition("/")[0] for name in published}
    foreign = sorted(names - tops)
    return foreign or sorted(set(_files_below(root, sorted(names & tops))) - published)


def _files_below(root: epath.Path, names: list[str]) -> list[str]:
    """Returns every file and link at and below some entries of a folder, hidden ones too, relative to the folder."""
    found = []
    for name in names:
        top = os.path.join(root, name)
        if os.path.isdir(top) and not os.path.islink(top):
            for place, folders, files in os.walk(top):
                links = [each for each in folders if os.path.islink(os.path.join(place, each))]
                found += [os.path.relpath(os.path.join(place, each), root) for each in (*files, *links)]
        else:
            found.append(name)
    return sorted(found)


def _clear(root: epath.Path) -> None:
    """Removes what the build marked in a folder wrote, its mark last: killed here, the rest is still known as ours."""
    if not (root / BUILDING_MARKER).exists():
        return
    marker = _read_marker(root)
    if not marker["site"]:
        for child in root.iterdir():
            if child.is_dir():
                child.rmtree()
            elif child.name not in (BUILDING_MARKER, LEASE_FILE):
                child.unlink()
    elif not (root / COMMIT_MARKER).exists():
        site = os.path.join(root, marker["site"])
        if os.path.isdir(site):
            shutil.rmtree(site)
        _remove_published(root, marker["published"])
    (root / BUILDING_MARKER).unlink()
    for name in [each.name for each in root.iterdir()]:
        if _PARTIAL.fullmatch(name):
            (root / name).unlink(missing_ok=True)


def _remove_published(root: epath.Path, published: list[str]) -> None:
    """Removes files that had been moved to their places, and the folders that are empty then."""
    for name in published:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(os.path.join(root, name))
    for folder in sorted({parent for name in published for parent in _parents(name)}, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(root, folder))


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]

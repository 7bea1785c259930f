"""Output place checks: every command's output passes here before anything is read or made."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax.errors import UserError, shown_path
from apertus_jax.storage.listing import is_local

OUTPUT = "output"
NO_INPUTS = (OUTPUT, "work", "prompts")  # parameters whose texts name nothing that is read
REMOTE_SCHEMES = ("gs", "s3")
LONGEST_PATH = 4095
SHOWN = 100


def check_arguments(command: str, arguments: Mapping[str, Any]) -> None:
    """Checks that a command may read what it reads, and its output against itself and against all of that.

    Args:
      command: its name, for errors.
      arguments: parameter → value; texts that name something that exists, also inside of configuration objects and
        lists, are taken for what is read.

    Raises:
      UserError: something may not be read, nothing can be written there, or it would be written into what is read.
    """
    read = [value for name, value in arguments.items() if name not in NO_INPUTS]
    for each in existing_places(read):
        if len(each) > LONGEST_PATH:
            start = f"{command}: {shown_path(each)} is {len(each):,} characters long"
            raise UserError(f"{start}; no path has more than {LONGEST_PATH:,}")
        _check_readable(each, command)
    output = arguments.get(OUTPUT)
    if isinstance(output, str | os.PathLike) and os.fspath(output):
        check_output(output, existing_places(read), f"{command}.{OUTPUT}")


def _check_readable(path: str, command: str) -> None:
    """Raises UserError when what is read may not be read; to readers its files would merely seem to be missing."""
    wanted = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
    if not os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(
            f"{command}: {shown_path(path)} cannot be read: no permission; change its permissions or give another"
        )


def absolute_place(folder: epath.PathLike) -> epath.Path:
    """Returns `folder` with its whole path: Orbax takes none that is relative to the working folder."""
    return epath.Path(os.path.abspath(folder)) if is_local(folder) else epath.Path(folder)


def check_output(output: epath.PathLike, inputs: Iterable[str] = (), name: str = OUTPUT) -> None:
    """Checks that a folder can be written at `output`; touches nothing.

    Args:
      output: the folder.
      inputs: places that are read; those that do not exist are passed over.
      name: of the parameter, for errors.

    Raises:
      UserError: a file, a link to nothing or in circles, a name that is too long, a `~` that no shell has replaced, an
        address that cannot be written to, or a place inside of what is read or around it.
    """
    path = os.fspath(output)
    if not is_local(path):
        scheme = path.partition("://")[0]
        if scheme not in REMOTE_SCHEMES:
            raise UserError(f"{name} = {shown_path(path)}: {scheme}:// cannot be written to; give a folder")
        _check_reachable(path, name)
        return
    if path.split("/")[0].startswith("~"):
        raise UserError(f"{name} = {shown_path(path)}: ~ is not replaced here; write {os.path.expanduser(path)}")
    _check_place(path, name)
    for each in inputs:
        _check_apart(path, each, name)


def _check_reachable(path: str, name: str) -> None:
    """Raises UserError when an object store cannot be asked whether there is something at `path`."""
    try:
        epath.Path(path).exists()
    except Exception as error:  # every backend has errors of its own
        reason = " ".join(str(error).split())[:200]
        start = f"{name} = {shown_path(path)} cannot be reached ({reason})"
        raise UserError(f"{start}; check the address, the credentials and the network") from error


def _check_place(path: str, name: str) -> None:
    """Raises UserError unless `path` is a folder or could be made one."""
    start = f"{name} = {shown_path(path)}"
    try:
        is_link = os.path.islink(path)
        os.stat(path)
    except FileNotFoundError as error:
        if is_link:
            raise UserError(f"{start} is a link to {os.readlink(path)}, which does not exist; mend the link") from error
        return _check_parents(path, start)
    except ValueError as error:
        raise UserError(
            f"{name} = {path[:SHOWN]!r} holds a null character, which no path can; give another folder"
        ) from error
    except OSError as error:
        raise UserError(f"{start} {_reason(error)}") from error
    if not os.path.isdir(path):
        raise UserError(f"{start} is a file, not a folder; choose another output folder")
    return None


def _check_parents(path: str, start: str) -> None:
    """Raises UserError when a folder above a missing one is a link to nothing, or when a name is too long to make."""
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > 255 or len(os.fsencode(os.path.abspath(path))) > LONGEST_PATH:
        raise UserError(f"{start}: a name in it is longer than the file system allows; choose a shorter one")
    above = os.path.dirname(os.path.abspath(path))
    while not os.path.exists(above):
        if os.path.islink(above):
            raise UserError(f"{start}: {above} is a link to nothing; mend the link or choose another output folder")
        above = os.path.dirname(above)


def _reason(error: OSError) -> str:
    reasons = {
        errno.ENAMETOOLONG: "has a name that is longer than the file system allows; choose a shorter one",
        errno.ELOOP: "leads round in circles of links; mend the links or choose another output folder",
        errno.ENOTDIR: "lies below a file, not a folder; choose another output folder",
        errno.EACCES: "cannot be looked at: no permission; choose another output folder",
    }
    return reasons.get(error.errno or 0, f"cannot be used ({error.strerror}); choose another output folder")


def _check_apart(output: str, read: str, name: str) -> None:
    """Raises UserError when one of two places lies in the other, or both are one."""
    place, source = os.path.realpath(output), os.path.realpath(read)
    start = f"{name} = {shown_path(output)}"
    if place == source:
        raise UserError(f"{start} is also what is read; give another folder as --output")
    if f"{place}/".startswith(source.rstrip("/") + "/"):
        raise UserError(f"{start} lies inside {shown_path(read)}, which is read; choose a folder outside")
    if f"{source}/".startswith(place.rstrip("/") + "/"):
        raise UserError(f"{start} is around {shown_path(read)}, which is read; choose a folder of its own")


def existing_places(values: Iterable[Any]) -> Iterator[str]:
    """Yields every text in values, lists and configuration objects that is the path of something that exists.

    A text with more slashes than a path has characters is yielded too: libraries take minutes over one.
    """
    for value in values:
        if isinstance(value, str | os.PathLike):
            text = os.fspath(value)
            if isinstance(text, str) and (_exists(text) or text.count("/") > LONGEST_PATH):
                yield text
        elif isinstance(value, list | tuple | set | frozenset):
            yield from existing_places(value)
        elif isinstance(value, Mapping):
            yield from existing_places(value.values())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from existing_places(getattr(value, field.name) for field in dataclasses.fields(value))


def _exists(text: str) -> bool:
    return 0 < len(text) <= LONGEST_PATH and "\0" not in text and is_local(text) and os.path.exists(text)

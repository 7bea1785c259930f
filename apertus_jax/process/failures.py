"""Failure messages: turns errors of the system, memory, XLA and file formats into one actionable line.

Libraries are recognised by the names of their exception classes, so that nothing heavy is imported to say that
something failed. What is not recognised here is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from apertus_jax.errors import UserError, shown_path
from apertus_jax.process.missing_packages import as_missing_package

LONGEST_REASON = 300
# What can be wrong with a place or the machine, and what to do about it.
PLACE_ERRORS = {
    errno.ENOSPC: "the disk is full; free space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free space and run the same command again",
    errno.EACCES: "no permission; choose another folder or change its permissions",
    errno.EPERM: "not permitted; choose another folder or change its owner or attributes",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
    errno.EISDIR: "is a folder where a file is expected; give a file",
    errno.ENOENT: "does not exist; give a path that does",
    errno.EEXIST: "is a file where a folder is to be written; choose another folder",
    errno.ENOTEMPTY: "someone else wrote into this folder; choose another folder",
    errno.ENAMETOOLONG: "a name in this path is longer than the file system allows; choose a shorter one",
    errno.ELOOP: "the links in this path lead round in circles; mend the links or give another path",
    errno.EIO: "the device failed to read or write (input/output error); check the disk and run the same command again",
    errno.ENXIO: "is not a file that can be read or written (no such device); give a regular file",
    errno.ESTALE: "the network file system lost this file (stale handle); mount it again and run it again",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) and run the same command again",
    errno.ENFILE: "the system has too many open files; close programs and run the same command again",
    errno.ENOMEM: "the system gave no more memory; free memory and run the same command again",
    errno.EAGAIN: "the system gave no more processes or threads; raise the limit (ulimit -u) and run it again",
    errno.EFBIG: "the file would be larger than the file system or a limit allows; choose another place or raise it",
    errno.EBUSY: "is in use by the system; choose another folder",
    errno.ETXTBSY: "is in use by a running program; choose another folder",
    errno.EXDEV: "lies across two file systems; choose a folder on one",
    errno.ENOLCK: "the file system has no locks to give; choose a folder on another file system",
    errno.EOPNOTSUPP: "the file system cannot do this; choose a folder on another file system",
    errno.EINVAL: "the file system does not take this name or operation; choose another place",
    errno.ENODEV: "is no usable device; choose another place",
    errno.ETIMEDOUT: "the other side did not answer in time; check the connection and run the same command again",
    errno.ECONNREFUSED: "the connection was refused; check the address and run the same command again",
    errno.ECONNRESET: "the connection was lost; run the same command again",
    errno.EHOSTUNREACH: "cannot be reached; check the connection and run the same command again",
    errno.ENETUNREACH: "the network cannot be reached; check the connection and run the same command again",
    errno.EPIPE: "the reader of the output went away",
}
DEVICE_MEMORY = (
    "the device ran out of memory; `apertus plan` with the same configuration says what it takes; use a smaller "
    "batch (BatchSchedule), more accumulation (TrainingConfig.accumulation), more rematerialisation "
    "(ModelConfig.remat) or a shorter sequence (TrainingConfig.sequence_length)"
)
HOST_MEMORY = (
    "the machine ran out of memory; close programs or use a larger machine; `apertus plan` says what training takes, "
    "and a smaller batch (BatchSchedule), more accumulation, remat or a shorter sequence_length take less"
)
# Exceptions of file formats, by module (or its first part) and class, and what their file is said to be.
FORMAT_ERRORS = {
    "pyarrow.ArrowException": "a table (Parquet or Arrow) that is damaged or has other columns",
    "safetensors.SafetensorError": "a tensor file that is truncated or damaged",
    "json.JSONDecodeError": "JSON that is damaged",
    "zlib.error": "compressed content that is damaged",
    "gzip.BadGzipFile": "compressed content that is damaged",
    "lzma.LZMAError": "compressed content that is damaged",
    "_lzma.LZMAError": "compressed content that is damaged",
    "zstandard.ZstdError": "compressed content that is damaged",
    "msgpack.UnpackException": "msgpack content that is damaged",
    "msgpack.ExtraData": "msgpack content that is damaged",
    "pickle.UnpicklingError": "a pickle, which is not read here, or damaged content",
    "_pickle.UnpicklingError": "a pickle, which is not read here, or damaged content",
    "struct.error": "a binary file that is truncated or damaged",
    "sqlite3.DatabaseError": "a database file that is damaged or cannot be written",
    "zipfile.BadZipFile": "a zip file that is damaged",
    "tarfile.TarError": "a tar file that is damaged",
    "yaml.YAMLError": "YAML that is damaged",
    "csv.Error": "CSV that is damaged",
    "_csv.Error": "CSV that is damaged",
    "xml.ParseError": "XML that is damaged",
    "warcio.ArchiveLoadFailed": "a WARC file that is damaged",
}
XLA_ERRORS = ("XlaRuntimeError", "JaxRuntimeError")
# Storage failures as libraries in C++ spell them, whatever they raise.
_FULL = re.compile(r"No space left on device|Disk quota exceeded|errno[=:]? ?28\b", re.IGNORECASE)
_UNMAPPED = re.compile(r"failed to map segment|[Cc]annot allocate memory")  # of a shared library
_DEVICE_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|[Ff]ailed to allocate|\bOOM\b")
_STORAGE = re.compile(r"tensorstore|orbax|kvstore|OCDBT|ocdbt|zarr", re.IGNORECASE)
_NO_BACKEND = re.compile(r"Unable to initialize backend|is not in the list of known backends|Unknown backend")
_SETTING = re.compile(r"(?:environment(?: variable)? '?|for JAX flag )(jax_\w+)", re.IGNORECASE)
_PLATFORM_SETTINGS = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES")
_REMOTE = re.compile(r"\b[a-z][a-z0-9+.-]*://\S*")


def as_user_error(error: BaseException, doing: str) -> UserError | None:
    """Returns what happened as one line for people, or None when `error` is a bug of ours.

    Args:
      error: what was raised; a group of exceptions and the causes of an exception are looked at too.
      doing: the command or part that was at work; names the subject where the error itself names none.
    """
    for each in _causes(error):
        if isinstance(each, UserError):
            return each
        if isinstance(each, ModuleNotFoundError) and (missing := as_missing_package(each)):
            return missing
        if line := _line(each, doing):
            return UserError(" ".join(line.split()))
    return None


def is_full_disk(error: BaseException) -> bool:
    """Returns whether a full disk or a used-up quota is at the bottom of `error`, however a library spells it."""
    return any(_says_full(each) for each in _causes(error, contexts=True))


def _says_full(error: BaseException) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or bool(_FULL.search(str(error)))


def _causes(error: BaseException, contexts: bool = False) -> Iterator[BaseException]:
    """Yields an exception, the members of a group, and what caused each, every one once.

    What was merely being handled when it was raised counts with `contexts`: a bug of ours may follow a harmless error.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        pending.extend((current.__cause__, current.__context__ if contexts else None))


def class_names(error: BaseException) -> set[str]:
    """Returns "package.Class" and "module.Class" of an exception and everything it derives from."""
    classes = [each for each in type(error).__mro__ if each.__module__ != "builtins"]
    return {f"{module}.{each.__name__}" for each in classes for module in (each.__module__, _package(each))}


def _package(each: type) -> str:
    return each.__module__.partition(".")[0]


def _reason(error: BaseException) -> str:
    """Returns the first line of an exception's own text, short."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= LONGEST_REASON else first[:LONGEST_REASON] + "…"


def _line(error: BaseException, doing: str) -> str | None:
    """Returns the line for one exception, without looking at its causes."""
    names = class_names(error)
    if _is_of_device(error, names):
        if _says_full(error):
            return f"{doing}: {PLACE_ERRORS[errno.ENOSPC]}"
        if _DEVICE_MEMORY.search(str(error)):
            return f"{doing}: {DEVICE_MEMORY} ({_reason(error)})"
        return f"{doing}: the device or its compiler failed ({_reason(error)}); `apertus doctor` checks this machine"
    if backend := _backend_line(error):
        return backend
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and _UNMAPPED.search(str(error))):
        return f"{doing}: {HOST_MEMORY}"
    if _says_full(error):
        return f"{_subject(error, doing)}: {PLACE_ERRORS[errno.ENOSPC]}"
    if remote := _remote_line(error, names, doing):
        return remote
    if isinstance(error, OSError) and not names & FORMAT_ERRORS.keys():
        return _place_line(error, doing)
    return _content_line(error, names, doing)


def _is_of_device(error: BaseException, names: set[str]) -> bool:
    return any(name.rpartition(".")[2] in XLA_ERRORS for name in names)


def _backend_line(error: BaseException) -> str | None:
    """Returns the line for a platform that jax cannot start, or a setting of jax that it cannot read."""
    if setting := _SETTING.search(str(error)):
        name = setting[1].upper()
        return f"{name}={os.environ.get(name, '')!r} is no value jax takes ({_reason(error)}); correct it"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    started = trace is not None and trace.tb_frame.f_code.co_filename.endswith("xla_bridge.py")
    if not (started and isinstance(error, RuntimeError | AssertionError)) and not _NO_BACKEND.search(str(error)):
        return None
    name = next((each for each in _PLATFORM_SETTINGS if os.environ.get(each)), _PLATFORM_SETTINGS[0])
    advice = "set JAX_PLATFORMS=cpu, or unset it" if name == _PLATFORM_SETTINGS[0] else f"unset {name}"
    reason = f" ({_reason(error)})" if str(error) else ""
    return (
        f"{name}={os.environ.get(name, '')!r}: jax cannot start this platform here{reason}; {advice} and let "
        "`apertus doctor` say what this machine has"
    )


def _place_line(error: OSError, doing: str) -> str:
    advice = PLACE_ERRORS.get(error.errno) if error.errno is not None else None
    return f"{_subject(error, doing)}: {advice or f'{_reason(error)}; mend the cause and run the same command again'}"


def _subject(error: BaseException, doing: str) -> str:
    """Returns the file that an error is about, with a name that is far too long shortened, or what was being done."""
    names = [getattr(error, "filename", None), getattr(error, "filename2", None)]
    name = next((each for each in names if isinstance(each, str | bytes) and each), None)
    if name is None:
        return doing
    return shown_path(name)


def _remote_line(error: BaseException, names: set[str], doing: str) -> str | None:
    """Returns the line for a place in an object store or on the web that cannot be used from here."""
    found = _REMOTE.search(str(error))
    place = found[0].rstrip("'\",;:)") if found else None
    if any(_package_of(name) in ("tensorflow", "gcsfs", "s3fs", "fsspec", "botocore", "aiohttp") for name in names):
        return f"{place or doing} cannot be reached ({_reason(error)}); check address and credentials, or use a folder"
    if isinstance(error, KeyError) and place:
        return f"{place} is a place that this installation cannot read or write; use a folder of this machine"
    if isinstance(error, ImportError) and (place or re.search(r"gcsfs|s3fs|fsspec|tensorflow", str(error))):
        return f"{place or doing} needs a package that is not installed ({_reason(error)}); install it or use a folder"
    return None


def _package_of(name: str) -> str:
    return name.partition(".")[0]


def _content_line(error: BaseException, names: set[str], doing: str) -> str | None:
    """Returns the line for content that cannot be read or written."""
    if isinstance(error, UnicodeDecodeError):
        byte = f"byte {error.object[error.start]:#04x} at {error.start}"
        return f"{doing}: text that is not {error.encoding} ({byte}); save the file as UTF-8"
    if isinstance(error, UnicodeEncodeError):
        character = f"U+{ord(error.object[error.start]):04X}"
        return f"{doing}: {character} cannot be written as {error.encoding}; remove it, or set PYTHONIOENCODING=utf-8"
    if isinstance(error, RecursionError):
        return f"{doing}: an input is nested too deeply; make it flatter"
    if isinstance(error, EOFError):
        return f"{doing}: a file ends too early: it is truncated; fetch or write it again"
    if "concurrent.BrokenExecutor" in names or "concurrent.BrokenProcessPool" in names:
        return f"{doing}: a worker process was killed, most often for memory; use fewer workers and run it again"
    if known := next((FORMAT_ERRORS[name] for name in sorted(names) if name in FORMAT_ERRORS), None):
        return f"{doing}: {known} ({_reason(error)}); fetch or write the file again"
    if isinstance(error, ValueError | RuntimeError) and _is_of_storage(error, names):
        return f"{doing}: stored arrays cannot be read or written ({_reason(error)}); check the folder and the disk"
    return None


def _is_of_storage(error: BaseException, names: set[str]) -> bool:
    return any(_package_of(name) in ("orbax", "tensorstore") for name in names) or bool(_STORAGE.search(str(error)))

"""Committed folders (artifacts): complete or not there, by a commit marker with digests written last.

Every command reads a folder and writes a folder. While it writes, the folder holds `BUILDING.json`; when every file is
in place and on the disk, `COMMITTED.json` is written with the size and BLAKE2b digest of each file. A reader accepts
only a committed folder, so the same rule holds on object stores, which know no rename. Manifests hold no times and no
host names: the same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.errors import UserError
from apertus_jax.storage import building
from apertus_jax.storage.durable_files import sync_all, write_atomically
from apertus_jax.storage.json_reader import read_json, read_json_object
from apertus_jax.storage.listing import BUILDING_MARKER, COMMIT_MARKER, is_inside, is_local, list_files, regular_file

DIGEST_BYTES = 16
READ_BYTES = 1 << 22
_DIGEST = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")


@dataclasses.dataclass
class Build:
    """A folder under construction: write files below `path`, put what readers need to know into `summary`."""

    path: epath.Path
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)


def digest_bytes(content: bytes) -> str:
    """Returns the BLAKE2b-128 digest of `content` in hexadecimal."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def digest_file(path: epath.PathLike) -> str:
    """Returns the BLAKE2b-128 digest of a file in hexadecimal, reading it in pieces."""
    return size_and_digest(path)[1]


def size_and_digest(path: epath.PathLike) -> tuple[int, str]:
    """Returns how many bytes were read of a file and their BLAKE2b-128 digest: one request, where `stat` is another."""
    digest, size = hashlib.blake2b(digest_size=DIGEST_BYTES), 0
    with epath.Path(path).open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def digest_json(value: Any) -> str:
    """Returns the digest of a JSON value in its canonical spelling (sorted keys, no spaces)."""
    return digest_bytes(canonical_json(value).encode())


def canonical_json(value: Any) -> str:
    """Returns the one spelling of a JSON value that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_complete(folder: epath.PathLike) -> bool:
    """Returns whether `folder` holds a commit marker."""
    return (epath.Path(folder) / COMMIT_MARKER).exists()


def kind_of(folder: epath.PathLike) -> str:
    """Returns the kind of a complete folder.

    Raises:
      UserError: as `read_any`.
    """
    return read_any(folder)["kind"]


def read_any(folder: epath.PathLike) -> dict[str, Any]:
    """Returns the manifest of a complete folder, whatever its kind.

    Raises:
      UserError: its marker is no file, damaged, changed since it was written, or not of the form that `commit` writes.
    """
    marker = epath.Path(folder) / COMMIT_MARKER
    manifest = read_json_object(marker)
    if fault := fault_of(manifest):
        raise UserError(f"{marker} {fault}; rebuild the folder")
    return manifest


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a manifest that vouches for itself: with the digest of all the rest."""
    return {**manifest, "digest": digest_json(manifest)}


def manifest_text(manifest: Mapping[str, Any], indent: int = 2) -> str:
    """Returns the content of a commit marker."""
    return json.dumps(manifest, indent=indent, sort_keys=True, ensure_ascii=False) + "\n"


def fault_of(manifest: Any) -> str | None:
    """Returns what makes the content of a commit marker unusable, or None."""
    if not isinstance(manifest, Mapping) or "kind" not in manifest or "digest" not in manifest:
        return "is damaged (it has no kind or no digest) or of another program"
    if digest_json({name: value for name, value in manifest.items() if name != "digest"}) != manifest["digest"]:
        return "has changed since it was written (digest differs)"
    # A digest can be remade by whoever changes the rest.
    fault = _fault_of_values(manifest)
    return fault and f"is damaged ({fault})"


def _fault_of_values(manifest: Mapping[str, Any]) -> str | None:
    if not isinstance(manifest["kind"], str):
        return "kind is no text"
    for name in ("inputs", "summary", "files"):
        if not isinstance(manifest.get(name, {} if name == "inputs" else None), dict):
            return f"{name} is no object"
    for name, record in manifest["files"].items():
        if not is_inside(name):
            return f"{name[:80]!r} is no name of a file inside the folder"
        size, digest = (record.get("bytes"), record.get("blake2b")) if isinstance(record, dict) else (None, None)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            return f"{name} has no size"
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            return f"{name} has no digest"
    return None


def read_manifest(folder: epath.PathLike, kind: str) -> dict[str, Any]:
    """Returns the manifest of a complete folder.

    Raises:
      UserError: the folder is missing, incomplete, of another kind, or its marker is not to be trusted.
    """
    root = epath.Path(folder)
    if not root.exists():
        raise UserError(f"{root} does not exist; a {kind} folder is expected there")
    if not is_complete(root):
        raise UserError(
            f"{root} is not a complete {kind} folder (no {COMMIT_MARKER}); run the command that writes it again"
        )
    manifest = read_any(root)
    if manifest["kind"] != kind:
        raise UserError(f"{root} holds a {manifest['kind']}, not a {kind}; give the folder of a {kind}")
    return manifest


def verify(folder: epath.PathLike, kind: str) -> dict[str, Any]:
    """Reads every file of a complete folder again and returns its manifest.

    Raises:
      UserError: a file is missing, has another size, or another digest; the message names it.
    """
    root = epath.Path(folder)
    manifest = read_manifest(root, kind)
    for name, expected in manifest["files"].items():
        check_committed(root / name, expected, kind)
    return manifest


def check_committed(path: epath.Path, expected: Mapping[str, Any], kind: str) -> int:
    """Reads one file of a committed folder again; returns how many bytes it has.

    Args:
      path: the file.
      expected: its `bytes` and `blake2b` in the manifest.
      kind: that of the folder.

    Raises:
      UserError: it is missing, has another size, or another digest.
    """
    if (damage := damage_of(path, expected)) is not None:
        raise UserError(f"{path} {damage}; restore it or rebuild the folder")
    return expected["bytes"]


def damage_of(path: epath.Path, expected: Mapping[str, Any]) -> str | None:
    """Returns what is wrong with a file of a committed folder, or None; `expected` is its record in the manifest."""
    if not path.exists():
        return "is missing"
    try:
        # In an object store each question is a request, and reading answers this one too.
        size = regular_file(path).stat().length if is_local(path) else expected["bytes"]
    except UserError:
        return "is no longer a file"
    if size == expected["bytes"]:
        size, digest = size_and_digest(path)
    if size != expected["bytes"]:
        return f"has {size} bytes where {expected['bytes']} were committed"
    return None if digest == expected["blake2b"] else "has changed since it was committed (digest differs)"


def commit(
    folder: epath.PathLike,
    kind: str,
    inputs: Mapping[str, Any],
    summary: Mapping[str, Any],
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Digests every file of `folder` and writes the commit marker last. Returns the manifest.

    `without` names folders in it that have commit markers of their own; their digests belong into the summary.
    """
    root = epath.Path(folder)
    manifest = _manifest_of(root, kind, inputs, summary, without)
    _write_marker(root, manifest)
    return manifest


def _manifest_of(
    root: epath.Path, kind: str, inputs: Mapping[str, Any], summary: Mapping[str, Any], without: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the manifest of the files in `root`, all of which are on the disk when it does."""
    names = [name for name in list_files(root, every_name=True) if name.partition("/")[0] not in without]
    sync_all(root, names)
    files = {name: {"bytes": (root / name).stat().length, "blake2b": digest_file(root / name)} for name in names}
    manifest = {
        "kind": kind,
        "code_version": __version__,
        "inputs": dict(inputs),
        "summary": dict(summary),
        "files": files,
    }
    return sealed(manifest)


def _write_marker(root: epath.Path, manifest: Mapping[str, Any]) -> None:
    write_atomically(root / COMMIT_MARKER, manifest_text(manifest))
    (root / BUILDING_MARKER).unlink(missing_ok=True)


@contextlib.contextmanager
def build(folder: epath.PathLike, kind: str, inputs: Mapping[str, Any]) -> Iterator[Build]:
    """Opens `folder` for writing and commits it when the block ends without an error.

    Only one process builds a folder at a time. What is written lies in a folder of its own inside until it is whole,
    so that what this build wrote can be told from everything else: an abandoned build is cleared first, and nothing
    that someone else put there is ever touched. When the block raises, what it wrote is removed. `inputs` is what
    decides the content: configuration and input digests.

    Raises:
      UserError: another process builds it, or it already holds something that is not an abandoned build of ours.
    """
    root = epath.Path(folder)
    with building.reserved(root, kind) as site:
        under_construction = Build(path=site.path)
        yield under_construction
        manifest = _manifest_of(site.path, kind, inputs, under_construction.summary)
        site.publish()
        _write_marker(root, manifest)


def same_inputs(folder: epath.PathLike, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Returns whether `folder` is already complete and was built from exactly these `inputs`."""
    return is_complete(folder) and canonical_json(read_manifest(folder, kind)["inputs"]) == canonical_json(dict(inputs))


def already_built(folder: epath.PathLike, kind: str, inputs: Mapping[str, Any], resumable: bool = False) -> bool:
    """Returns whether `folder` is complete and built from exactly these `inputs`; False when a build may begin.

    `resumable` is for commands that go on in an unfinished folder, see `check_resumable`.

    Raises:
      UserError: it is complete but was built from other inputs, which are named; another process is building it; or it
        holds what is not ours. Nothing is overwritten.
    """
    if not is_complete(folder):
        if not resumable:
            building.require_free(epath.Path(folder), kind)
        return False
    if different := _different(read_manifest(folder, kind)["inputs"], inputs):
        raise UserError(
            f"{folder} is complete and was made with other {', '.join(different)}; "
            "choose another output folder or remove this one"
        )
    return True


def _different(found: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Returns the names of the inputs that differ; what has no value is as good as not there."""
    wanted = json.loads(canonical_json(dict(inputs)))
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def check_resumable(
    folder: epath.PathLike, kind: str, inputs: Mapping[str, Any], own_names: Sequence[str] = ()
) -> None:
    """Checks that a command may begin, or go on, in a folder that it fills part by part over several starts.

    Nothing is written. `begin_resumable` marks the folder; `commit` ends the build. A command without a mark has its
    parts checked elsewhere, and `own_names` are what it may have left.

    Raises:
      UserError: it was begun with other inputs, which are named, or it holds what this command did not write.
    """
    root = epath.Path(folder)
    marker = root / BUILDING_MARKER
    if not marker.exists():
        names = [] if not root.exists() else [each.name for each in root.iterdir()]
        others = sorted(name for name in names if name not in own_names and not (own_names and name.startswith(".")))
        if others:
            raise UserError(
                f"{root} is not empty and was not written by this command (it holds {others[0]}); "
                "choose another output folder"
            )
        return
    found = read_json(marker)
    begun = found.get("inputs") if isinstance(found, dict) and found.get("kind") == kind else None
    if not isinstance(begun, dict):
        raise UserError(f"{marker} is damaged or not the mark of a {kind}; choose another output folder")
    if different := _different(begun, inputs):
        raise UserError(
            f"{root} holds an unfinished {kind} with other {', '.join(different)}; "
            "choose another output folder or remove this one"
        )


def begin_resumable(folder: epath.PathLike, kind: str, inputs: Mapping[str, Any]) -> None:
    """Marks a folder, which `check_resumable` has passed, as that of an unfinished build from these inputs."""
    marker = epath.Path(folder) / BUILDING_MARKER
    if not marker.exists():
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(marker, json.dumps({"kind": kind, "inputs": dict(inputs)}))

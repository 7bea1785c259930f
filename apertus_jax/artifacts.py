"""Folders that are either complete or not there: a commit marker with digests, written last.

Every command reads a folder and writes a folder. While it writes, the folder holds `BUILDING.json`; when every file is
in place, `COMMITTED.json` is written with the size and BLAKE2b digest of each file. A reader accepts only a committed
folder. No rename is needed, so the same rule holds on object stores. Manifests hold no times and no host names: the
same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.errors import UserError

COMMIT_MARKER = "COMMITTED.json"
BUILDING_MARKER = "BUILDING.json"
DIGEST_BYTES = 16
READ_BYTES = 1 << 22


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
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with epath.Path(path).open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """Returns the digest of a JSON value in its canonical spelling (sorted keys, no spaces)."""
    return digest_bytes(canonical_json(value).encode())


def canonical_json(value: Any) -> str:
    """Returns the one spelling of a JSON value that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def list_files(folder: epath.PathLike) -> list[str]:
    """Returns the paths of all files below `folder`, relative to it, sorted; markers and hidden files excluded."""
    root = epath.Path(folder)
    found: list[str] = []
    pending = [root]
    while pending:
        for child in pending.pop().iterdir():
            if child.is_dir():
                pending.append(child)
            elif child.name not in (COMMIT_MARKER, BUILDING_MARKER) and not child.name.startswith("."):
                found.append(child.relative_to(root).as_posix())
    return sorted(found)


def is_complete(folder: epath.PathLike) -> bool:
    """Returns whether `folder` holds a commit marker."""
    return (epath.Path(folder) / COMMIT_MARKER).exists()


def kind_of(folder: epath.PathLike) -> str:
    """Returns the kind of a complete folder, unchecked."""
    return json.loads((epath.Path(folder) / COMMIT_MARKER).read_text())["kind"]


def read_manifest(folder: epath.PathLike, kind: str) -> dict[str, Any]:
    """Returns the manifest of a complete folder.

    Raises:
      UserError: the folder is missing, incomplete, or of another kind.
    """
    root = epath.Path(folder)
    if not root.exists():
        raise UserError(f"{root} does not exist; a {kind} folder is expected there")
    if not is_complete(root):
        raise UserError(
            f"{root} is not a complete {kind} folder (no {COMMIT_MARKER}); run the command that writes it again"
        )
    try:
        manifest = json.loads((root / COMMIT_MARKER).read_text())
        found, digest = manifest["kind"], manifest["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / COMMIT_MARKER} is damaged ({error}); rebuild the folder") from error
    if digest_json({name: value for name, value in manifest.items() if name != "digest"}) != digest:
        raise UserError(f"{root / COMMIT_MARKER} has changed since it was written (digest differs); rebuild the folder")
    if found != kind:
        raise UserError(f"{root} holds a {found}, not a {kind}; give the folder of a {kind}")
    return manifest


def verify(folder: epath.PathLike, kind: str) -> dict[str, Any]:
    """Reads every file of a complete folder again and returns its manifest.

    Raises:
      UserError: a file is missing, has another size, or another digest; the message names it.
    """
    root = epath.Path(folder)
    manifest = read_manifest(root, kind)
    for name, expected in manifest["files"].items():
        path = root / name
        if not path.exists():
            raise UserError(f"{path} is missing from a committed {kind}; restore it or rebuild the folder")
        size = path.stat().length
        if size != expected["bytes"]:
            raise UserError(f"{path} has {size} bytes where {expected['bytes']} were committed; restore it or rebuild")
        if digest_file(path) != expected["blake2b"]:
            raise UserError(f"{path} has changed since it was committed (digest differs); restore it or rebuild")
    return manifest


def write_atomically(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a small file so that a reader sees the old content or the new, never a part."""
    target = epath.Path(path)
    partial = target.parent / f".{target.name}.partial"
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(target)


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
    names = [name for name in list_files(root) if name.partition("/")[0] not in without]
    files = {name: {"bytes": (root / name).stat().length, "blake2b": digest_file(root / name)} for name in names}
    manifest = {
        "kind": kind,
        "code_version": __version__,
        "inputs": dict(inputs),
        "summary": dict(summary),
        "files": files,
    }
    manifest["digest"] = digest_json(manifest)
    write_atomically(root / COMMIT_MARKER, json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    with contextlib.suppress(FileNotFoundError):
        (root / BUILDING_MARKER).unlink()
    return manifest


@contextlib.contextmanager
def build(folder: epath.PathLike, kind: str, inputs: Mapping[str, Any]) -> Iterator[Build]:
    """Opens `folder` for writing and commits it when the block ends without an error.

    An abandoned build of ours is cleared first; a complete folder or a stranger's files are never touched. When the
    block raises, what it wrote is removed. `inputs` is what decides the content: configuration and input digests.

    Raises:
      UserError: the folder already holds something that is not an abandoned build.
    """
    root = epath.Path(folder)
    if root.exists():
        if (root / BUILDING_MARKER).exists() and not is_complete(root):
            clear(root)
        elif is_complete(root):
            raise UserError(f"{root} is already complete; choose another output folder or remove this one")
        elif any(root.iterdir()):
            raise UserError(f"{root} is not empty and was not written by this command; choose another output folder")
    root.mkdir(parents=True, exist_ok=True)
    (root / BUILDING_MARKER).write_text(json.dumps({"kind": kind}))
    under_construction = Build(path=root)
    try:
        yield under_construction
        commit(root, kind, inputs, under_construction.summary)
    except BaseException:
        clear(root)
        raise


def clear(folder: epath.PathLike) -> None:
    """Removes an abandoned build, its mark last: when this is killed too, the rest is still known to be ours."""
    root = epath.Path(folder)
    if not root.exists():
        return
    for child in root.iterdir():
        if child.is_dir():
            child.rmtree()
        elif child.name != BUILDING_MARKER:
            child.unlink()
    root.rmtree()


def same_inputs(folder: epath.PathLike, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Returns whether `folder` is already complete and was built from exactly these `inputs`."""
    return is_complete(folder) and canonical_json(read_manifest(folder, kind)["inputs"]) == canonical_json(dict(inputs))


def already_built(folder: epath.PathLike, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Returns whether `folder` is complete and built from exactly these `inputs`; False when there is nothing yet.

    Raises:
      UserError: it is complete but was built from other inputs, which are named; nothing is overwritten.
    """
    if not is_complete(folder):
        return False
    found = read_manifest(folder, kind)["inputs"]
    wanted = json.loads(canonical_json(dict(inputs)))
    different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if different:
        raise UserError(
            f"{folder} is complete and was made with other {', '.join(different)}; "
            "choose another output folder or remove this one"
        )
    return True

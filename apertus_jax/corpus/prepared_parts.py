"""Parts of a prepared corpus, and the checks that their readers rely on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import PREPARED_DOCUMENTS, PREPARED_KIND
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.manifests import require_fields

PART_KIND, PARTS = "prepared_part", "parts"
PART_NAME = re.compile(r"\d{6,}")


def checked_parts(prepared: epath.PathLike, names: Sequence[str] = (PREPARED_DOCUMENTS,)) -> list[epath.Path]:
    """Returns the parts of a prepared corpus after checking what a reader of the files `names` relies on.

    The corpus' marker vouches for the parts, and each part's marker for its files; those in `names` are read whole.

    Raises:
      UserError: something is missing, has changed since it was committed, or was added.
    """
    root = epath.Path(prepared)
    manifest = artifacts.read_manifest(root, PREPARED_KIND)
    where = f"{root / artifacts.COMMIT_MARKER}: summary"
    require_fields(manifest["summary"], {PARTS: dict}, where)
    parts = []
    for name, digest in sorted(manifest["summary"][PARTS].items()):
        part = root / PARTS / name
        if not PART_NAME.fullmatch(name):
            raise UserError(f"{where} names the part {name[:40]!r}, which is none; run `apertus prepare` again")
        found = artifacts.read_manifest(part, PART_KIND)
        if found["digest"] != digest:
            raise UserError(f"{part} is not the part that {root} was made of; run `apertus prepare` again")
        for file in names:
            check_file(part, file, found)
        parts.append(part)
    there = (root / PARTS).iterdir() if (root / PARTS).exists() else ()
    strange = [path for path in there if path not in parts and not path.name.startswith(".")]
    if strange:
        raise UserError(f"{strange[0]} is no part of the corpus in {root}; move it elsewhere")
    return parts


def check_file(folder: epath.Path, name: str, manifest: dict[str, Any]) -> None:
    """Checks one committed file of a folder: that it is there, whole, and as it was.

    Raises:
      UserError: it is not.
    """
    if name not in manifest["files"]:
        raise UserError(f"{folder / artifacts.COMMIT_MARKER} does not list {name}; run `apertus prepare` again")
    artifacts.check_committed(folder / name, manifest["files"][name], manifest["kind"])

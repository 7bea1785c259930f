"""Verification of memorization audits: cells have markers of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.memorization_command import CELLS, PART_KIND
from apertus_jax.storage import artifacts
from apertus_jax.storage.listing import COMMIT_MARKER, list_files
from apertus_jax.storage.verification import Notes, check_contents, check_digests


def verify_audit(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks every cell of an audit: each file against its digest, and that nothing lies beside the cells.

    Raises:
      UserError: the first thing that is damaged, or the audit has no cells.
    """
    root = folder / CELLS
    if not root.exists():
        raise UserError(f"{root} is missing from a committed {manifest['kind']}; restore it, or audit again")
    cells = sorted(_finished(root))
    if not cells:
        raise UserError(f"{root} holds no finished cell (no {COMMIT_MARKER}); restore it, or audit again")
    for name in list_files(root, every_name=True):
        if not any(PurePosixPath(name).is_relative_to(cell) for cell in cells):
            raise UserError(f"{root / name} belongs to no finished cell; restore the cell, or move the file elsewhere")
    for cell in notes.track(cells, "cells", len(cells)):
        found = artifacts.read_manifest(root / cell, PART_KIND)
        check_digests(root / cell, found, Notes())
        check_contents(root / cell, sorted(found["files"]), Notes())
    notes.add(folder, "cells", f"{len(cells):,}")


def _finished(root: epath.Path, name: str = "") -> Iterator[str]:
    """Yields the names of the folders below `root` that have a commit marker."""
    for child in (root / name if name else root).iterdir():
        below = f"{name}/{child.name}" if name else child.name
        if child.is_dir() and not child.name.startswith("."):
            if artifacts.is_complete(child):
                yield below
            else:
                yield from _finished(root, below)

"""The `reproduce` command: does a recorded chain again, and compares every digest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from etils import epath
from rich.console import Console
from rich.table import Table

from apertus_jax.artifacts import COMMIT_MARKER, list_files
from apertus_jax.errors import UserError
from apertus_jax.pipeline.chain import DEFAULT_STAGES, run

# Checkpoints hold times of writing; the model that they lead to is compared instead. Intermediate stages of `prepare`
# come out in its results.
NOT_COMPARED = ("checkpoints", "prepared.work")


class Comparison(NamedTuple):
    """Files of one committed folder, by how they came out the second time."""

    folder: str
    same: tuple[str, ...]
    different: tuple[str, ...]
    missing: tuple[str, ...]


def reproduce(original: str, output: str, stages: Sequence[str] = DEFAULT_STAGES) -> dict[str, Any]:
    """Runs the stages that `original` records below `output`, and compares the digests of all committed files.

    On the command line the configuration is that which the original recorded; bindings that are given beside it hold
    too. The same bits can be expected from the same versions on the same kind and number of devices.

    Args:
      original: folder that `run` wrote.
      output: where to do it again; what is finished there is kept.
      stages: names of `run`'s stages.

    Returns:
      How many files are the same, and which are not.

    Raises:
      UserError: there is nothing to compare with, `output` is the original, or files came out differently.
    """
    root, again = epath.Path(original), epath.Path(output)
    if root.resolve() == again.resolve():
        raise UserError(f"{output} is what is to be reproduced; give another folder as --output")
    folders = committed_folders(root)
    if not folders:
        raise UserError(f"{original} holds nothing finished to compare with; give a folder that `apertus run` wrote")
    run(output, stages)
    compared = [compare(root / name, again / name, name) for name in folders]
    _show(compared, original)
    different = [f"{each.folder}/{name}" for each in compared for name in (*each.different, *each.missing)]
    same = sum(len(each.same) for each in compared)
    if different:
        raise UserError(
            f"{len(different)} of {len(different) + same} files of {original} came out differently, first "
            f"{different[0]}; compare versions, devices and inputs"
        )
    return {"same": same, "different": different}


def committed_folders(root: epath.Path) -> list[str]:
    """Returns the committed folders below a chain's output that are compared, by name, in order."""
    parents = {parent for name in list_files(root) for parent in PurePosixPath(name).parents}
    compared = (parent for parent in parents if not set(parent.parts) & set(NOT_COMPARED))
    return sorted(str(parent) for parent in compared if (root / str(parent) / COMMIT_MARKER).exists())


def compare(original: epath.Path, again: epath.Path, name: str) -> Comparison:
    """Compares the digests in the manifests of two folders of the same name."""
    first = json.loads((original / COMMIT_MARKER).read_text())["files"]
    marker = again / COMMIT_MARKER
    second = json.loads(marker.read_text())["files"] if marker.exists() else {}
    return Comparison(
        folder=name,
        same=tuple(file for file in sorted(first) if second.get(file) == first[file]),
        different=tuple(file for file in sorted(first) if file in second and second[file] != first[file]),
        missing=tuple(sorted(first.keys() - second.keys())),
    )


def _show(compared: Sequence[Comparison], original: str) -> None:
    table = Table(title=f"{original}, done again")
    for column in ("folder", "files", "same", "different"):
        table.add_column(column, justify="left" if column in ("folder", "different") else "right")
    for each in compared:
        wrong = (*each.different, *(f"{name} (missing)" for name in each.missing))
        files = len(each.same) + len(wrong)
        table.add_row(each.folder, str(files), str(len(each.same)), ", ".join(wrong) or "–")
    Console().print(table)

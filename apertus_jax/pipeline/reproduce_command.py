"""The `reproduce` command: runs a recorded chain again and compares every digest."""

from __future__ import annotations

import ast
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import gin
from etils import epath

from apertus_jax.configuration import rebind
from apertus_jax.configuration.recording import parse_bindings
from apertus_jax.errors import UserError
from apertus_jax.pipeline.run_command import DEFAULT_STAGES, STAGES, run_stages
from apertus_jax.storage import artifacts
from apertus_jax.storage.artifacts import COMMIT_MARKER, list_files
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.places import existing_places
from apertus_jax.storage.run_folder import CHECKPOINTS_FOLDER
from apertus_jax.terminal.tables import show_table

_log = logging.getLogger(__name__)
# Checkpoints hold times of writing; the model that they lead to is compared instead. Intermediate stages of `prepare`
# come out in its results.
NOT_COMPARED = (CHECKPOINTS_FOLDER, "prepared.work")


class Comparison(NamedTuple):
    """Files of one committed folder, by how they came out the second time."""

    folder: str
    same: tuple[str, ...]
    different: tuple[str, ...]
    missing: tuple[str, ...]


def reproduce(original: str, output: str, stages: Sequence[str] = DEFAULT_STAGES) -> dict[str, Any]:
    """Runs the stages that `original` records below `output`, and compares the digests of all committed files.

    On the command line the configuration is that which the original recorded; bindings that are given beside it hold
    too. Training that went on under another configuration goes through each change again, at its step. The same bits
    can be expected from the same versions on the same kind and number of devices.

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
    # Read before anything is run: hours of work are not to end at a manifest that cannot be compared.
    outside = places_outside(root, again)
    if outside:
        _log.info("what %s records lets this read, beside it: %s", original, ", ".join(outside))
    recorded = {name: artifacts.read_manifest(root / name, artifacts.kind_of(root / name))["files"] for name in folders}
    run_stages(output, stages, lambda name, command: perform(name, command, root))
    compared = [compare(first, again / name, name) for name, first in recorded.items()]
    _show(compared, original)
    different = [f"{each.folder}/{name}" for each in compared for name in (*each.different, *each.missing)]
    same = sum(len(each.same) for each in compared)
    if different:
        raise UserError(
            f"{len(different)} of {len(different) + same} files of {original} came out differently, first "
            f"{different[0]}; compare versions, devices and inputs"
        )
    return {"same": same, "different": different}


def places_outside(root: epath.Path, again: epath.Path) -> list[str]:
    """Returns what exists on this machine, neither in the original nor in the output, and is named by a binding.

    A recorded configuration names places; whoever runs one of a stranger's is to see which of their own it reads.
    """
    own = tuple(f"{os.path.realpath(folder)}/" for folder in (root, again))
    values = parse_bindings(gin.config_str()).values()
    named = {text for value in values for text in existing_places([_literal(value)])}
    return sorted(text for text in named if not f"{os.path.realpath(text)}/".startswith(own))


def _literal(value: str) -> Any:
    """Returns a value in gin's spelling, nothing for references."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return [text for _, text in re.findall(r"(['\"])(.*?)\1", value)]


def perform(name: str, command: Callable[[], Any], original: epath.Path) -> Any:
    """Calls the command of a stage; training whose configuration changed on the way goes through every change again."""
    if name != "pretrain":
        return command()
    from apertus_jax.training.records.replay import replay_pretrain

    return replay_pretrain(original / STAGES[name].folders["output"], command, rebind)


def committed_folders(root: epath.Path) -> list[str]:
    """Returns the committed folders below a chain's output that are compared, by name, in order."""
    parents = {parent for name in list_files(root) for parent in PurePosixPath(name).parents}
    compared = (parent for parent in parents if not set(parent.parts) & set(NOT_COMPARED))
    return sorted(str(parent) for parent in compared if (root / str(parent) / COMMIT_MARKER).exists())


def compare(first: Mapping[str, Any], again: epath.Path, name: str) -> Comparison:
    """Compares the recorded digests of a folder's files with those in the manifest of the folder made again."""
    marker = again / COMMIT_MARKER
    second = read_json_object(marker)["files"] if marker.exists() else {}
    return Comparison(
        folder=name,
        same=tuple(file for file in sorted(first) if second.get(file) == first[file]),
        different=tuple(file for file in sorted(first) if file in second and second[file] != first[file]),
        missing=tuple(sorted(first.keys() - second.keys())),
    )


def _show(compared: Sequence[Comparison], original: str) -> None:
    rows = []
    for each in compared:
        wrong = (*each.different, *(f"{name} (missing)" for name in each.missing))
        rows.append((each.folder, len(each.same) + len(wrong), len(each.same), ", ".join(wrong) or "–"))
    columns = ("folder", "files", "same", "different")
    show_table(columns, rows, f"{original}, done again", right=("files", "same"))

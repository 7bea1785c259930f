"""The `verify` command: every byte of an artefact against its digest, every value against what its readers assume."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json
from apertus_jax.storage.listing import BUILDING_MARKER
from apertus_jax.storage.manifests import values_of
from apertus_jax.storage.run_folder import CHECKPOINTS_FOLDER, RunFolder, step_of_folder
from apertus_jax.storage.verification import Notes, check_contents, check_digests
from apertus_jax.sweeps.sweep_folder import PLAN_FILE, read_plan
from apertus_jax.terminal.json_output import print_json
from apertus_jax.terminal.progress import ProgressBars
from apertus_jax.terminal.tables import show_fields, show_line

RUN, REPOSITORY, CHAIN, SWEEP = "run", "huggingface_repository", "chain", "sweep"
# Kind of folder → what checks its values, in the package that writes it.
VERIFIERS = {
    "token_store": "apertus_jax.data.store.verify_store:verify_store",
    "probes": "apertus_jax.data.store.verify_store:verify_planted",
    "canaries": "apertus_jax.data.store.verify_store:verify_planted",
    "prepared_corpus": "apertus_jax.corpus.verify_corpus:verify_prepared",
    "tombstones": "apertus_jax.corpus.verify_corpus:verify_tombstones",
    "robots_snapshot": "apertus_jax.corpus.verify_corpus:verify_snapshot",
    "classifier": "apertus_jax.corpus.verify_corpus:verify_classifier",
    "checkpoint": "apertus_jax.checkpoints.verify_checkpoints:verify_checkpoint",
    CHECKPOINTS_FOLDER: "apertus_jax.checkpoints.verify_checkpoints:verify_checkpoints",
    "model": "apertus_jax.release.verify_models:verify_model",
    "huggingface_model": "apertus_jax.release.verify_models:verify_huggingface",
    REPOSITORY: "apertus_jax.release.verify_models:verify_huggingface",
    "memorization_audit": "apertus_jax.evaluation.memorization.verify_audit:verify_audit",
    "output_filter": "apertus_jax.release.verify_models:verify_filter",
    RUN: "apertus_jax.training.records.verify_run:verify_run",
    SWEEP: "apertus_jax.sweeps.sweep_folder:verify_sweep",
}
# Folders inside a committed one that have markers of their own.
INNER = {"prepared_corpus": ("parts",), "memorization_audit": ("cells", "lease")}
OWN_DIGESTS = ("checkpoint",)
# A repository gets a model card and whatever else its publisher adds.
OPEN_TO_MORE = ("huggingface_model",)
# Raw documents with planted faults: their bytes are checked, not what they spell.
RAW = ("overlay",)
COLUMNS = ("folder", "what", "amount")


def verify(folder: str, json: bool = False) -> list[dict[str, str]]:
    """Reads a folder that a command wrote, or a Hugging Face repository, to the last byte and changes nothing.

    Args:
      folder: a corpus, ledger, token store, checkpoint, model, export, filter, audit, run, or the folder of a chain.
      json: print one JSON object in place of the table.

    Returns:
      One {"folder", "what", "amount"} for each thing that holds.

    Raises:
      UserError: the first thing that is damaged; or a folder of no known kind.
    """
    root = epath.Path(folder)
    if not root.exists():
        raise UserError(f"{root} does not exist; give a folder that a command wrote")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give a folder that a command wrote")
    notes, bars = Notes(), ProgressBars()
    notes.track = bars.track
    with bars:
        try:
            _verify_any(root, notes)
        except UserError as error:
            bars.stop()
            _show(notes, json, str(error))
            raise
    _show(notes, json, None)
    return [{"folder": place, "what": what, "amount": amount} for place, what, amount in notes.rows]


def kind_of_folder(root: epath.Path) -> str | None:
    """Returns the kind of a folder by its marker, or by what lies in it; None when it is none that we know."""
    if artifacts.is_complete(root):
        return artifacts.kind_of(root)
    if RunFolder(root).is_run():
        return RUN
    if (root / PLAN_FILE).exists():
        return SWEEP
    children = sorted(child for child in root.iterdir() if not child.name.startswith("."))
    if any(step_of_folder(child.name) is not None and child.is_dir() for child in children):
        return CHECKPOINTS_FOLDER
    if (root / "config.json").exists():
        values = read_json(root / "config.json", allow_nan=True)
        return REPOSITORY if isinstance(values, dict) and "model_type" in values else None
    if any(child.is_dir() and (artifacts.is_complete(child) or RunFolder(child).is_run()) for child in children):
        return CHAIN
    return None


def _verify_any(root: epath.Path, notes: Notes) -> None:
    kind = kind_of_folder(root)
    if kind is None:
        state = "was not finished" if (root / BUILDING_MARKER).exists() else "is no folder that a command wrote"
        raise UserError(f"{root} {state}: it has no {artifacts.COMMIT_MARKER}; give a finished folder")
    if kind == CHAIN:
        for child in sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")):
            if not child.name.endswith(".work"):
                _verify_any(child, notes)
        return
    manifest = None
    if artifacts.is_complete(root) and kind not in OWN_DIGESTS:
        manifest = artifacts.read_any(root)
        check_digests(root, manifest, notes, INNER.get(kind, ()), open_to_more=kind in OPEN_TO_MORE)
        if kind not in RAW:
            check_contents(root, sorted(manifest["files"]), notes)
    if kind in VERIFIERS:
        with values_of(root, kind):
            _verifier(kind)(root, manifest, notes)
    if kind == SWEEP:
        plan = read_plan(root)
        assert plan is not None  # by which the folder is known for a sweep
        for name in plan["runs"]:
            if RunFolder(root / name).is_run():
                _verify_any(root / name, notes)
    if kind == RUN:
        run = RunFolder(root)
        for inner in (run.tokenizer, run.checkpoints, run.final_model):
            if inner.exists():
                _verify_any(inner, notes)


def _verifier(kind: str) -> Callable[[epath.Path, Any, Notes], None]:
    module, _, name = VERIFIERS[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def _show(notes: Notes, as_json: bool, damage: str | None) -> None:
    """Prints what holds, and what does not: folder by folder with a last line, or one JSON object."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in notes.rows]
    if as_json:
        print_json({"whole": damage is None, "damage": damage, "checked": rows})
        return
    for folder in dict.fromkeys(row["folder"] for row in rows):
        show_fields([(f"  {row['what']}", row["amount"]) for row in rows if row["folder"] == folder], folder)
    if damage is None:
        show_line(f"whole: {len(rows)} checks in {len({row['folder'] for row in rows})} folders")

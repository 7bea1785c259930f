"""Verification of a run folder: its records, its checkpoints against its model, and the model."""

from __future__ import annotations

import os
from typing import Any

from etils import epath

from apertus_jax.checkpoints.opened_model import MODEL
from apertus_jax.checkpoints.step_folders import METADATA_FILE
from apertus_jax.checkpoints.verify_checkpoints import leaf_table
from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.model_folder import CONFIG_FILE, config_from_json, read_config
from apertus_jax.model.parameters import parameter_shapes
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json_lines, read_json_object
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.run_folder import TOKENIZER_FOLDER, RunFolder
from apertus_jax.storage.tokenizer_files import read_vocabulary
from apertus_jax.storage.verification import Notes


def verify_run(folder: epath.Path, manifest: dict[str, Any] | None, notes: Notes) -> None:
    """Checks the records of a run, and that its checkpoints are those of its model; both are verified apart.

    Raises:
      UserError: the first thing that does not fit.
    """
    run = RunFolder(folder)
    record = read_json_object(run.record, allow_nan=True)
    check_record_fields(record, str(run.record))
    _check_tokenizer(run, record["identity"]["tokenizer"])
    finished = run.finished
    if finished.exists():
        require_fields(read_json_object(finished, allow_nan=True), {"step": int, "finished": bool}, str(finished))
    previous, rows = 0, 0
    if run.metrics.exists():
        with run.metrics.open("rb") as lines:
            for rows, row in parse_json_lines(lines, str(run.metrics), allow_nan=True):
                where = f"{run.metrics}, line {rows}"
                require_fields(row, {"step": int}, where)
                if row["step"] < previous:
                    raise UserError(f"{where}: step {row['step']} comes after {previous}; restore the file")
                previous = row["step"]
    notes.add(folder, "records", f"{rows:,} rows of metrics up to step {previous:,}")
    model = run.final_model
    for step in run.committed_steps():
        place = run.model(step)
        where = os.fspath(place / METADATA_FILE)
        saved = read_json_object(place / METADATA_FILE, allow_nan=True)
        table = leaf_table(saved, where)
        if MODEL in saved["metadata"]:
            _check_same_model(table, config_from_json(saved["metadata"][MODEL], where), where, place)
        if (model / CONFIG_FILE).exists():
            _check_same_model(table, read_config(model), model, place)


def check_record_fields(record: Any, where: str) -> None:
    """Checks that the record of a run has the parts that resuming relies on.

    Raises:
      UserError: one is missing or of another kind.
    """
    require_fields(record, {"identity": dict, "config": dict}, where)
    require_fields(record["identity"], {"store": str, "tokenizer": str}, f"{where}: identity")
    strange = sorted(name for name, value in record["config"].items() if not isinstance(value, str))
    if strange:
        raise UserError(f"{where}: config.{strange[0][:60]} is no text; restore it, or start in a new folder")


def _check_tokenizer(run: RunFolder, digest: str) -> None:
    """Raises UserError when the run's copy of its tokenizer is another one; earlier versions kept none."""
    if not run.tokenizer.exists():
        return
    found = artifacts.read_manifest(run.tokenizer, TOKENIZER_FOLDER).get("inputs", {}).get("tokenizer")
    if found != digest:
        raise UserError(f"{run.tokenizer} is the tokenizer {found} and the run's own {digest}; put that back")
    read_vocabulary(run.tokenizer)


def _check_same_model(table: dict[str, Any], config: ModelConfig, model: epath.PathLike, place: epath.Path) -> None:
    expected = parameter_shapes(config)
    found = {name.removeprefix("params/"): shape for name, (shape, _) in table.items() if name.startswith("params/")}
    if found != expected:
        name = sorted(path for path in expected.keys() | found.keys() if found.get(path) != expected.get(path))[0]
        raise UserError(
            f"{place} is of another model than {model}: {name} is {found.get(name)} there and {expected.get(name)} here"
        )

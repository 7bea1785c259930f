"""What a run folder says about itself: its configuration, the data it reads, and whether it has finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.artifacts import digest_json, write_atomically
from apertus_jax.data.recorded_stream import MIXTURE_FILE, extended_record
from apertus_jax.errors import UserError

RECORD_FILE = "run.json"
FINISHED_FILE = "finished.json"
CONFIG_FILE = "config.gin"
# Bindings that may change between two starts of one run, because no bit of the result depends on them.
FREE_TO_CHANGE = (
    "pretrain.store",
    "pretrain.output",
    "pretrain.total_steps",
    "pretrain.allow_config_change",
    "pretrain.distributed",
    # The digest of the tombstones and the number of requests in effect stand for these, see training/tombstones.py.
    "pretrain.tombstones",
    "pretrain.tombstones_date",
    "pretrain.on_tombstoned",
    "TrainingConfig.log_every",
    "TrainingConfig.checkpoint_every",
    "TrainingConfig.keep_last",
    "TrainingConfig.keep_every",
    "TrainingConfig.max_skipped_in_a_row",
    "TrainingConfig.prefetch",
    "pretrain.evaluators",
)
EVALUATOR = "Evaluator"  # see training/evaluators.py
DIFFERENCES_SHOWN = 8


def write_json(path: epath.Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file in one piece."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: epath.Path) -> dict[str, Any]:
    """Reads a JSON file of a run folder.

    Raises:
      UserError: the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or start in a new folder") from error


def decides_the_result(name: str) -> bool:
    """Returns whether a bit of the run can depend on the binding `name`."""
    return name not in FREE_TO_CHANGE and not name.rpartition(".")[0].endswith(EVALUATOR)


def config_differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Returns one line per binding that differs and matters, `name: old -> new`."""
    names = sorted(filter(decides_the_result, old.keys() | new.keys()))
    return [
        f"{name}: {old.get(name, '(absent)')} -> {new.get(name, '(absent)')}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def check_record(folder: epath.Path, identity: Mapping[str, Any], config: Mapping[str, str], told: bool) -> None:
    """Checks that a run that has checkpoints is still the one that its record describes.

    Args:
      folder: the run folder.
      identity: what the run is bound to: digests of store and tokenizer.
      config: the bindings in effect.
      told: the person allowed the configuration to change.

    Raises:
      UserError: the tokenizer, the store or the configuration is another than at the start; differences are named.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return
    record = read_json(path)
    check_identity(folder, record["identity"], identity)
    differences = config_differences(record["config"], config)
    if differences and not told:
        shown = "; ".join(differences[:DIFFERENCES_SHOWN])
        more = f"; and {len(differences) - DIFFERENCES_SHOWN} more" if len(differences) > DIFFERENCES_SHOWN else ""
        raise UserError(
            f"{folder} was started under another configuration ({shown}{more}); start in a new folder, or set "
            "pretrain.allow_config_change = True to go on under the new one"
        )


def write_record(
    folder: epath.Path, identity: Mapping[str, Any], config: Mapping[str, str], tombstones: Mapping[str, Any] | None
) -> None:
    """Writes `run.json` and `config.gin`: what the run is bound to from here on, and which documents it leaves out."""
    spelled = "".join(f"{name} = {value}\n" for name, value in sorted(config.items()))
    write_atomically(folder / CONFIG_FILE, f"# What was in effect, apertus_jax {__version__}\n{spelled}")
    record = {"identity": dict(identity), "config": dict(config), "code_version": __version__}
    if tombstones is not None:
        record["tombstones"] = dict(tombstones)
    write_json(folder / RECORD_FILE, record)


def write_data_record(folder: epath.Path, description: Mapping[str, Any], first_step: int) -> None:
    """Writes `mixture.json`: the order of the samples from `first_step` on (`describe_data`), and the ones before."""
    path = folder / MIXTURE_FILE
    write_json(path, extended_record(read_json(path) if path.exists() else None, description, first_step))


def check_identity(folder: epath.Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises UserError when a run would go on with another tokenizer or another token store than it began with."""
    if old["tokenizer"] != new["tokenizer"]:
        raise UserError(
            f"{folder} was trained with tokenizer {old['tokenizer']} but this store was made with {new['tokenizer']}; "
            "give the store it began with, or start in a new folder"
        )
    if old["store"] != new["store"]:
        raise UserError(
            f"{folder} was trained on a token store with digest {old['store']} but the store now has {new['store']}: "
            "it was rebuilt or replaced; restore the old store, or start in a new folder"
        )


def config_digest(config: Mapping[str, str]) -> str:
    """Returns the digest of the bindings that decide the result."""
    return digest_json({name: value for name, value in config.items() if decides_the_result(name)})


def read_finished(folder: epath.PathLike) -> dict[str, Any] | None:
    """Returns the summary of a finished run, or None."""
    path = epath.Path(folder) / FINISHED_FILE
    return read_json(path) if path.exists() else None

"""Run metadata: configuration, data identity, completion."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.data.provenance.recorded_stream import EARLIER, FROM_STEP, phases_before
from apertus_jax.errors import UserError
from apertus_jax.model.attention_kernels import Tiles
from apertus_jax.model.feedforwards import OWN
from apertus_jax.process.module_sources import IMPORT_COMMENT
from apertus_jax.storage.artifacts import BUILDING_MARKER, COMMIT_MARKER, digest_json, write_atomically
from apertus_jax.storage.json_reader import JSONError, read_json_object
from apertus_jax.storage.run_folder import OWN_NAMES, RECORD_FILE, TRACKER_PREFIX, RunFolder
from apertus_jax.storage.run_parent import PARENT
from apertus_jax.training.config import TrainingConfig, free_bindings
from apertus_jax.training.records.run_history import (
    HISTORY,
    Change,
    changes_at,
    config_before,
    data_settings,
    extended_history,
    read_changes,
    schedule_bindings,
    steps_of_changes,
)
from apertus_jax.training.run import RunSchedule
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.run_watch import RunWatch
from apertus_jax.training.survival.step_guard import StepGuard
from apertus_jax.training.survival.supervision import Supervision
from apertus_jax.training.tombstones import RemovalOptions

# Bindings that may change between two starts of one run, because no bit of the result depends on them.
FREE_TO_CHANGE = free_bindings(TrainingConfig, RunSchedule, RemovalOptions, JobLimits, RunWatch, Supervision) | {
    "pretrain.store",
    "pretrain.output",
    "pretrain.allow_config_change",
    "pretrain.distributed",
    "pretrain.evaluators",
    "pretrain.supervision",
}
# Bindings that came after runs were recorded → what those runs had; with that value they are as if absent.
ADDED_LATER = {
    "ModelConfig.feedforward": repr(OWN),
    "ModelConfig.attention_tile": repr(Tiles.size),
    "ModelConfig.attention_fused_backward": repr(Tiles.fused_backward),
    "TrainingConfig.compiler_options": "()",
    **{f"StepGuard.{field.name}": repr(field.default) for field in dataclasses.fields(StepGuard)},
}
WITHOUT_EFFECT = ("Evaluator", "Tracker")  # see training/evaluators.py and training/trackers.py
DIFFERENCES_SHOWN = 8


def write_json(path: epath.Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file in one piece."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_record_file(path: epath.Path) -> dict[str, Any]:
    """Reads a JSON object that a run folder holds.

    Raises:
      UserError: the file is damaged.
    """
    try:
        return read_json_object(path, allow_nan=True)
    except JSONError as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or start in a new folder") from error


def read_run_record(folder: epath.Path) -> dict[str, Any] | None:
    """Returns the content of run.json, None where there is none.

    Raises:
      UserError: it is damaged, or not of this project.
    """
    path = RunFolder(folder).record
    if not path.exists():
        return None
    record = read_record_file(path)
    parts = record.get("identity"), record.get("config")
    if not all(isinstance(part, dict) and all(isinstance(v, str) for v in part.values()) for part in parts):
        raise UserError(f"{path} is no record of a run; it belongs to something else, choose another folder")
    if not {"store", "tokenizer"} <= record["identity"].keys():
        raise UserError(f"{path} does not say which store and tokenizer the run read; restore it")
    return record


def check_run_folder(folder: epath.Path) -> None:
    """Checks that a folder may be trained in: it is a run's, or empty, or not there yet.

    Raises:
      UserError: it is something else, or lies inside a finished artefact; nothing was touched.
    """
    for place in (folder, *folder.parents):
        if any((place / marker).exists() for marker in (COMMIT_MARKER, BUILDING_MARKER)):
            what = "is" if place == folder else f"lies inside {place}, which is"
            raise UserError(f"{folder} {what} the output of another command; give pretrain.output a folder of its own")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give pretrain.output a folder of its own")
    if read_run_record(folder) is not None:
        return
    foreign = sorted(path.name for path in folder.iterdir() if not _is_own(path.name))
    if foreign:
        raise UserError(
            f"{folder} is no run folder and holds {foreign[0]!r}; give pretrain.output an empty folder, or none yet"
        )


def _is_own(name: str) -> bool:
    """Returns whether a run writes a file of this name, or was killed while it wrote one."""
    return name in OWN_NAMES or name.startswith(TRACKER_PREFIX) or (name.startswith(".") and name.endswith(".partial"))


def decides_the_result(name: str) -> bool:
    """Returns whether a bit of the run can depend on the binding `name`."""
    name = name.rpartition("/")[2]  # whatever the scope
    return name not in FREE_TO_CHANGE and not name.rpartition(".")[0].endswith(WITHOUT_EFFECT)


def deciding_bindings(config: Mapping[str, str]) -> dict[str, str]:
    """Returns the bindings on which a bit of the run can depend."""
    return {
        name: value
        for name, value in config.items()
        if decides_the_result(name) and ADDED_LATER.get(name.rpartition("/")[2]) != value
    }


def config_differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Returns one line per binding that differs and matters, `name: old -> new`."""
    old, new = deciding_bindings(old), deciding_bindings(new)
    return [
        f"{name}: {old.get(name, '(absent)')} -> {new.get(name, '(absent)')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def check_record(
    folder: epath.Path, identity: Mapping[str, Any], config: Mapping[str, str], allow_change: bool, later: str = ""
) -> None:
    """Checks that a run that has checkpoints is still the one that its record describes.

    Args:
      folder: the run folder.
      identity: what the run is bound to: digests of store and tokenizer.
      config: the bindings in effect.
      allow_change: the person allowed the configuration to change.
      later: a binding that is not known yet and is compared another time.

    Raises:
      UserError: the tokenizer, the store or the configuration is another than at the start; differences are named.
    """
    record = read_run_record(folder)
    if record is None:
        return
    check_identity(folder, record["identity"], identity)
    compared = {name: value for name, value in record["config"].items() if name != later}
    differences = config_differences(compared, config)
    if differences and not allow_change:
        shown = "; ".join(differences[:DIFFERENCES_SHOWN])
        more = f"; and {len(differences) - DIFFERENCES_SHOWN} more" if len(differences) > DIFFERENCES_SHOWN else ""
        altered = altered_modules(compared, config)
        code = (
            f"; the code of {' and '.join(altered)} has changed: give the files it was started with" if altered else ""
        )
        raise UserError(
            f"{folder} was started under another configuration ({shown}{more}){code}; start in a new folder, or set "
            "pretrain.allow_config_change = True to go on under the new one"
        )


def imported_modules(config: Mapping[str, str]) -> dict[str, str]:
    """Returns the modules given by --import, name → what is recorded of it, from the bindings in effect."""
    imports = {name: value for name, value in config.items() if name.startswith(IMPORT_COMMENT)}
    return {name.removeprefix(IMPORT_COMMENT): value for name, value in imports.items()}


def altered_modules(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Returns the modules given by --import both times whose source has changed."""
    before, now = imported_modules(old), imported_modules(new)
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])


def write_record(
    folder: epath.Path,
    identity: Mapping[str, Any],
    config: Mapping[str, str],
    tombstones: Mapping[str, Any] | None,
    changes: Sequence[Change] = (),
    parent: Mapping[str, Any] | None = None,
) -> None:
    """Writes `run.json` and `config.gin`: what the run is bound to from here on, what changed on the way, which
    documents it leaves out, and what it started from."""
    spelled = "".join(f"{name} = {value}\n" for name, value in sorted(config.items()))
    steps = ", ".join(map(str, steps_of_changes(changes)))
    changed = f"# The configuration changed at step {steps}; this is the last one, see {RECORD_FILE}\n" if steps else ""
    write_atomically(RunFolder(folder).config, f"{changed}# What was in effect, apertus_jax {__version__}\n{spelled}")
    record: dict[str, Any] = {"identity": dict(identity), "config": dict(config), "code_version": __version__}
    if changes:
        record[HISTORY] = [dataclasses.asdict(change) for change in changes]
    if tombstones is not None:
        record["tombstones"] = dict(tombstones)
    if parent is not None:
        record[PARENT] = dict(parent)
    write_json(RunFolder(folder).record, record)


def changes_of_start(
    folder: epath.Path,
    config: Mapping[str, str],
    data: Mapping[str, Any],
    first_step: int,
    first_sample: int,
) -> list[Change]:
    """Returns the changes of a run that starts, or goes on, at `first_step`: those on record, and this start's.

    Args:
      folder: the run folder, before anything of this start is written.
      config: the bindings in effect.
      data: the new content of mixture.json.
      first_step, first_sample: where the checkpoint stands.
    """
    record = read_run_record(folder)
    if record is None or first_step == 0:
        return []
    known = read_changes(record)
    new_order = data[FROM_STEP] == first_step
    old: Mapping[str, str] = {}
    names: set[str] = set()
    if config:
        old = config_before(record["config"], known, first_step)
        names = set(deciding_bindings(old) | deciding_bindings(config))
    elif new_order and data[EARLIER]:  # no gin: the fields of the data record stand for bindings
        old, config = data_settings(data[EARLIER][-1]), data_settings(data)
        names = set(old)
    made = changes_at(first_step, first_sample, old, config, names)
    if made or new_order:
        # Megatron's order, and schedules in fractions of the run, hang on its length.
        made += changes_at(first_step, first_sample, old, config, schedule_bindings(config, "total_steps"))
    return extended_history(known, made, first_step, known)


def read_data_record(folder: epath.Path) -> dict[str, Any] | None:
    """Returns the content of mixture.json, None where there is none.

    Raises:
      UserError: it is damaged.
    """
    path = RunFolder(folder).mixture
    return read_record_file(path) if path.exists() else None


def data_record_until(record: Mapping[str, Any], first_step: int) -> dict[str, Any]:
    """Returns the content of mixture.json as it was when the run came to `first_step`."""
    *earlier, newest = phases_before(record, first_step)
    return {**newest, EARLIER: earlier}


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
    return digest_json(deciding_bindings(config))


def read_finished(folder: epath.PathLike) -> dict[str, Any] | None:
    """Returns the summary of a finished run, or None."""
    path = RunFolder(folder).finished
    return read_record_file(path) if path.exists() else None


def forget_end(folder: epath.Path, first_step: int) -> None:
    """Removes the mark of an end beyond `first_step`: its steps are done again, and nobody is to take them for done."""
    finished = read_finished(folder)
    step = None if finished is None else finished.get("step")
    if finished is not None and not (isinstance(step, int) and step <= first_step):
        RunFolder(folder).finished.unlink()

"""End of a run: the model folder, the report, and the completion marker."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from apertus_jax.data import TokenStore
from apertus_jax.data.provenance.language_shares import OTHER, UNKNOWN, exposure_of_run
from apertus_jax.data.provenance.uses import Phase
from apertus_jax.model import count_parameters, model_folder
from apertus_jax.process.agreement import first_says
from apertus_jax.process.module_sources import MODULES
from apertus_jax.storage import artifacts
from apertus_jax.storage.run_parent import PARENT, read_parent
from apertus_jax.training.loop import LoopState, check_samples
from apertus_jax.training.multihost import is_first, wait_for_all
from apertus_jax.training.records import run_record
from apertus_jax.training.records.report import write_run_report
from apertus_jax.training.records.run_history import Change
from apertus_jax.training.records.telemetry import json_value, read_metrics
from apertus_jax.training.run import TrainingRun

_log = logging.getLogger(__name__)


def finish_run(
    run: TrainingRun,
    result: LoopState,
    store: TokenStore,
    phases: Sequence[Phase],
    identity: Mapping[str, Any],
    config: Mapping[str, str],
    changes: Sequence[Change],
) -> dict[str, Any]:
    """Writes `model/`, `report.html` and `finished.json`; doing it twice changes nothing.

    `phases` are the orders that the run was trained in, `changes` what is marked in its report.

    Every process calls it, the first writes. The parameters leave the mesh piece by piece, see `save_model`.
    """
    folder, program, history = run.folder, run.program, run.schedule.batches
    rows = read_metrics(folder.path)
    check_samples(result.state, history, result.step)
    exposure = exposure_of_run(phases, result.step)
    shares = exposure.shares()
    summary = {
        "step": result.step,
        "finished": True,
        "samples": history.first_sample(result.step),
        "tokens": history.tokens_before(result.step),
        "loss": rows[-1]["loss"] if rows else None,
        "parameters": count_parameters(program.abstract_state.params),
        "languages": exposure.num_languages,
        "non_english_share": shares[OTHER],
        "unknown_language_share": shares[UNKNOWN],
        "languages_counted_exactly": exposure.exact,
    }
    summary = json_value(summary)
    write_model(run, result.state.params, result.step, store, identity, config)
    if is_first():
        write_run_report(folder.path, run.name, program, summary, exposure, config, changes, history, stages=run.stages)
        run_record.write_json(folder.finished, summary)
        _log.info(
            "finished: %d tokens %s; open %s",
            summary["tokens"],
            _in_languages(summary),
            folder.report,
        )
    wait_for_all("finished")
    return summary


def _in_languages(summary: Mapping[str, Any]) -> str:
    """Returns in how many languages the tokens are, and the shares that are not English and that nobody knows."""
    unknown = summary["unknown_language_share"]
    of_unknown = f"{100 * unknown:.0f} % of unknown language"
    if not summary["languages"]:
        return of_unknown
    known = f"in {summary['languages']} languages, {100 * summary['non_english_share']:.0f} % not English"
    return f"{known}, {of_unknown}" if unknown else known


def write_model(
    run: TrainingRun,
    params: Any,
    step: int,
    store: TokenStore,
    identity: Mapping[str, Any],
    config: Mapping[str, str],
) -> None:
    """Writes the model folder of the last step, replacing that of an earlier end of the same run."""
    target = run.folder.final_model
    inputs = {**identity, "config": run_record.config_digest(config), "step": step}

    def make_room() -> bool:
        if artifacts.same_inputs(target, model_folder.KIND, inputs):
            return False
        if artifacts.is_complete(target):
            target.rmtree()
        return True

    if not first_says(make_room):
        return
    modules = run_record.imported_modules(config)
    parent = read_parent(run.folder.path)
    summary: dict[str, Any] = {MODULES: modules} if modules else {}
    if parent is not None:
        summary[PARENT] = parent.to_json()
    model_folder.save_model(
        target,
        run.program.config,
        params,
        store.tokenizer_folder,
        inputs=inputs,
        summary=summary,
    )

"""The end of a run: the model folder, the report, and the mark that says it is finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax import artifacts, model_folder
from apertus_jax.data import SampleStream, TokenStore
from apertus_jax.data.exposure import language_exposure
from apertus_jax.training import run_record
from apertus_jax.training.loop import LoopResult
from apertus_jax.training.processes import is_first, on_every_host, wait_for_all
from apertus_jax.training.program import Program
from apertus_jax.training.report import REPORT_FILE, write_run_report
from apertus_jax.training.telemetry import read_metrics

MODEL_FOLDER = "model"
_log = logging.getLogger(__name__)


def finish_run(
    folder: epath.Path,
    program: Program,
    result: LoopResult,
    store: TokenStore,
    stream: SampleStream,
    identity: Mapping[str, Any],
    config: Mapping[str, str],
) -> dict[str, Any]:
    """Writes `model/`, `report.html` and `finished.json`; doing it twice changes nothing.

    Every process calls it, the first writes. The model folder needs memory for all parameters in float32 on each host.
    """
    rows = read_metrics(folder)
    samples = stream.schedule.first_sample(result.step)
    exposure = language_exposure(stream, samples)
    summary = {
        "step": result.step,
        "finished": True,
        "samples": samples,
        "tokens": samples * stream.sequence_length,
        "loss": rows[-1]["loss"] if rows else None,
        "parameters": program.config.num_parameters,
        "languages": len(exposure.tokens),
        "non_english_share": 1.0 - exposure.share("eng_"),
        "languages_counted_exactly": exposure.exact,
    }
    params = on_every_host(result.state.params)
    if is_first():
        write_model(folder, program, params, result.step, store, identity, config)
        write_run_report(folder, program, summary, exposure, config)
        run_record.write_json(folder / run_record.FINISHED_FILE, summary)
        _log.info(
            "finished: %d tokens in %d languages, %.0f %% not English; open %s",
            summary["tokens"],
            summary["languages"],
            100 * summary["non_english_share"],
            folder / REPORT_FILE,
        )
    wait_for_all("finished")
    return summary


def write_model(
    folder: epath.Path,
    program: Program,
    params: Any,
    step: int,
    store: TokenStore,
    identity: Mapping[str, Any],
    config: Mapping[str, str],
) -> None:
    """Writes the model folder of the last step, replacing that of an earlier end of the same run."""
    target = folder / MODEL_FOLDER
    inputs = {**identity, "config": run_record.config_digest(config), "step": step}
    if artifacts.same_inputs(target, model_folder.KIND, inputs):
        return
    if artifacts.is_complete(target):
        target.rmtree()
    model_folder.save_model(target, program.config, params, store.tokenizer_folder, inputs=inputs)

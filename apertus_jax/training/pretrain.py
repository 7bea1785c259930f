"""The `pretrain` command: from a token store to checkpoints and a model folder, resumable at every step."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from etils import epath

from apertus_jax import artifacts, sharding
from apertus_jax.checkpoints import Checkpointer
from apertus_jax.data import BatchSchedule, Mixture, TokenStore, stream_of_store
from apertus_jax.data.device_batches import DeviceBatches
from apertus_jax.data.loader import BatchLoader, ReadAhead
from apertus_jax.data.recorded_stream import describe_data
from apertus_jax.data.sample_stream import SampleStream
from apertus_jax.data.store_stream import MegatronMixture
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.optimization import optimizer_chain, weight_decay_mask
from apertus_jax.run_folder import is_local
from apertus_jax.training import run_record
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.evaluators import EvaluationSchedule, Evaluator
from apertus_jax.training.finish import MODEL_FOLDER, finish_run
from apertus_jax.training.loop import LoopResult, train
from apertus_jax.training.processes import is_first, join_job, lease_of_job
from apertus_jax.training.program import Program, make_program
from apertus_jax.training.tombstones import plan_removals
from apertus_jax.training.train_step import Objective

CHECKPOINTS_FOLDER = "checkpoints"
_log = logging.getLogger(__name__)


def pretrain(
    store: str,
    output: str,
    model: ModelConfig,
    mixture: Mixture | MegatronMixture,
    batch_schedule: BatchSchedule,
    objective: Objective,
    optimizer: Callable[..., optax.GradientTransformationExtraArgs],
    learning_rate: Any,
    total_steps: int,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    mesh: sharding.MeshConfig = sharding.MeshConfig(),  # noqa: B008 (frozen)
    sample_index: str = "windows",
    allow_config_change: bool = False,
    distributed: bool = False,
    tombstones: str | None = None,
    on_tombstoned: str = "refuse",
    tombstones_date: str = "",
    evaluators: Sequence[Evaluator] = (),
    effective_config: Callable[[], Mapping[str, str]] = dict,
) -> dict[str, Any]:
    """Trains until `total_steps`, from the newest valid checkpoint of `output` if there is one.

    Args:
      store: folder of the token store.
      output: the run folder.
      model: architecture.
      mixture: which source at which rate.
      batch_schedule: samples per step.
      objective: masks and normalisation of the loss.
      optimizer: makes the optimizer from `learning_rate` and the decay `mask`, for example `ademamix`.
      learning_rate: a number, or a schedule of the samples consumed.
      total_steps: steps of the whole run, not of this start.
      training: loop settings.
      mesh: how devices are arranged.
      sample_index: "windows" over the stored stream, or "best_fit" packing of whole documents.
      allow_config_change: go on although the configuration is another than at the start of the run.
      distributed: this is one process of a job of several, see `join_job`.
      tombstones: folder that `remove` wrote; documents of the store that its requests name are not trained on.
      on_tombstoned: "refuse" stops when the store holds such documents; "mask" gives their labels no weight.
      tombstones_date: YYYY-MM-DD, the day on which requests must be in effect; today when empty.
      evaluators: run between steps every so many tokens, for example `HeldOutEvaluator`; the run's bits do not depend
        on them.
      effective_config: returns the bindings in effect, for the record; the command line supplies it.

    Returns:
      A summary: last step, final loss, whether the run has finished.

    Raises:
      UserError: input, configuration or environment to be mended; the run folder stays resumable.
    """
    if distributed:
        join_job()
    folder = epath.Path(output) if not is_local(output) else epath.Path(os.path.abspath(output))
    # ---------------------------------------------------------------- data
    token_store = TokenStore.open(store)
    check_vocabulary(token_store, model, store)
    removals = plan_removals(token_store, model, tombstones, on_tombstoned, tombstones_date)
    stream = stream_of_store(
        token_store, mixture, batch_schedule, training.sequence_length, training.seed, total_steps, sample_index
    )
    # ---------------------------------------------------------------- program
    program = make_program(
        model,
        optimizer_chain(optimizer(learning_rate=learning_rate, mask=weight_decay_mask), training.clip_norm),
        objective,
        mesh,
        training.accumulation,
        training.sequence_length,
    )
    for size in {batch_schedule.initial, batch_schedule.final_size}:
        program.check_batch_size(size)
    evaluations = EvaluationSchedule(evaluators, program, token_store, batch_schedule, total_steps)
    # ---------------------------------------------------------------- run folder
    folder.mkdir(parents=True, exist_ok=True)
    with lease_of_job(folder), checkpointer(folder, training) as checkpoints:
        identity = {"store": token_store.digest, "tokenizer": token_store.tokenizer_digest}
        config = {**effective_config(), **removals.binding}
        # Until the first checkpoint there is nothing that another store or configuration could spoil.
        if checkpoints.committed_steps():
            run_record.check_record(folder, identity, config, told=allow_config_change)
            finished = run_record.read_finished(folder) or {}
            if finished.get("step") == total_steps and artifacts.is_complete(folder / MODEL_FOLDER):
                _log.info("finished already at step %d; nothing to do", total_steps)
                return finished
        # -------------------------------------------------------- state: resume, or from scratch
        state, metadata, first_step = restore_or_initialize(program, checkpoints, training.seed)
        if is_first():
            run_record.write_record(folder, identity, config, removals.record)
            data = describe_data(stream, token_store, mixture, total_steps, sample_index)
            run_record.write_data_record(folder, data, first_step)
        # -------------------------------------------------------- steps
        result = LoopResult(state, first_step, stopped_by=None, pending=metadata.get("pending", []))
        if first_step < total_steps:
            batches = open_batches(
                stream, token_store, program, first_step, total_steps, training.prefetch, removals.masked
            )
            result = train(
                program,
                result,
                batches,
                checkpoints,
                folder,
                batch_schedule,
                learning_rate,
                training,
                total_steps,
                metadata={**identity, "config": run_record.config_digest(config)},
                evaluations=evaluations,
            )
        # -------------------------------------------------------- end
        if result.stopped_by is not None:
            _log.info("stopped by %s after step %d; start again to go on", result.stopped_by, result.step)
            return {"step": result.step, "finished": False}
        return finish_run(folder, program, result, token_store, stream, identity, config)


def check_vocabulary(store: TokenStore, model: ModelConfig, folder: str) -> None:
    """Raises UserError when the store's tokenizer has ids that the model has no embedding for."""
    if store.vocab_size > model.vocab_size:
        raise UserError(
            f"{folder} has token ids up to {store.vocab_size - 1} but ModelConfig.vocab_size is {model.vocab_size}; "
            "tokenize with the smaller vocabulary or enlarge the model's"
        )


def open_batches(
    stream: SampleStream,
    store: TokenStore,
    program: Program,
    first_step: int,
    total_steps: int,
    prefetch: int,
    masked_documents: Mapping[str, np.ndarray],
) -> DeviceBatches:
    """Returns the batches of the steps to come, read ahead by threads and put on the devices in the background."""
    loader = BatchLoader(
        stream,
        program.config.vocab_size,
        store.eod_id,
        context_window=program.objective.left_context + 1,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        masked_documents=masked_documents,
    )
    host_batches = loader.iterate(first_step, total_steps, ReadAhead(num_batches=prefetch))
    return DeviceBatches(host_batches, program.batch_sharding, num_ready=prefetch)


@contextlib.contextmanager
def checkpointer(folder: epath.Path, training: TrainingConfig) -> Iterator[Checkpointer]:
    """Opens the run's checkpoints and waits for pending saves at the end, also when the block raises."""
    checkpoints = Checkpointer(
        folder / CHECKPOINTS_FOLDER, keep_last=training.keep_last, keep_every=training.keep_every
    )
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def restore_or_initialize(program: Program, checkpoints: Checkpointer, seed: int) -> tuple[Any, dict[str, Any], int]:
    """Returns `(state, metadata, step)` of the newest valid checkpoint, or a fresh state at step 0.

    Raises:
      UserError: there are checkpoints but none is valid; starting over silently would hide the loss.
    """
    if not checkpoints.committed_steps():
        _log.info("no checkpoint yet: starting from random parameters (seed %d)", seed)
        return program.initial_state(seed), {}, 0
    state, metadata, step = checkpoints.restore(program.abstract_state)
    _log.info("resumed at step %d", step)
    return state, metadata, step

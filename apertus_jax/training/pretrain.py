"""The `pretrain` command: from a token store to checkpoints and a model folder, resumable at every step."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optax
from etils import epath

from apertus_jax import sharding
from apertus_jax.checkpoints import Checkpointer
from apertus_jax.checkpoints.opened_model import keep_tokenizer
from apertus_jax.data import Mixture, TokenStore, stream_of_store
from apertus_jax.data.loader.batch_loader import BatchLoader, ReadAhead
from apertus_jax.data.loader.device_batches import DeviceBatches
from apertus_jax.data.sample_order.batch_history import BatchSegment
from apertus_jax.data.sample_order.continued_order import continue_order, phases_of_run, samples_in_all
from apertus_jax.data.sample_order.sample_stream import MegatronMixture, SampleStream
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.model.model_folder import config_to_json
from apertus_jax.model.tensor_table import export_obstacle
from apertus_jax.storage import artifacts
from apertus_jax.storage.places import absolute_place
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.evaluators import EvaluationSchedule, Evaluator, check_evaluators
from apertus_jax.training.loop import LoopState, samples_of, train
from apertus_jax.training.multihost import is_first, join_job, lease_of_job
from apertus_jax.training.program import Program, make_program
from apertus_jax.training.records import run_length, run_record
from apertus_jax.training.records.finish import finish_run
from apertus_jax.training.records.run_history import Change
from apertus_jax.training.records.run_length import chain_of_run, length_binding, say_where_schedule_ends
from apertus_jax.training.run import Caller, RunSchedule, TrainingRun
from apertus_jax.training.tombstones import RemovalOptions, plan_removals
from apertus_jax.training.train_step import Objective
from apertus_jax.validation import require_callable

_log = logging.getLogger(__name__)


def pretrain(
    store: str,
    output: str,
    model: ModelConfig,
    mixture: Mixture | MegatronMixture,
    objective: Objective,
    optimizer: Callable[..., optax.GradientTransformationExtraArgs],
    schedule: RunSchedule,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    mesh: sharding.MeshConfig = sharding.MeshConfig(),  # noqa: B008 (frozen)
    removals: RemovalOptions = RemovalOptions(),  # noqa: B008 (frozen)
    evaluators: Sequence[Evaluator] = (),
    allow_config_change: bool = False,
    distributed: bool = False,
    caller: Caller = Caller(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Trains until the last step of `schedule`, from the newest valid checkpoint of `output` if there is one.

    Args:
      store: folder of the token store.
      output: the run folder.
      model: architecture.
      mixture: which source at which rate, and how documents become samples.
      objective: masks and normalisation of the loss.
      optimizer: makes the optimizer from `learning_rate` and the decay `mask`, for example `ademamix`.
      schedule: how long the run is, its batches and its learning rate.
      training: loop settings.
      mesh: how devices are arranged.
      removals: requests to remove documents, and what is done about those that the store still holds.
      evaluators: run between steps every so many tokens, for example `HeldOutEvaluator`; the run's bits do not depend
        on them.
      allow_config_change: go on although the configuration is another than at the start of the run.
      distributed: this is one process of a job of several, see `join_job`.
      caller: what the calling process supplies; no gin file binds it.

    Returns:
      A summary: last step, final loss, whether the run has finished.

    Raises:
      UserError: input, configuration or environment to be mended; the run folder stays resumable.
    """
    require_callable("pretrain.optimizer", optimizer, "pretrain.optimizer = @ademamix")
    check_evaluators(evaluators)
    if distributed:
        join_job()
    folder = RunFolder(absolute_place(output))
    run_record.check_run_folder(folder.path)
    batches, total_steps = schedule.batch_schedule, schedule.total_steps
    # ---------------------------------------------------------------- data
    token_store = TokenStore.open(store, checked_blocks=training.checked_blocks, seed=training.seed)
    check_vocabulary(token_store, model, store)
    removed = plan_removals(token_store, model, removals)

    def make_stream(num_samples: int | None = None) -> SampleStream:
        length, seed = training.sequence_length, training.seed
        return stream_of_store(token_store, mixture, batches, length, seed, total_steps, num_samples)

    # A run that goes on may have consumed other samples than these batches make: how many is known further down.
    stream = None if folder.mixture.exists() else make_stream()
    # ---------------------------------------------------------------- program
    program = make_program(
        model,
        chain_of_run(optimizer, schedule.from_start(training.sequence_length), training),
        objective,
        mesh,
        training.accumulation,
        training.sequence_length,
        caller.compiler,
    )
    for size in sorted(batches.sizes):
        program.check_batch_size(size)
    if obstacle := export_obstacle(model):
        _log.warning("this architecture cannot be exported to Hugging Face: %s; everything else works", obstacle)
    # ---------------------------------------------------------------- run folder
    folder.path.mkdir(parents=True, exist_ok=True)
    with lease_of_job(folder.path), checkpointer(folder, training) as checkpoints:
        identity = {"store": token_store.digest, "tokenizer": token_store.tokenizer_digest}
        config = {**caller.effective_config(), **removed.binding}
        # Until the first checkpoint there is nothing that another store or configuration could spoil.
        if checkpoints.committed_steps():
            run_record.check_record(
                folder.path, identity, config, allow_change=allow_config_change, later=run_length.BINDING
            )
            finished = run_record.read_finished(folder.path) or {}
            if finished.get("step") == total_steps and artifacts.is_complete(folder.final_model):
                _log.info("finished already at step %d; nothing to do", total_steps)
                return finished
        # What is on record is read by every process before the first one writes (restoring waits for all).
        recorded = run_record.read_data_record(folder.path) if checkpoints.committed_steps() else None
        # -------------------------------------------------------- state: resume, or from scratch
        state, metadata, first_step = restore_or_initialize(program, checkpoints, training.seed)
        if schedule.stop_step is not None and first_step >= schedule.stop_step:
            _log.info(
                "saved step %d already, RunSchedule.stop_step = %d asks for no more", first_step, schedule.stop_step
            )
            return {"step": first_step, "finished": False}
        check_total_steps(folder.path, first_step, total_steps)
        here = BatchSegment(first_step, samples_of(state), batches, training.sequence_length)
        order = continue_order(
            stream or make_stream(samples_in_all(recorded, here, total_steps)),
            token_store,
            mixture,
            total_steps,
            recorded,
            first_step,
            here.first_sample,
            folder.mixture,
            allow_config_change,
        )
        # The length of the run is known only now: what it consumed before counts, whatever the batches were.
        resolved = schedule.resolve(order.history)
        config |= length_binding(schedule.learning_rate, resolved.total_samples)
        if checkpoints.committed_steps():
            run_record.check_record(folder.path, identity, config, allow_change=allow_config_change)
        program.optimizer = chain_of_run(optimizer, resolved, training)
        say_where_schedule_ends(resolved)
        changes: list[Change] = []
        if is_first():
            changes = run_record.changes_of_start(folder.path, config, order.record, first_step, here.first_sample)
            run_record.write_record(folder.path, identity, config, removed.record, changes)
            run_record.write_json(folder.mixture, order.record)
            run_record.forget_end(folder.path, first_step)
            keep_tokenizer(folder, token_store.tokenizer_folder, token_store.tokenizer_digest)
        # -------------------------------------------------------- steps
        described = {**identity, "config": run_record.config_digest(config), "model": config_to_json(model)}
        run = TrainingRun(folder, program, resolved, training, described, config)
        result = train(
            run,
            LoopState(state, first_step, stopped_by=None, pending=metadata.get("pending", [])),
            open_batches(run, order.stream, token_store, first_step, removed.masked),
            checkpoints,
            EvaluationSchedule(evaluators, program, token_store, resolved),
        )
        # -------------------------------------------------------- end
        if result.step < total_steps:
            _log.info("stopped by %s after step %d; start again to go on", result.stopped_by, result.step)
            return {"step": result.step, "finished": False}
        phases = phases_of_run(order, token_store, folder.mixture)
        return finish_run(run, result, token_store, phases, identity, config, changes)


def check_total_steps(folder: epath.Path, saved: int, total_steps: int) -> None:
    """Raises UserError when a run has come further than it is now to go."""
    if saved > total_steps:
        raise UserError(
            f"{folder} has saved step {saved}, beyond RunSchedule.total_steps = {total_steps}; give at least {saved} "
            "(--steps), or start in a new folder"
        )


def check_vocabulary(store: TokenStore, model: ModelConfig, folder: str) -> None:
    """Raises UserError when the store's tokenizer has ids that the model has no embedding for."""
    if store.vocab_size > model.vocab_size:
        raise UserError(
            f"{folder} has token ids up to {store.vocab_size - 1} but ModelConfig.vocab_size is {model.vocab_size}; "
            "tokenize with the smaller vocabulary or enlarge the model's"
        )


def open_batches(
    run: TrainingRun,
    stream: SampleStream,
    store: TokenStore,
    first_step: int,
    masked_documents: Mapping[str, np.ndarray],
) -> DeviceBatches:
    """Returns the batches of the steps to come, read ahead by threads and put on the devices in the background."""
    program, prefetch = run.program, run.training.prefetch
    loader = BatchLoader(
        stream,
        program.config.vocab_size,
        store.eod_id,
        context_window=program.objective.left_context + 1,
        rows_of_batch=functools.partial(sharding.rows_of_process, program.mesh),
        masked_documents=masked_documents,
    )
    host_batches = loader.iterate(first_step, run.schedule.total_steps, ReadAhead(num_batches=prefetch))
    return DeviceBatches(host_batches, program.batch_sharding, num_ready=prefetch)


@contextlib.contextmanager
def checkpointer(folder: RunFolder, training: TrainingConfig) -> Iterator[Checkpointer]:
    """Opens the run's checkpoints and waits for pending saves at the end, also when the block raises."""
    checkpoints = Checkpointer(folder.checkpoints, keep_last=training.keep_last, keep_every=training.keep_every)
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

"""The `pretrain` command: from a token store to checkpoints and a model folder, resumable at every step."""

from __future__ import annotations

import contextlib
import dataclasses
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
from apertus_jax.data.provenance.label_origins import LabelOrigins
from apertus_jax.data.provenance.recorded_stream import stage_starts
from apertus_jax.data.sample_order.batch_history import BatchSegment
from apertus_jax.data.sample_order.continued_order import (
    ContinuedOrder,
    continue_order,
    phases_of_run,
    samples_in_all,
)
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
from apertus_jax.training.run import Caller, ResolvedSchedule, RunSchedule, TrainingRun
from apertus_jax.training.starting.first_state import begin_branch, load_parent, restore_or_initialize
from apertus_jax.training.starting.origin import find_origin
from apertus_jax.training.starting.parent_weights import StartFrom
from apertus_jax.training.starting.unread_sources import check_unread_sources
from apertus_jax.training.survival.job_monitor import watched_job
from apertus_jax.training.survival.step_guard import StepGuard
from apertus_jax.training.survival.supervision import Supervision
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
    supervision: Supervision = Supervision(),  # noqa: B008 (frozen)
    caller: Caller = Caller(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Trains until the last step of `schedule`.

    The first state is, in this order, 1 the newest valid checkpoint of `output`, 2 the weights that
    `training.init_from` names, 3 random.

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
      supervision: what ends a run in time, skips steps, and looks at them more closely.
      caller: what the calling process supplies; no gin file binds it.

    Returns:
      A summary: last step, final loss, whether the run has finished.

    Raises:
      UserError: input, configuration or environment to be mended; the run folder stays resumable.
    """
    require_callable("pretrain.optimizer", optimizer, "pretrain.optimizer = @ademamix")
    check_evaluators(evaluators)
    if distributed:
        join_job(supervision.limits)
    folder = RunFolder(absolute_place(output))
    run_record.check_run_folder(folder.path)
    # ---------------------------------------------------------------- data
    token_store = TokenStore.open(store, checked_blocks=training.checked_blocks, seed=training.seed)
    check_vocabulary(token_store, model, store)
    check_sources(token_store, objective)
    removed = plan_removals(token_store, model, removals)
    asked = _Asked(folder, token_store, mixture, schedule, training, allow_config_change)
    origin = find_origin(_start_of(training), folder, token_store, model)
    # A run that goes on may have consumed other samples than these batches make: how many is known further down.
    stream = None if folder.mixture.exists() or origin.branches else asked.stream()
    if training.init_unread_sources and origin.weights is not None and not origin.branches:
        check_unread_sources(origin.weights.record, {entry.source for entry in (stream or asked.stream()).sources})
    # ---------------------------------------------------------------- program
    program = _make_program(asked, model, optimizer, objective, mesh, caller, supervision.guard)
    loaded = load_parent(program, origin)
    # ---------------------------------------------------------------- run folder
    folder.path.mkdir(parents=True, exist_ok=True)
    with (
        watched_job(supervision.limits, folder.checkpoints) as agreement,
        lease_of_job(folder.path),
        checkpointer(folder, training) as checkpoints,
    ):
        config = {**caller.effective_config(), **removed.binding, **origin.binding}
        if loaded is not None and origin.branches and not checkpoints.committed_steps():
            begin_branch(folder, checkpoints, origin, loaded)
        if origin.is_before_own_steps(max(checkpoints.committed_steps(), default=0)):
            asked = dataclasses.replace(asked, goes_on_otherwise=True)
        if finished := _finished_before(asked, checkpoints, config):
            return finished
        # What is on record is read by every process before the first one writes (restoring waits for all).
        recorded = run_record.read_data_record(folder.path) if checkpoints.committed_steps() else None
        # -------------------------------------------------------- state: resume, from weights, or from scratch
        state, metadata, first_step = restore_or_initialize(program, checkpoints, training.seed, loaded)
        loaded = None  # its state is the one above, or was written
        if schedule.stop_step is not None and first_step >= schedule.stop_step:
            _log.info(
                "saved step %d already, RunSchedule.stop_step = %d asks for no more", first_step, schedule.stop_step
            )
            return {"step": first_step, "finished": False}
        here = BatchSegment(first_step, samples_of(state), schedule.batch_schedule, training.sequence_length)
        began = _begin(asked, here, recorded, stream, checkpoints, config, removed.record, origin.record)
        program.optimizer = chain_of_run(optimizer, began.schedule, training)
        # -------------------------------------------------------- steps
        described = {
            **asked.identity,
            "config": run_record.config_digest(began.config),
            "model": config_to_json(model),
        }
        origins, stages = LabelOrigins(began.order.stream), stage_starts(began.order.record)
        run = TrainingRun(
            folder, program, began.schedule, training, described, origins, stages, began.config, supervision
        )
        result = train(
            run,
            LoopState(state, first_step, stopped_by=None, pending=metadata.get("pending", [])),
            open_batches(run, began.order.stream, token_store, first_step, removed.masked),
            checkpoints,
            EvaluationSchedule(evaluators, program, token_store, began.schedule),
            agreement,
        )
        # -------------------------------------------------------- end
        if result.step < schedule.total_steps:
            _log.info("stopped by %s after step %d; start again to go on", result.stopped_by, result.step)
            return {"step": result.step, "finished": False}
        phases = phases_of_run(began.order, token_store, folder.mixture)
        return finish_run(run, result, token_store, phases, asked.identity, began.config, began.changes)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """Request for a run, as far as it decides which samples the run is made of and where its record lies.

    `goes_on_otherwise`: no step was done under the configuration on record, so it may be another.
    """

    folder: RunFolder
    store: TokenStore
    mixture: Mixture | MegatronMixture
    schedule: RunSchedule
    training: TrainingConfig
    allow_config_change: bool
    goes_on_otherwise: bool = False

    @property
    def may_differ(self) -> bool:
        """Whether the configuration may be another than on record."""
        return self.allow_config_change or self.goes_on_otherwise

    @property
    def identity(self) -> dict[str, str]:
        """The data that the run is of, by digest."""
        return {"store": self.store.digest, "tokenizer": self.store.tokenizer_digest}

    def stream(self, num_samples: int | None = None) -> SampleStream:
        """Returns the samples of the whole run, so many or as many as its batches make."""
        batches, total_steps = self.schedule.batch_schedule, self.schedule.total_steps
        length, seed = self.training.sequence_length, self.training.seed
        return stream_of_store(self.store, self.mixture, batches, length, seed, total_steps, num_samples)


@dataclasses.dataclass(frozen=True)
class _Begun:
    """Beginning of a run, or of its going on, with what is known from that step alone.

    Attributes:
      order: of the samples.
      schedule: with the length that the order makes of the run.
      config: the bindings in effect.
      changes: those on record, and this start's; the first process has them.
    """

    order: ContinuedOrder
    schedule: ResolvedSchedule
    config: Mapping[str, str]
    changes: Sequence[Change]


def _start_of(training: TrainingConfig) -> StartFrom:
    """Returns what the settings ask a run to start from."""
    return StartFrom(training.init_from, training.init_step, training.init_optimizer)


def _make_program(
    asked: _Asked,
    model: ModelConfig,
    optimizer: Callable[..., optax.GradientTransformationExtraArgs],
    objective: Objective,
    mesh: sharding.MeshConfig,
    caller: Caller,
    guard: StepGuard,
) -> Program:
    """Returns the program of the run, after checking it on every size of batch."""
    training = asked.training
    chain = chain_of_run(optimizer, asked.schedule.from_start(training.sequence_length), training)
    program = make_program(
        *(model, chain, objective, mesh, training.accumulation, training.sequence_length, caller.compiler, guard),
        compiler_options=training.compiler_options,
    )
    for size in sorted(asked.schedule.batch_schedule.sizes):
        program.check_batch_size(size)
    if obstacle := export_obstacle(model):
        _log.warning("this architecture cannot be exported to Hugging Face: %s; everything else works", obstacle)
    return program


def _finished_before(asked: _Asked, checkpoints: Checkpointer, config: Mapping[str, str]) -> dict[str, Any]:
    """Returns the summary of a run that has finished already, {} for one that has not.

    Raises:
      UserError: the run was started with other data or another configuration.
    """
    # Until the first checkpoint there is nothing that another store or configuration could spoil.
    if not checkpoints.committed_steps():
        return {}
    folder = asked.folder
    run_record.check_record(folder.path, asked.identity, config, asked.may_differ, later=run_length.BINDING)
    finished = run_record.read_finished(folder.path) or {}
    if finished.get("step") != asked.schedule.total_steps or not artifacts.is_complete(folder.final_model):
        return {}
    _log.info("finished already at step %d; nothing to do", asked.schedule.total_steps)
    return finished


def _begin(
    asked: _Asked,
    here: BatchSegment,
    recorded: Mapping[str, Any] | None,
    stream: SampleStream | None,
    checkpoints: Checkpointer,
    config: Mapping[str, str],
    removed: Mapping[str, Any] | None,
    parent: Mapping[str, Any] | None,
) -> _Begun:
    """Finds the order of samples and the length of the run, checks both, and writes its record.

    Args:
      asked: what `pretrain` is asked for.
      here: the batches from the step on at which it starts or goes on.
      recorded: mixture.json of a run that goes on.
      stream: the samples, where they are known already.
      checkpoints: of the run.
      config: the bindings in effect, without the length.
      removed: what is recorded of removed documents.
      parent: what is recorded of the weights that the run started from.

    Raises:
      UserError: the run has come further than it is to go, or its order or length has changed.
    """
    total_steps, schedule, folder = asked.schedule.total_steps, asked.schedule, asked.folder
    check_total_steps(folder.path, here.first_step, total_steps)
    order = continue_order(
        stream or asked.stream(samples_in_all(recorded, here, total_steps)),
        asked.store,
        asked.mixture,
        total_steps,
        recorded,
        here.first_step,
        here.first_sample,
        folder.mixture,
        asked.allow_config_change,
    )
    # The length of the run is known only now: what it consumed before counts, whatever the batches were.
    resolved = schedule.resolve(order.history)
    config = {**config, **length_binding(schedule.learning_rate, resolved.total_samples)}
    if checkpoints.committed_steps():
        run_record.check_record(folder.path, asked.identity, config, asked.may_differ)
    say_where_schedule_ends(resolved)
    changes: list[Change] = []
    if is_first():
        changes = run_record.changes_of_start(folder.path, config, order.record, here.first_step, here.first_sample)
        run_record.write_record(folder.path, asked.identity, config, removed, changes, parent)
        run_record.write_json(folder.mixture, order.record)
        run_record.forget_end(folder.path, here.first_step)
        keep_tokenizer(folder, asked.store.tokenizer_folder, asked.store.tokenizer_digest)
    return _Begun(order, resolved, config, changes)


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


def check_sources(store: TokenStore, objective: Objective) -> None:
    """Raises UserError when a loss mask is for a source that the store does not have."""
    for name in objective.sources:
        if name not in store.training_sources:
            raise UserError(
                f"on_sources.sources names {name!r}, {store.folder} has {', '.join(store.training_sources)}; correct it"
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
        with_source_keys=bool(program.objective.sources),
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

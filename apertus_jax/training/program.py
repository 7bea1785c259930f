"""Compiled train step: mesh, shardings, and one executable a batch size."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from apertus_jax import sharding
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, abstract_parameters
from apertus_jax.model.attention import check_added_attention, check_attention, zigzag_parts
from apertus_jax.model.context_parallelism import check_context_length
from apertus_jax.model.feedforwards import check_feedforward
from apertus_jax.objectives.masks import check_masks
from apertus_jax.training.compiled_steps import NO_OPTIONS, Compile, compile_lowered, compiler_options_of
from apertus_jax.training.state import TrainState, initialize_state, state_of_parameters
from apertus_jax.training.survival.step_guard import StepGuard
from apertus_jax.training.train_step import Objective, check_microbatches, make_train_step

ROWS_FOR_CHECKS = 2
DEVICE_FIELDS = ("tokens", "segment_ids", "positions", "left_context", "document_keys", "loss_weights")
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Program:
    """A train step bound to a mesh: makes states, tells shardings, and compiles itself once per batch size."""

    config: ModelConfig
    optimizer: optax.GradientTransformationExtraArgs
    objective: Objective
    accumulation: int
    sequence_length: int
    mesh: Mesh
    rules: sharding.AxisRules
    compiler: Compile = compile_lowered
    guard: StepGuard = StepGuard()  # noqa: RUF009 (frozen)
    compiler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the step alone
    compile_seconds: float = 0.0
    _executables: dict[int, Any] = dataclasses.field(default_factory=dict)
    _looks: dict[Callable[..., Any], Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        boxed = abstract_parameters(self.config)
        with sharding.use_mesh(self.mesh, self.rules):
            abstract = jax.eval_shape(lambda: self._initialize(jax.random.key(0)))
        self.state_shardings = sharding.state_shardings(abstract, boxed, self.mesh, self.rules)
        self.abstract_state: TrainState = sharding.with_shardings(abstract, self.state_shardings)

    def _initialize(self, key: jax.Array) -> TrainState:
        return initialize_state(self.config, self.optimizer, key, self.guard.is_on)

    @property
    def batch_shards(self) -> int:
        """How many ways the mesh splits the rows of a batch."""
        return math.prod(self.mesh.shape[axis] for axis in sharding.BATCH_AXES)

    @property
    def batch_sharding(self) -> NamedSharding:
        """The sharding of every array of a batch."""
        return sharding.batch_sharding(self.mesh)

    def initial_state(self, seed: int) -> TrainState:
        """Draws the state before the first step, each part on the device that keeps it."""
        with sharding.use_mesh(self.mesh, self.rules):
            make = jax.jit(self._initialize, out_shardings=self.state_shardings)
            key = jax.random.key(seed)
            return self.compiler(make.lower(key), NO_OPTIONS)(key)

    def state_of_parameters(self, params: Any) -> TrainState:
        """Returns the state before the first step of parameters that lie where `state_shardings` says."""

        def make(params: Any) -> TrainState:
            return dataclasses.replace(state_of_parameters(params, self.optimizer, self.guard.is_on), params=None)

        with sharding.use_mesh(self.mesh, self.rules):
            shardings = dataclasses.replace(self.state_shardings, params=None)
            rest = self.compiler(jax.jit(make, out_shardings=shardings).lower(params), NO_OPTIONS)(params)
        return dataclasses.replace(rest, params=params)

    def abstract_batch(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns shapes, dtypes and shardings of the fields that go to the device."""
        shapes = abstract_batch(self.objective, self.sequence_length, batch_size)
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.batch_sharding)
            for name, leaf in shapes.items()
        }

    def check_batch_size(self, batch_size: int) -> None:
        """Checks a batch size before anything is written or compiled.

        Raises:
          UserError: the batch does not divide by the accumulation, over the mesh, or into microbatches, or the sequence
            not over the mesh.
        """
        if batch_size % self.accumulation:
            raise UserError(
                f"a batch of {batch_size} does not divide into TrainingConfig.accumulation={self.accumulation} pieces; "
                "change one of them"
            )
        sharding.check_batch(self.mesh, batch_size // self.accumulation, self.sequence_length)
        with sharding.use_mesh(self.mesh, self.rules):
            parts = zigzag_parts(self.config.attention_implementation)
        check_context_length(self.sequence_length, parts)
        check_microbatches(batch_size, self.objective)

    def compile(self, batch_size: int) -> Any:
        """Returns the executable for a batch size, compiling it at its first use.

        Raises:
          UserError: see `check_batch_size`.
        """
        if batch_size in self._executables:
            return self._executables[batch_size]
        self.check_batch_size(batch_size)
        started = time.monotonic()
        step = make_train_step(
            self.config, self.optimizer, self.objective, self.accumulation, self.batch_shards, self.guard
        )
        with sharding.use_mesh(self.mesh, self.rules):
            jitted = jax.jit(
                step,
                in_shardings=(self.state_shardings, self.batch_sharding),
                out_shardings=(self.state_shardings, sharding.replicated(self.mesh)),
                donate_argnums=0,
            )
            lowered = jitted.lower(self.abstract_state, self.abstract_batch(batch_size))
            executable = self.compiler(lowered, self.compiler_options)
        seconds = time.monotonic() - started
        self.compile_seconds += seconds
        _log.info("compiled the step for batch %d in %.1f s", batch_size, seconds)
        self._executables[batch_size] = executable
        return executable

    def step(self, state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, dict[str, jax.Array]]:
        """Runs one step. `state` is donated: use the returned one."""
        executable = self.compile(batch["tokens"].shape[0])
        return executable(state, {name: batch[name] for name in device_fields(self.objective)})

    def look(self, function: Callable[..., Any], state: TrainState, batch: Mapping[str, Any], *more: Any) -> Any:
        """Runs a function beside the step, which stays the program it is.

        Args:
          function: of parameters, batch, samples consumed and `more`; compiled at its first use for these shapes.
          state: before the step; it is not donated.
          batch: of the step.
          more: further arrays.

        Returns:
          Its result, whole on every device.
        """
        jitted = self._looks.setdefault(function, jax.jit(function, out_shardings=sharding.replicated(self.mesh)))
        with sharding.use_mesh(self.mesh, self.rules):
            fields = {name: batch[name] for name in device_fields(self.objective)}
            return jitted(state.params, fields, state.samples_consumed, *more)


def device_fields(objective: Objective) -> tuple[str, ...]:
    """Returns the fields of a batch that go to the device: source keys only where a mask reads them."""
    return (*DEVICE_FIELDS, "source_keys") if objective.sources else DEVICE_FIELDS


def abstract_batch(objective: Objective, sequence_length: int, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of the fields of a batch that go to the device."""
    fields = {
        "tokens": ((batch_size, sequence_length + 1), jnp.int32),
        "segment_ids": ((batch_size, sequence_length), jnp.int32),
        "positions": ((batch_size, sequence_length), jnp.int32),
        "left_context": ((batch_size, objective.left_context), jnp.int32),
        "document_keys": ((batch_size, sequence_length), jnp.uint32),
        "loss_weights": ((batch_size, sequence_length), jnp.float32),
        "source_keys": ((batch_size, sequence_length), jnp.uint32),
    }
    return {name: jax.ShapeDtypeStruct(*fields[name]) for name in device_fields(objective)}


def make_program(
    config: ModelConfig,
    optimizer: optax.GradientTransformationExtraArgs,
    objective: Objective,
    mesh_config: sharding.MeshConfig,
    accumulation: int,
    sequence_length: int,
    compiler: Compile = compile_lowered,
    guard: StepGuard = StepGuard(),  # noqa: B008 (frozen)
    devices: Sequence[jax.Device] | None = None,
    compiler_options: Sequence[str] = (),
) -> Program:
    """Builds the program of a run on all devices, or on `devices`: to compile for them a description is enough.

    `compiler` makes executables, see `CompiledSteps`; `compiler_options` are those of `TrainingConfig`.

    Raises:
      UserError: the mesh or a parameter does not divide, the compiler refuses an option, the attention implementation
        cannot run here, or a mask or a part of the model from outside of the package is not what it must be.
    """
    mesh = sharding.make_mesh(mesh_config, devices)
    platform = mesh.devices.flat[0].platform
    check_attention(config.attention_implementation, sequence_length, config.head_dim, platform)
    check_added_attention(config.attention_implementation, sequence_length, config.head_dim)
    check_feedforward(config)
    consumed = {"samples_consumed": jax.ShapeDtypeStruct((2,), jnp.uint32)}
    check_masks(objective.loss_masks, abstract_batch(objective, sequence_length, ROWS_FOR_CHECKS) | consumed)
    return Program(
        config=config,
        optimizer=optimizer,
        objective=objective,
        accumulation=accumulation,
        sequence_length=sequence_length,
        mesh=mesh,
        rules=mesh_config.axis_rules(platform),
        compiler=compiler,
        guard=guard,
        compiler_options=compiler_options_of(compiler_options, _own_device(mesh)),
    )


def _own_device(mesh: Mesh) -> jax.Device:
    """Returns a device of this process, or one of a described mesh."""
    own: list[jax.Device] = [each for each in mesh.devices.flat if each.process_index == jax.process_index()]
    return own[0] if own else mesh.devices.flat[0]

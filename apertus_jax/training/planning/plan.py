"""Estimates of memory, FLOPs, time and disk of a run, without the hardware.

State and batch are exact: shapes of the very state that `pretrain` makes, cut as its mesh cuts them. What the backward
pass keeps is what JAX's own derivative of the loss holds on to, computed on shapes alone. How much of that and of the
work space exists at one moment is for XLA to decide; `compiled_memory` asks it (a few parts in a hundred more).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, AxisType

from apertus_jax import sharding
from apertus_jax.data import BatchSchedule
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, abstract_parameters
from apertus_jax.model.attention import IMPLEMENTATIONS
from apertus_jax.model.parameters import parameter_specs
from apertus_jax.storage.tensors.device_boxes import piece_bytes, shard_bytes
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.planning.devices import Device
from apertus_jax.training.planning.flops import train_flops_per_token
from apertus_jax.training.program import Program, abstract_batch
from apertus_jax.training.state import initialize_state
from apertus_jax.training.train_step import Objective, batch_loss, check_microbatches

SECONDS_PER_DAY = 86400
LOGITS_COPIES = 3  # of one tile, in float32: logits, probabilities, their gradient


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one device. Under `context` > 1 the keys and values of other devices' pieces are not counted.

    Attributes:
      parameters, optimizer_state, batch: exact; there all the time.
      gradients: float32, one set; two while pieces of a batch are summed.
      kept_for_backward: what the forward pass leaves for the backward pass, copies of weights included.
      work_space: one layer computed again, or the logits of one tile, whichever is larger.
      gathered_weights: one layer and the output matrix, whole where `fsdp` cuts them, and their gradients.
      update: the new moments and the update, before it is known to be finite; the backward pass is over by then.
    """

    parameters: int
    optimizer_state: int
    batch: int
    gradients: int
    kept_for_backward: int
    work_space: int
    gathered_weights: int
    update: int

    @property
    def total(self) -> int:
        """The most that is there at a time."""
        backward = self.gradients + self.kept_for_backward + self.work_space + self.gathered_weights
        return self.parameters + self.optimizer_state + self.batch + max(backward, self.update)


@dataclasses.dataclass(frozen=True)
class WorkPlan:
    """Arithmetic of a run, and the time it takes at a share `utilization` of the devices' peak.

    `step_seconds` holds the first and the last batch size.
    """

    samples: int
    tokens: int
    flops_per_token: float
    flops: float
    tokens_per_second_and_device: float
    step_seconds: tuple[float, float]
    days: float
    device_hours: float


def plan_mesh(mesh: sharding.MeshConfig, num_devices: int) -> AbstractMesh:
    """Returns the mesh of a run on so many devices that nobody has yet.

    Raises:
      UserError: the axes do not make that many.
    """
    shape = sharding.mesh_shape(mesh, num_devices)
    return AbstractMesh(shape, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * len(sharding.MESH_AXES))


def plan_memory(
    model: ModelConfig,
    optimizer: optax.GradientTransformationExtraArgs,
    objective: Objective,
    training: TrainingConfig,
    batch_size: int,
    mesh: AbstractMesh,
    rules: sharding.AxisRules,
) -> MemoryPlan:
    """Returns the memory of one device for batches of `batch_size` samples.

    Raises:
      UserError: a parameter or the batch does not divide over the mesh, see `Program.check_batch_size`.
    """
    if batch_size % training.accumulation:
        raise UserError(f"a batch of {batch_size} does not divide into {training.accumulation} pieces; change one")
    sharding.check_batch(mesh, batch_size // training.accumulation, training.sequence_length)
    check_microbatches(batch_size, objective)
    state = jax.eval_shape(lambda: initialize_state(model, optimizer, jax.random.key(0)))
    shardings = sharding.state_shardings(state, abstract_parameters(model), mesh, rules)
    parameters = _bytes_of_one_device(state.params, shardings.params)
    batch = abstract_batch(objective, training.sequence_length, batch_size)
    parts = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
    rows = batch_size // training.accumulation // parts
    local = _one_device_of_tensor(model, mesh.shape["tensor"])
    length = training.sequence_length // mesh.shape["context"]
    stream_parts = mesh.shape["tensor"] if _splits_residual_stream(rules) else 1
    copies, kept = _kept_for_backward(local, objective, rows, length, stream_parts)
    _, layer = _kept_for_backward(
        dataclasses.replace(local, num_layers=1, remat_policy="none"), objective, rows, length
    )
    tile = LOGITS_COPIES * rows * -(-length // objective.num_tiles) * local.vocab_size * jnp.dtype("float32").itemsize
    optimizer_state = _bytes_of_one_device(state.opt_state, shardings.opt_state)
    return MemoryPlan(
        parameters=parameters,
        optimizer_state=optimizer_state,
        batch=sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in batch.values()) // parts,
        gradients=parameters * (1 if training.accumulation == 1 else 2),
        kept_for_backward=copies // mesh.shape["fsdp"] + kept,
        work_space=max(layer if model.remat_policy != "none" else 0, tile),
        gathered_weights=0 if mesh.shape["fsdp"] == 1 else 2 * _layer_and_head_bytes(local),
        update=parameters + optimizer_state,
    )


def plan_work(
    model: ModelConfig,
    schedule: BatchSchedule,
    sequence_length: int,
    total_steps: int,
    num_devices: int,
    device: Device,
    utilization: float,
) -> WorkPlan:
    """Returns arithmetic and time of `total_steps` steps.

    FLOPs of a token: three times those of its forward pass (docs/reference/model_and_training.md §10).

    Raises:
      UserError: a utilization that is no share of the peak.
    """
    if not 0 < utilization <= 1:
        raise UserError(f"plan.utilization = {utilization} must be a share of the peak, above 0 and at most 1")
    samples = schedule.first_sample(total_steps)
    tokens = samples * sequence_length
    flops_per_token = train_flops_per_token(model, sequence_length)
    rate = utilization * device.flops_per_second / flops_per_token
    seconds = tokens / (rate * num_devices)
    sizes = (schedule.size_at(0), schedule.size_at(max(total_steps - 1, 0)))
    first, last = (size * sequence_length / (rate * num_devices) for size in sizes)
    return WorkPlan(
        samples=samples,
        tokens=tokens,
        flops_per_token=flops_per_token,
        flops=flops_per_token * tokens,
        tokens_per_second_and_device=rate,
        step_seconds=(first, last),
        days=seconds / SECONDS_PER_DAY,
        device_hours=seconds / 3600 * num_devices,
    )


@dataclasses.dataclass(frozen=True)
class EndPlan:
    """Bytes when a run has ended and its model is written, piece by piece, see `device_boxes`.

    Attributes:
      largest_leaf: the largest parameter, whole; nobody holds it.
      largest_shard: one device's part of it.
      device: beyond the parameters, on each device: a piece among zeros, and what is added up to it.
      host: beyond its shards, on the host that writes: a piece, and the same in the order of the file.
      model: the model folder, on the disk.
    """

    largest_leaf: int
    largest_shard: int
    device: int
    host: int
    model: int


def plan_end(model: ModelConfig, mesh: AbstractMesh, rules: sharding.AxisRules) -> EndPlan:
    """Returns what the end of a run takes beyond the shards, and the size of its model folder."""
    abstract = sharding.unbox(abstract_parameters(model))
    shardings = sharding.parameter_shardings(abstract_parameters(model), mesh, rules)
    leaves = jax.tree.leaves(sharding.with_shardings(abstract, shardings))
    sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves]
    piece = piece_bytes(leaves)
    return EndPlan(max(sizes), max(map(shard_bytes, leaves)), 2 * piece, 2 * piece, sum(sizes))


def checkpoint_bytes(model: ModelConfig, optimizer: optax.GradientTransformationExtraArgs) -> int:
    """Returns the bytes of one checkpoint: the whole state, uncompressed."""
    state = jax.eval_shape(lambda: initialize_state(model, optimizer, jax.random.key(0)))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def compiled_memory(program: Program, batch_size: int) -> Mapping[str, int]:
    """Compiles the step for the devices here, fake ones included, and returns what XLA says of one device's bytes.

    `state_and_batch` goes in and, updated, comes out in the same place; `temporary` is everything else at its peak.
    """
    analysis = program.compile(batch_size).memory_analysis()
    return {"state_and_batch": analysis.argument_size_in_bytes, "temporary": analysis.temp_size_in_bytes}


def _bytes_of_one_device(tree: Any, shardings: Any) -> int:
    """Returns the bytes of one device's part of every array."""
    return sum(
        math.prod(cut.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, cut in zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    )


def _one_device_of_tensor(model: ModelConfig, tensor: int) -> ModelConfig:
    """Returns the part of a model that one of `tensor` devices computes: its heads, feedforward and vocabulary.

    A fused attention kernel is counted as the implementation that keeps the same and can be traced anywhere.
    """
    chosen = model.attention_implementation
    return dataclasses.replace(
        model,
        attention_implementation=IMPLEMENTATIONS[chosen].planned_as or chosen,
        head_dim=model.head_dim,
        num_heads=max(model.num_heads // tensor, 1),
        num_kv_heads=max(model.num_kv_heads // tensor, 1),
        intermediate_size=max(model.intermediate_size // tensor, 1),
        vocab_size=max(model.vocab_size // tensor, 1),
    )


def _layer_and_head_bytes(model: ModelConfig) -> int:
    """Returns the bytes of the parameters of one layer and of the output matrix, in float32."""
    specs = parameter_specs(model)
    layer = sum(spec.size // model.num_layers for spec in specs.values() if spec.per_layer)
    return (layer + specs["lm_head/kernel"].size) * jnp.dtype("float32").itemsize


def _splits_residual_stream(rules: sharding.AxisRules) -> bool:
    """Whether a table cuts the columns of hidden states over `tensor`."""
    axes = dict(rules).get("activation_embed")
    return "tensor" in ((axes,) if isinstance(axes, str) else axes or ())


def _kept_for_backward(
    model: ModelConfig, objective: Objective, rows: int, length: int, stream_parts: int = 1
) -> tuple[int, int]:
    """Returns (bytes that do not grow with the batch, parameters apart; bytes that do) kept for the backward pass.

    Hidden states count as one of `stream_parts` parts.
    """
    one, two = (_residual_bytes(model, objective, rows * factor, length, stream_parts) for factor in (1, 2))
    return max(2 * one - two, 0), two - one


def _residual_bytes(model: ModelConfig, objective: Objective, rows: int, length: int, stream_parts: int) -> int:
    """Returns the bytes that the derivative of the loss holds on to, apart from the parameters themselves."""
    shape = jax.ShapeDtypeStruct
    parameters = sharding.unbox(abstract_parameters(model))
    batch = {name: shape((rows, length), jnp.int32) for name in ("positions", "segment_ids")}
    batch["tokens"] = shape((rows, length + 1), jnp.int32)

    def derivative(parameters: Any, batch: Any, weights: jax.Array) -> Any:
        return jax.vjp(lambda given: batch_loss(given, model, batch, weights, objective.num_tiles), parameters)[1]

    kept = jax.eval_shape(derivative, parameters, batch, shape((rows, length), jnp.float32))
    own = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(parameters)]
    total = 0
    for leaf in jax.tree.leaves(kept):
        if (leaf.shape, leaf.dtype) in own:
            own.remove((leaf.shape, leaf.dtype))
        else:
            is_stream = leaf.shape[-1:] == (model.hidden_size,) and length in leaf.shape[:-1]
            total += math.prod(leaf.shape) * leaf.dtype.itemsize // (stream_parts if is_stream else 1)
    return total

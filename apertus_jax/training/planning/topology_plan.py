"""Planning for a TPU topology: a mesh over its torus, the step compiled for it, and the report of both."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from apertus_jax import sharding
from apertus_jax.model import ModelConfig
from apertus_jax.reports.units import BYTES, SECONDS, readable
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.planning.ahead_of_time import compile_step
from apertus_jax.training.planning.chips import CHIPS
from apertus_jax.training.planning.flops import train_flops_per_token
from apertus_jax.training.planning.plan import MemoryPlan, plan_memory, plan_mesh
from apertus_jax.training.planning.proposals import (
    Shape,
    planned_roofline,
    planned_warnings,
    planned_wire,
    proposals,
)
from apertus_jax.training.planning.topology import (
    Topology,
    described_devices,
    drawn_devices,
    slices_along,
    torus_extents,
)
from apertus_jax.training.program import make_program
from apertus_jax.training.train_step import Objective

REMAT_PROPOSED = ("none", "dots", "save_attention", "full")
Section = tuple[str, list[tuple[str, str]]]


def plan_topology(
    topology: Topology,
    model: ModelConfig,
    optimizer: optax.GradientTransformationExtraArgs,
    objective: Objective,
    training: TrainingConfig,
    mesh_config: sharding.MeshConfig,
    mesh: Mesh,
    batch_size: int,
    memory: MemoryPlan,
    compile: bool,
) -> dict[str, Any]:
    """Returns what is printed and recorded of a topology; with `compile`, also of the step compiled for it.

    `memory` is that of one device, as planned for this mesh and batch.

    Raises:
      UserError: the compiler refuses the step or an option.
    """
    figures: dict[str, Any] = {
        "chip": topology.chip,
        "shape": list(topology.shape),
        "slices": topology.slices,
        "axes": {axis: _reach(mesh, axis) for axis, size in mesh.shape.items() if size > 1},
    }
    shape = Shape(batch_size, training.sequence_length, training.accumulation)
    wire: Mapping[str, float] | None = None
    synchronous: dict[str, float] = {}
    if compile:
        # Tracing asks for JAX's default devices, which must not be TPUs that libtpu would look for here.
        if not os.environ.get("JAX_PLATFORMS"):
            jax.config.update("jax_platforms", "cpu")
        program = make_program(
            *(model, optimizer, objective, mesh_config, training.accumulation, training.sequence_length),
            devices=list(mesh.devices.flat),
            compiler_options=training.compiler_options,
        )
        step = compile_step(program, batch_size)
        wire = step.wire_by_axes
        synchronous = {axes: sent - step.asynchronous.get(axes, 0.0) for axes, sent in wire.items()}
        figures |= {"batch_size": batch_size, "step": dataclasses.asdict(step)}
    state = memory.parameters + memory.optimizer_state
    line, again = planned_roofline(model, mesh, topology, shape, state, wire, synchronous)
    tokens = batch_size * training.sequence_length
    flops = tokens * train_flops_per_token(model, training.sequence_length) / topology.num_devices
    figures["roofline"] = dataclasses.asdict(line) | {
        "recomputed_share": again,
        "wire": dict(planned_wire(model, mesh, shape, topology.kind.dimensions) if wire is None else wire),
        "mfu": flops / line.step / topology.kind.device.flops_per_second,
        "tokens_per_second_and_chip": tokens / line.step / topology.num_devices * topology.kind.devices,
    }
    figures["warnings"] = planned_warnings(mesh)
    if mesh.shape["tensor"] == mesh.shape["context"] == 1:
        abstract, rules = plan_mesh(mesh_config, topology.num_devices), mesh_config.axis_rules("tpu")
        others = [dataclasses.replace(model, remat_policy=policy) for policy in REMAT_PROPOSED]
        candidates = [
            (each, plan_memory(each, optimizer, objective, training, batch_size, abstract, rules)) for each in others
        ]
        better = proposals(candidates, topology, shape, mesh.shape["fsdp"])
        figures["proposals"] = [dataclasses.asdict(each) for each in better]
    return figures


def topology_mesh(topology: Topology, mesh_config: sharding.MeshConfig, described: bool) -> Mesh:
    """Returns the mesh of a run over a topology, of devices that libtpu describes or that are drawn without it.

    Raises:
      UserError: the mesh does not fit the topology, or libtpu is missing or knows no such topology.
    """
    devices: Any = described_devices(topology) if described else drawn_devices(topology)
    return sharding.make_mesh(mesh_config, devices)


def topology_sections(figures: Mapping[str, Any]) -> list[Section]:
    """Returns the figures of a topology in words, by section."""
    shape = "×".join(map(str, figures["shape"]))
    slices = f", {figures['slices']} slices" if figures["slices"] > 1 else ""
    rows = [(f"{axis} reaches over", words) for axis, words in figures["axes"].items()]
    sections: list[Section] = [(f"Topology {figures['chip']} {shape}{slices}", rows or [("mesh", "one device")])]
    if "step" in figures:
        took = readable(figures["step"]["compile_seconds"], SECONDS)
        heading = f"A step of {figures['batch_size']:,} sequences, compiled for it in {took}"
        sections.append((heading, _compiled_rows(figures["step"])))
    return [*sections, _roofline_section(figures)]


def _reach(mesh: Mesh, axis: str) -> str:
    """Returns in words how far a mesh axis goes: chips along each dimension of the torus, and slices."""
    along = "×".join(str(extent) for extent in torus_extents(mesh, axis) if extent > 1) or "the cores of a chip"
    slices = slices_along(mesh, axis)
    return f"{along}{f', {slices} slices' if slices > 1 else ''}"


def _compiled_rows(step: Mapping[str, Any]) -> list[tuple[str, str]]:
    sent, hidden = sum(step["wire"].values()), sum(step["asynchronous"].values())
    gathered = step["gathered_asynchronously"]
    total, again = step["flops"]["products"] + step["flops"]["kernels"], step["flops"]["again"]
    return [
        ("state and batch, of a device", _bytes(step["argument_bytes"])),
        ("temporary", _bytes(step["temporary_bytes"])),
        ("output, in the place of the state", _bytes(step["output_bytes"])),
        ("sent by a device", _bytes(sent)),
        *((f"  {kind}", _bytes(count)) for kind, count in step["wire"].items() if count > sent / 1000),
        ("of it with work meanwhile", f"{_bytes(hidden)}, {hidden / sent:.0%}" if sent else "nothing is sent"),
        *([] if gathered is None else [("of the gathered bytes", f"{gathered:.0%}")]),
        ("FLOPs of a device", readable(total)),
        ("of them computed again", f"{again / total:.0%}" if total else "0%"),
        *(("warning", line) for line in step["warnings"]),
    ]


def _roofline_section(figures: Mapping[str, Any]) -> Section:
    """Returns bounds and prediction, the peaks they are of, and what would do better."""
    line, chip = figures["roofline"], CHIPS[figures["chip"]]
    sent = (
        "as compiled; what has no work meanwhile is waited for" if "step" in figures else "own arithmetic, all hidden"
    )
    meshes = [
        (
            "proposed",
            f"{' × '.join(f'{axis} {size}' for axis, size in each['mesh'].items())}: "
            f"remat {each['remat_policy']}, {readable(each['step_seconds'], SECONDS)}, "
            f"{readable(each['unhidden_seconds'], SECONDS)} with no byte hidden, {_bytes(each['memory_bytes'])}",
        )
        for each in figures.get("proposals", [])
    ]
    rows = [
        ("a step", f"{readable(line['step'], SECONDS)}, bound by {line['bound']}"),
        ("MFU", f"{line['mfu']:.0%}"),
        ("tokens per second and chip", f"{line['tokens_per_second_and_chip']:,.0f}"),
        ("arithmetic", f"{readable(line['arithmetic'], SECONDS)}, {line['recomputed_share']:.0%} of it computed again"),
        ("memory", readable(line["memory"], SECONDS)),
        *(
            (f"network, {axes}", f"{readable(took, SECONDS)} for {_bytes(line['wire'][axes])}")
            for axes, took in line["network"].items()
        ),
        ("waiting for the network", readable(line["waiting"], SECONDS)),
        ("bytes sent", sent),
        ("peak of a chip", f"{readable(chip.flops_per_second)} FLOP/s, {_bytes(chip.memory_bandwidth)}/s of memory"),
        ("a link, one way; between slices", f"{_bytes(chip.link_bandwidth)}/s; {_bytes(chip.slow_bandwidth)}/s a chip"),
        ("share of the peak in arithmetic", f"{chip.efficiency:.0%}: {chip.efficiency_source}"),
        *(("warning", line) for line in figures["warnings"]),
        *meshes,
    ]
    return ("Roofline", rows)


def _bytes(count: float) -> str:
    return readable(count, BYTES)

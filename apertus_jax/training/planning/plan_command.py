"""The `plan` command: memory, FLOPs, time and disk of a run, before it starts and without its hardware."""

from __future__ import annotations

import dataclasses
import json as json_format
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from etils import epath

from apertus_jax import __version__, sharding
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, abstract_parameters, count_parameters
from apertus_jax.model.attention import check_attention
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.chart import Chart
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.row_charts import bar_chart
from apertus_jax.reports.units import BYTES, COUNT, SECONDS, SHARE, readable
from apertus_jax.storage import artifacts
from apertus_jax.terminal.json_output import print_json
from apertus_jax.terminal.tables import show_fields
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.planning.devices import device_named, known_devices
from apertus_jax.training.planning.plan import (
    checkpoint_bytes,
    compiled_memory,
    plan_end,
    plan_memory,
    plan_mesh,
    plan_work,
)
from apertus_jax.training.planning.topology import topology_named
from apertus_jax.training.planning.topology_plan import (
    plan_topology,
    topology_mesh,
    topology_sections,
)
from apertus_jax.training.program import make_program
from apertus_jax.training.records.run_length import chain_of_run
from apertus_jax.training.run import RunSchedule
from apertus_jax.training.train_step import Objective
from apertus_jax.validation import require_flag, require_number, require_text, require_whole_number

KIND = "plan"
COMPARED_FROM = 0.05  # of a device's memory: less is nothing beside it
LARGEST_MACHINE = 10**7  # devices
RESULTS_FILE, REPORT_FILE = "plan.json", "report.html"
# As `MemoryPlan` has them; the update comes in place of the four before it.
MEMORY_PARTS = (
    *("parameters", "optimizer_state", "batch"),
    *("gradients", "kept_for_backward", "work_space", "gathered_weights", "update"),
)
Section = tuple[str, list[tuple[str, str]]]


def plan(
    model: ModelConfig,
    objective: Objective,
    optimizer: Callable[..., optax.GradientTransformationExtraArgs],
    schedule: RunSchedule,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    mesh: sharding.MeshConfig = sharding.MeshConfig(),  # noqa: B008 (frozen)
    devices: int = 0,
    device: str = "h100",
    topology: str = "",
    utilization: float = 0.35,
    compile: bool | None = None,
    output: str = "",
    json: bool = False,
) -> dict[str, Any]:
    """Prints memory of one device, arithmetic, time and disk of a run; returns the figures.

    Everything that `pretrain` is given in a gin file holds here too. Nothing is trained or allocated.

    Args:
      model, objective, optimizer, schedule, training, mesh: as for `pretrain`.
      devices: how many; 0 for as many as there are here.
      device: one of the accelerators that are known, for example `h100`, `gh200`, `tpu_v5p`; `cpu` is this machine, its
        memory and 50 GFLOP/s for each core, shared among `devices`.
      topology: TPUs in place of `devices` and `device`, as CHIP:AxBxC or CHIP:AxBxC:SLICES, for example `v5p:8x8x8`.
        The mesh is laid over their torus and the step compiled for them, which takes libtpu, minutes, and no TPU.
      utilization: MFU, the share of the peak that the model's arithmetic reaches; 0.33 and 0.36 in the released runs.
      compile: also compile the step for the devices here, as many as `devices`, and say what XLA allots; for a
        topology False leaves it at arithmetic, which needs no libtpu.
      output: folder for plan.json and report.html; "" for none.
      json: print what plan.json holds in place of the table.

    Raises:
      UserError: an unknown device, an attention implementation that it does not have, or a mesh, a parameter or a
        batch that does not divide.
    """
    if device not in known_devices():
        raise UserError(f"plan.device = {device!r} is not known; choose one of {', '.join(known_devices())}")
    require_whole_number("plan.devices", devices, at_least=0, at_most=LARGEST_MACHINE)
    require_number("plan.utilization", utilization, above=0, at_most=1)
    require_flag("plan.compile", bool(compile) if compile is None else compile)
    require_text("plan.topology", topology)
    require_text("plan.output", output)
    described = topology_named(topology) if topology else None
    if described is None:
        count = devices or len(jax.devices())
        kind = device_named(device, count)
    elif devices not in (0, described.num_devices):
        raise UserError(
            f"--topology={topology} has {described.num_devices} devices and --devices={devices}; leave one out"
        )
    else:
        count, kind, device = described.num_devices, described.kind.device, described.chip
        torus = topology_mesh(described, mesh, compile is not False)
    check_attention(model.attention_implementation, training.sequence_length, model.head_dim, kind.platform)
    chain = chain_of_run(optimizer, schedule.from_start(training.sequence_length), training)
    batches, total_steps = schedule.batch_schedule, schedule.total_steps
    abstract, rules = plan_mesh(mesh, count), mesh.axis_rules(kind.platform)
    sizes = sorted(batches.sizes_between(0, total_steps))
    memory = [plan_memory(model, chain, objective, training, size, abstract, rules) for size in sizes]
    work = plan_work(model, batches, training.sequence_length, total_steps, count, kind, utilization)
    largest = max(memory, key=lambda each: each.total)
    figures: dict[str, Any] = {
        "device": device,
        "devices": count,
        "mesh": dict(abstract.shape),
        "parameters": count_parameters(abstract_parameters(model)),
        "attention": model.attention_implementation,
        "compiler_options": list(training.compiler_options),
        "memory": dataclasses.asdict(largest) | {"total": largest.total, "device": kind.memory_bytes},
        "fits": largest.total <= kind.memory_bytes,
        "work": dataclasses.asdict(work),
        "utilization": utilization,
        "end_of_run": dataclasses.asdict(plan_end(model, abstract, rules)),
        "checkpoint_bytes": checkpoint_bytes(model, chain),
        "checkpoints_kept": _checkpoints_kept(training, total_steps),
    }
    if described is not None:
        figures["topology"] = plan_topology(
            *(described, model, chain, objective, training, mesh, torus),
            *(sizes[-1], memory[-1], compile is not False),
        )
    elif compile:
        if count != len(jax.devices()):
            raise UserError(
                f"plan.compile needs {count} devices here, and there are {len(jax.devices())}; see docs/scale.md"
            )
        program = make_program(
            *(model, chain, objective, mesh, training.accumulation, training.sequence_length),
            compiler_options=training.compiler_options,
        )
        figures["compiled"] = dict(compiled_memory(program, sizes[-1])) | {"backend": jax.default_backend()}
    sections = _sections(figures)
    if described is not None:
        sections += topology_sections(figures["topology"])
    if json:
        print_json(figures)
    else:
        _print(sections)
    if output:
        _write(output, figures, sections)
    return figures


def _checkpoints_kept(training: TrainingConfig, total_steps: int) -> int:
    """Returns how many checkpoints lie on the disk in the end."""
    for_good = total_steps // training.keep_every if training.keep_every else 0
    return for_good + training.keep_last


def _sections(figures: dict[str, Any]) -> list[Section]:
    """Returns the figures in words, by section."""
    memory, work, model = figures["memory"], figures["work"], figures["end_of_run"]
    axes = " × ".join(f"{axis} {size}" for axis, size in figures["mesh"].items() if size > 1) or "one device"
    share = memory["total"] / memory["device"]
    verdict = "fits" if figures["fits"] else "DOES NOT FIT: shard further, accumulate, or recompute more (remat_policy)"
    memory_rows = [
        ("parameters, float32 (exact)", _bytes(memory["parameters"])),
        ("optimizer state (exact)", _bytes(memory["optimizer_state"])),
        ("gradients", _bytes(memory["gradients"])),
        ("kept for the backward pass", _bytes(memory["kept_for_backward"])),
        ("work space: a layer again, or a tile of logits", _bytes(memory["work_space"])),
        ("weights gathered over fsdp", _bytes(memory["gathered_weights"])),
        ("or, instead of the four above, the update", _bytes(memory["update"])),
        ("batch (exact)", _bytes(memory["batch"])),
        ("at most at a time", f"{_bytes(memory['total'])} of {_bytes(memory['device'])}, {share:.0%}"),
        ("verdict", verdict),
    ]
    if "compiled" in figures:
        compiled = figures["compiled"]
        words = f"{_bytes(compiled['state_and_batch'])} + {_bytes(compiled['temporary'])} temporary"
        memory_rows.append((f"XLA on {compiled['backend']}", words))
    first, last = work["step_seconds"]
    start, end = readable(first, SECONDS), readable(last, SECONDS)
    seconds = start if first == last else f"{start}, at the end {end}"
    return [
        ("Run", [
            ("parameters", f"{figures['parameters']:,}"),
            ("devices", f"{figures['devices']:,} × {figures['device']}, {axes}"),
            ("attention", figures["attention"]),
            *(("compiler option", option) for option in figures["compiler_options"]),
            ("samples", f"{work['samples']:,}"),
            ("tokens", readable(work["tokens"], COUNT)),
        ]),
        ("Memory of one device", memory_rows),
        (f"Work and time, at {figures['utilization']:.0%} of the peak", [
            ("FLOPs per token", readable(work["flops_per_token"])),
            ("FLOPs in all", readable(work["flops"])),
            ("tokens per second and device", f"{work['tokens_per_second_and_device']:,.0f}"),
            ("a step", seconds),
            ("the run", f"{readable(work['days'] * 86400, SECONDS)}, {readable(work['device_hours'])} device hours"),
        ]),
        ("End of the run, its model written in pieces", [
            ("largest parameter, a shard of it", f"{_bytes(model['largest_leaf'])}, {_bytes(model['largest_shard'])}"),
            ("beyond its shards, at most on a device", _bytes(model["device"])),
            ("beyond its shards, at most on a host", _bytes(model["host"])),
        ]),
        ("Disk", [
            ("one checkpoint", _bytes(figures["checkpoint_bytes"])),
            ("checkpoints in the end", f"{figures['checkpoints_kept']:,}, "
             f"{_bytes(figures['checkpoint_bytes'] * figures['checkpoints_kept'])}"),
            ("the model", _bytes(model["model"])),
        ]),
    ]  # fmt: skip


def _bytes(count: float) -> str:
    """Returns bytes in words, by powers of ten."""
    return readable(count, BYTES)


def _print(sections: list[Section]) -> None:
    for heading, rows in sections:
        show_fields([(f"  {name}", value) for name, value in rows], heading)


def memory_chart(memory: Mapping[str, int], device: str) -> Chart:
    """Draws what fills the memory of one device, in bytes, above the most at a time and what the device has."""
    parts = [(name.replace("_", " "), memory[name]) for name in MEMORY_PARTS]
    rows = [*parts, ("at most at a time", memory["total"])]
    if memory["total"] > COMPARED_FROM * memory["device"]:
        rows.append((f"{device} has", memory["device"]))
    note = "The update comes after the backward pass: it stands in place of the four above it."
    names, sizes = zip(*rows, strict=True)
    return bar_chart("Memory of one device", names, sizes, Axis("bytes", BYTES), note)


def _write(output: str, figures: dict[str, Any], sections: list[Section]) -> None:
    """Writes figures and report."""
    inputs = {"figures": artifacts.digest_json(figures)}
    if artifacts.already_built(output, KIND, inputs):
        return
    report = HtmlReport(f"Plan {epath.Path(output).name}", f"apertus_jax {__version__}")
    work = figures["work"]
    report.tiles(
        [
            ("parameters", readable(figures["parameters"], COUNT)),
            ("tokens", readable(work["tokens"], COUNT)),
            ("the run", readable(work["days"] * 86400, SECONDS)),
            (
                f"of {figures['device']}'s memory",
                readable(figures["memory"]["total"] / figures["memory"]["device"], SHARE),
            ),
        ]
    )
    report.figure(memory_chart(figures["memory"], figures["device"]))
    for heading, rows in sections:
        report.heading(heading)
        report.facts(rows)
    with artifacts.build(output, KIND, inputs) as build:
        (build.path / RESULTS_FILE).write_text(json_format.dumps(figures, indent=1) + "\n")
        report.write(build.path / REPORT_FILE)
        build.summary.update(fits=figures["fits"])

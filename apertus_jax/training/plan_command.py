"""The `plan` command: what a run takes, said before it is started and without its hardware."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import optax
from etils import epath
from rich.console import Console
from rich.table import Table

from apertus_jax import __version__, artifacts, sharding
from apertus_jax.data import BatchSchedule
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.optimization import optimizer_chain, weight_decay_mask
from apertus_jax.reporting import HtmlReport
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.plan import (
    DEVICES,
    checkpoint_bytes,
    compiled_memory,
    plan_memory,
    plan_mesh,
    plan_work,
)
from apertus_jax.training.program import make_program
from apertus_jax.training.train_step import Objective

KIND = "plan"
RESULTS_FILE, REPORT_FILE = "plan.json", "report.html"
Section = tuple[str, list[tuple[str, str]]]


def plan(
    model: ModelConfig,
    batch_schedule: BatchSchedule,
    objective: Objective,
    optimizer: Callable[..., optax.GradientTransformationExtraArgs],
    learning_rate: Any,
    total_steps: int,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    mesh: sharding.MeshConfig = sharding.MeshConfig(),  # noqa: B008 (frozen)
    devices: int = 0,
    device: str = "h100",
    utilization: float = 0.35,
    compile: bool = False,
    output: str = "",
) -> dict[str, Any]:
    """Prints memory of one device, arithmetic, time and disk of a run; returns the figures.

    Everything that `pretrain` is given in a gin file holds here too. Nothing is trained or allocated.

    Args:
      model, batch_schedule, objective, optimizer, learning_rate, total_steps, training, mesh: as for `pretrain`.
      devices: how many; 0 for as many as there are here.
      device: one of the accelerators that are known, for example `h100`, `gh200`, `tpu_v5p`.
      utilization: share of the peak that the arithmetic of the model reaches; 0.33 and 0.36 in the released runs.
      compile: also compile the step for the devices here, as many as `devices`, and say what XLA allots.
      output: folder for plan.json and report.html; "" for none.

    Raises:
      UserError: an unknown device, or a mesh, a parameter or a batch that does not divide.
    """
    if device not in DEVICES:
        raise UserError(f"plan.device = {device!r} is not known; choose one of {', '.join(DEVICES)}")
    count, kind = devices or len(jax.devices()), DEVICES[device]
    chain = optimizer_chain(optimizer(learning_rate=learning_rate, mask=weight_decay_mask), training.clip_norm)
    abstract, rules = plan_mesh(mesh, count), mesh.axis_rules(kind.platform)
    sizes = sorted({batch_schedule.size_at(0), batch_schedule.size_at(max(total_steps - 1, 0))})
    memory = [plan_memory(model, chain, objective, training, size, abstract, rules) for size in sizes]
    work = plan_work(model, batch_schedule, training.sequence_length, total_steps, count, kind, utilization)
    largest = max(memory, key=lambda each: each.total)
    figures = {
        "device": device,
        "devices": count,
        "mesh": dict(abstract.shape),
        "parameters": model.num_parameters,
        "attention": model.attention_implementation,
        "memory": dataclasses.asdict(largest) | {"total": largest.total, "device": kind.memory_bytes},
        "fits": largest.total <= kind.memory_bytes,
        "work": dataclasses.asdict(work),
        "utilization": utilization,
        "checkpoint_bytes": checkpoint_bytes(model, chain),
        "checkpoints_kept": _checkpoints_kept(training, total_steps),
    }
    if compile:
        if count != len(jax.devices()):
            raise UserError(f"plan.compile needs {count} devices here, and there are {len(jax.devices())}; see README")
        program = make_program(model, chain, objective, mesh, training.accumulation, training.sequence_length)
        figures["compiled"] = dict(compiled_memory(program, sizes[-1])) | {"backend": jax.default_backend()}
    sections = _sections(figures)
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
    memory, work = figures["memory"], figures["work"]
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
    seconds = f"{first:.3g} s" if first == last else f"{first:.3g} s, at the end {last:.3g} s"
    return [
        ("Run", [
            ("parameters", f"{figures['parameters']:,}"),
            ("devices", f"{figures['devices']:,} × {figures['device']}, {axes}"),
            ("attention", figures["attention"]),
            ("samples", f"{work['samples']:,}"),
            ("tokens", f"{work['tokens']:.4g}"),
        ]),
        ("Memory of one device", memory_rows),
        (f"Work and time, at {figures['utilization']:.0%} of the peak", [
            ("FLOPs per token", f"{work['flops_per_token']:.4g}"),
            ("FLOPs in all", f"{work['flops']:.4g}"),
            ("tokens per second and device", f"{work['tokens_per_second_and_device']:,.0f}"),
            ("a step", seconds),
            ("the run", f"{work['days']:,.3g} days, {work['device_hours']:,.3g} device hours"),
        ]),
        ("Disk", [
            ("one checkpoint", _bytes(figures["checkpoint_bytes"])),
            ("checkpoints in the end", f"{figures['checkpoints_kept']:,}, "
             f"{_bytes(figures['checkpoint_bytes'] * figures['checkpoints_kept'])}"),
        ]),
    ]  # fmt: skip


def _bytes(count: float) -> str:
    """Returns bytes in words, by powers of ten."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}"
    return f"{count / 1e3:,.3g} kB"


def _print(sections: list[Section]) -> None:
    table = Table(title="plan", show_header=False)
    for number, (heading, rows) in enumerate(sections):
        if number:
            table.add_section()
        table.add_row(f"[bold]{heading}[/]", "")
        for name, value in rows:
            table.add_row(name, value)
    Console().print(table)


def _write(output: str, figures: dict[str, Any], sections: list[Section]) -> None:
    """Writes figures and report."""
    inputs = {"figures": artifacts.digest_json(figures)}
    if artifacts.already_built(output, KIND, inputs):
        return
    report = HtmlReport(f"Plan {epath.Path(output).name}", f"apertus_jax {__version__}")
    for heading, rows in sections:
        report.heading(heading)
        report.table(("", ""), rows)
    with artifacts.build(output, KIND, inputs) as build:
        (build.path / RESULTS_FILE).write_text(json.dumps(figures, indent=1) + "\n")
        report.write(build.path / REPORT_FILE)
        build.summary.update(fits=figures["fits"])

"""A run's step compiled for TPUs that are not here, and what its program says: memory, wire, waiting, arithmetic."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import jax

from apertus_jax.errors import UserError
from apertus_jax.training.planning.collectives import Collective, collectives_of, wire_by_axes, wire_by_kind
from apertus_jax.training.planning.hlo_flops import StepFlops, step_flops
from apertus_jax.training.planning.hlo_text import read_hlo
from apertus_jax.training.program import Program

NAMED_AT_MOST = 3  # collectives, in a warning


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """Figures of a step, from the program of one device.

    Attributes:
      argument_bytes: state and batch.
      temporary_bytes: everything else at its peak.
      output_bytes: the new state, in the place of the old one.
      code_bytes: of the program itself.
      compile_seconds: on this machine.
      wire: bytes that a device sends in a step, by "kind over axes".
      wire_by_axes: the same by mesh axes.
      asynchronous: those with work between start and done, by mesh axes.
      gathered_asynchronously: share of the gathered bytes that are among them; None where nothing is gathered.
      flops: of a device.
      warnings: what costs more than it must.
    """

    argument_bytes: int
    temporary_bytes: int
    output_bytes: int
    code_bytes: int
    compile_seconds: float
    wire: Mapping[str, float]
    wire_by_axes: Mapping[str, float]
    asynchronous: Mapping[str, float]
    gathered_asynchronously: float | None
    flops: StepFlops
    warnings: tuple[str, ...]


def compile_step(program: Program, batch_size: int) -> CompiledStep:
    """Compiles the step of a program on the devices of its mesh, described ones too, and reads what came out.

    Raises:
      UserError: the compiler refuses, as for a step that no device has the memory for.
    """
    started = time.monotonic()
    try:
        executable = program.compile(batch_size)
    except jax.errors.JaxRuntimeError as error:
        told = " ".join(str(error).split())[:400]
        raise UserError(
            f"the compiler refuses the step for {program.mesh.devices.flat[0].device_kind}: {told}"
        ) from error
    seconds = time.monotonic() - started
    memory, text = executable.memory_analysis(), read_hlo(executable.as_text())
    collectives = collectives_of(text, dict(program.mesh.shape))
    gathers = [each for each in collectives if each.kind == "all-gather" and each.group > 1]
    gathered = sum(each.wire_bytes for each in gathers)
    hidden = sum(each.wire_bytes for each in gathers if each.asynchronous)
    return CompiledStep(
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        compile_seconds=seconds,
        wire=wire_by_kind(collectives),
        wire_by_axes=wire_by_axes(collectives),
        asynchronous=wire_by_axes(collectives, asynchronous=True),
        gathered_asynchronously=hidden / gathered if gathered else None,
        flops=step_flops(text, program.sequence_length),
        warnings=tuple(warnings_of(collectives, program.accumulation)),
    )


def warnings_of(collectives: list[Collective], accumulation: int) -> list[str]:
    """Returns one line for each thing that the compiler made dearer than it must be."""
    lines = []
    reduced = sorted((each for each in collectives if each.made_of_gather), key=lambda each: -each.wire_bytes)
    if reduced:
        sent = sum(each.wire_bytes for each in reduced)
        named = ", ".join(dict.fromkeys(part_of_model(each.op_name) for each in reduced[:NAMED_AT_MOST]))
        lines.append(
            f"gathers of weights became all-reduces of the whole, {sent / 1e9:.1f} GB a step and twice what they need "
            f"({named}); lay fsdp over at most two dimensions of the torus"
        )
    for name, (times, sent) in _gathered_by_vocabulary(collectives).items():
        if times > accumulation:
            lines.append(f"{name} is gathered {times} times a step, {sent / 1e9:.1f} GB; once would do")
    return lines


def part_of_model(op_name: str) -> str:
    """Returns the layer and operation in an op_name, without transformations: "layers/feedforward/up"."""
    scopes = ("layers/", "embedder", "lm_head", "DV->")
    for scope in scopes:
        if scope in op_name:
            tail = op_name[op_name.index(scope) :].split("/")
            return "lm_head" if scope == "DV->" else "/".join(tail[:3] if scope == "layers/" else tail[:1]).rstrip(")")
    return op_name.rpartition("/")[2] or "an operation without a name"


def _gathered_by_vocabulary(collectives: list[Collective]) -> dict[str, tuple[int, float]]:
    """Returns how often the output matrix and the embedding are gathered, and the bytes sent for it."""
    found: dict[str, tuple[int, float]] = {}
    for each in collectives:
        name = part_of_model(each.op_name)
        if each.kind == "all-gather" and each.group > 1 and name in ("lm_head", "embedder"):
            times, sent = found.get(name, (0, 0.0))
            found[name] = times + each.times, sent + each.wire_bytes
    return found

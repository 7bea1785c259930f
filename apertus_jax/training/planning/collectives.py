"""Collectives of a compiled step: what each device sends, over which mesh axes, and what runs meanwhile.

Bytes on the wire are those that one device sends when a group of n works as a ring: (n - 1)/n of the whole for an
all-gather, a reduce-scatter and an all-to-all, twice that for an all-reduce, and the array itself for a permutation
(https://jax-ml.github.io/scaling-book/sharding).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from apertus_jax.training.planning.hlo_text import HloText, Instruction

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute", "ragged-all-to-all")
# Between start and done these are work that hides a collective; bookkeeping such as tuples and copies is not.
WORK = ("fusion", "dot", "convolution", "custom-call", "while", "call", "conditional")
ALL_AXES = "all"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction of a step.

    Attributes:
      kind: one of `KINDS`; an all-reduce that XLA:TPU fuses with the cut of its result is a reduce-scatter.
      axes: the mesh axes along which its groups reach, joined with ×; "" where a group is one device.
      group: devices of a group.
      size_in_bytes: of the whole array: what all devices of a group have of it, once.
      times: how often a step runs it.
      asynchronous: it has a start and a done, and work between them.
      made_of_gather: an all-reduce that gathers: its operand is a shard among zeros.
      name, op_name: of the instruction, the latter of its user where XLA left it none.
    """

    kind: str
    axes: str
    group: int
    size_in_bytes: int
    times: int
    asynchronous: bool
    made_of_gather: bool
    name: str
    op_name: str

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends for it in one step."""
        return self.times * wire_bytes(self.kind, self.size_in_bytes, self.group)


def wire_bytes(kind: str, size_in_bytes: float, group: int) -> float:
    """Returns the bytes that one device of `group` sends when the whole array has `size_in_bytes`."""
    if kind == "collective-permute":
        return size_in_bytes
    return (2 if kind == "all-reduce" else 1) * size_in_bytes * (group - 1) / group


def collectives_of(program: HloText, mesh_shape: Mapping[str, int]) -> list[Collective]:
    """Returns the collectives that a step runs, for a mesh whose devices the program numbers in row-major order."""
    users, callers = _users(program), _callers(program)
    found = []
    for name in program.runs:
        outer = callers.get(name)
        if outer is not None and _continues(program.computations[outer[0]][outer[1]], name):
            continue
        starts = outer is not None and "start" in _label(program.computations[outer[0]][outer[1]])
        lines = program.computations[name]
        for place, instruction in enumerate(lines):
            kind, is_start = _kind(instruction)
            if not kind:
                continue
            axes, group = _axes(instruction, mesh_shape)
            scattered = kind == "all-reduce" and _is_cut(lines, instruction, name)
            user = users.get(instruction.name)
            # Wrapped, an `async-start` or a fusion called a start calls the computation of the collective alone.
            begins = (name, place) if is_start else outer if starts else None
            found.append(
                Collective(
                    kind="reduce-scatter" if scattered else kind,
                    axes=axes,
                    group=group,
                    size_in_bytes=_whole_bytes(instruction, kind, is_start, group),
                    times=program.runs[outer[0] if starts and outer else name],
                    asynchronous=begins is not None and _has_work_meanwhile(program, *begins),
                    made_of_gather=kind == "all-reduce" and not scattered and _is_padded(program, instruction),
                    name=instruction.name,
                    op_name=instruction.op_name or (user.op_name if user else ""),
                )
            )
    return found


def wire_by_kind(collectives: Iterable[Collective]) -> dict[str, float]:
    """Returns the bytes that a device sends in one step, by "kind over axes", the most first."""
    totals: dict[str, float] = {}
    for each in collectives:
        if each.group > 1:
            key = f"{each.kind} over {each.axes}"
            totals[key] = totals.get(key, 0.0) + each.wire_bytes
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def wire_by_axes(collectives: Iterable[Collective], asynchronous: bool | None = None) -> dict[str, float]:
    """Returns the bytes that a device sends in one step by the mesh axes they run over; None counts both sorts."""
    totals: dict[str, float] = {}
    for each in collectives:
        if each.group > 1 and asynchronous in (None, each.asynchronous):
            totals[each.axes] = totals.get(each.axes, 0.0) + each.wire_bytes
    return totals


def _kind(instruction: Instruction) -> tuple[str, bool]:
    """Returns (kind, whether it is a start) of a collective, ("", False) of anything else."""
    base = instruction.operation.removesuffix("-start")
    return (base, base != instruction.operation) if base in KINDS else ("", False)


def _whole_bytes(instruction: Instruction, kind: str, is_start: bool, group: int) -> int:
    arrays = instruction.result
    if is_start and kind in ("all-gather", "collective-permute"):
        arrays = arrays[len(instruction.operands) : 2 * len(instruction.operands)]  # operands, results, contexts
    total = sum(array.size_in_bytes for array in arrays)
    return total * group if kind == "reduce-scatter" else total


def _axes(instruction: Instruction, mesh_shape: Mapping[str, int]) -> tuple[str, int]:
    """Returns the mesh axes along which the members of a group differ, and how many members it has."""
    members = _members(instruction, math.prod(mesh_shape.values()))
    coordinates = np.unravel_index(members, tuple(mesh_shape.values()))
    varying = [name for name, along in zip(mesh_shape, coordinates, strict=True) if len(np.unique(along)) > 1]
    pairs = "source_target_pairs" in instruction.rest
    return "×".join(varying), 2 if pairs and varying else len(members)


def _members(instruction: Instruction, devices: int) -> np.ndarray:
    """Returns the devices of one group, or those of one move that leaves its device."""
    rest = instruction.rest
    pairs = re.search(r"source_target_pairs=\{(\{[\d,{}]*\})\}", rest)
    if pairs:
        moves = [tuple(map(int, move)) for move in re.findall(r"\{(\d+),(\d+)\}", pairs[1])]
        return np.array(next((move for move in moves if move[0] != move[1]), (0,)))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if listed:
        return np.array([int(number) for number in listed[1].split(",")])
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest)
    if counted:
        return _counted(counted[3]).reshape(int(counted[1]), int(counted[2]))[0]
    named = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, ?device_ids=\(([^ ]*)\))? ?\{([^}]*)\}", rest)
    if named:
        return _members_along(named[1], named[2], named[3])
    return np.arange(devices)


def _counted(text: str) -> np.ndarray:
    """Returns the numbers that `[4,2]T(1,0)` stands for: counted in that shape, its axes exchanged, flat."""
    sizes, _, order = text.partition("T")
    shape = [int(size) for size in re.findall(r"\d+", sizes)]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return (numbers.transpose([int(axis) for axis in re.findall(r"\d+", order)]) if order else numbers).reshape(-1)


def _members_along(mesh: str, device_ids: str | None, along: str) -> np.ndarray:
    """Returns the first group of `mesh['a'=4,'b'=2] {'a'}`; of `'a':(2)2` only two neighbours, two such before them."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    chosen = {name: (int(before or 1), int(part or 0)) for name, before, part in _PART.findall(along)}
    shape, taken = [], []
    for name, size in sizes.items():
        before, part = chosen.get(name, (1, 1))
        part = part or size
        shape += [before, part, size // before // part]
        taken += [False, name in chosen, False]
    total = math.prod(shape)
    numbers = _counted(device_ids) if device_ids else np.arange(total)
    return numbers.reshape(shape)[tuple(slice(None) if take else 0 for take in taken)].reshape(-1)


_PART = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")


def _is_cut(lines: list[Instruction], reduce: Instruction, computation: str) -> bool:
    """Whether an all-reduce stands in a fusion that keeps one shard of its result, as XLA:TPU scatters."""
    return "all-reduce-scatter" in computation and any(
        each.operation == "dynamic-slice" and reduce.name in each.operands for each in lines
    )


def _is_padded(program: HloText, reduce: Instruction) -> bool:
    """Whether the operand of an all-reduce is a shard written into an array of zeros."""
    operand = program.by_name.get(reduce.operands[0]) if reduce.operands else None
    if operand is None:
        return False
    inner = [each for _, target in operand.called for each in program.computations.get(target, [])]
    return any(each.operation == "dynamic-update-slice" for each in [operand, *inner])


def _users(program: HloText) -> dict[str, Instruction]:
    """Returns the first instruction that reads each instruction's result."""
    users: dict[str, Instruction] = {}
    for lines in program.computations.values():
        for each in lines:
            for operand in each.operands:
                users.setdefault(operand, each)
    return users


def _callers(program: HloText) -> dict[str, tuple[str, int]]:
    """Returns where each computation is called from first: the computation and the place in it."""
    callers: dict[str, tuple[str, int]] = {}
    for name in program.runs:
        for place, each in enumerate(program.computations[name]):
            for _, target in each.called:
                callers.setdefault(target, (name, place))
    return callers


def _label(instruction: Instruction) -> str:
    return f"{instruction.operation} {instruction.name}"


def _continues(caller: Instruction, computation: str) -> bool:
    """Whether a computation holds a collective again that another has started: XLA:TPU moves it on beside products."""
    return "done" in _label(caller) or "async_collective_fusion" in computation


def _has_work_meanwhile(program: HloText, computation: str, place: int) -> bool:
    """Whether work stands between the start at a place and its done, in the order in which the device runs them."""
    lines = program.computations[computation]
    started = {lines[place].name}
    for each in lines[place + 1 :]:
        if started & set(each.operands) and each.operation in ("get-tuple-element", "bitcast", "tuple"):
            started.add(each.name)
        if "done" in _label(each) and started & set(each.operands):
            return False
        if each.operation in WORK:
            return True
    return False

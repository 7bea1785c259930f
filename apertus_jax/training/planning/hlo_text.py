"""Optimized programs as XLA prints them: instructions, and how often each runs in one step.

Read is what `compiled.as_text()` gives for CPU and TPU: computations with one instruction a line, in the order in which
they run. The form is described at https://openxla.org/xla/operation_semantics.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re

_ITEM_BYTES = {"pred": 1, "bf16": 2}
_ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(|=).*\{\s*$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
_CALLED = re.compile(
    r"\b(body|condition|calls|to_apply|branch_computations|called_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class HloArray:
    """One array of a type: dtype as XLA spells it, and dimensions."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_in_bytes(self) -> int:
        """Bytes without padding; 0 of a token."""
        digits = re.search(r"\d+", self.dtype)
        item = _ITEM_BYTES.get(self.dtype) or (max(int(digits[0]) // 8, 1) if digits else 0)
        return item * math.prod(self.shape)


_COUNTERS = tuple(HloArray(dtype, ()) for dtype in ("s32", "s64", "u32"))


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: its name, the arrays of its result, its operation and what follows the parenthesis."""

    name: str
    result: tuple[HloArray, ...]
    operation: str
    rest: str
    is_root: bool

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands, without their types."""
        depth, end = 1, len(self.rest)
        for place, letter in enumerate(self.rest):
            depth += (letter in "({[") - (letter in ")}]")
            if depth == 0:
                end = place
                break
        return tuple(re.findall(r"%([\w.\-]+)", self.rest[:end]))

    @functools.cached_property
    def called(self) -> tuple[tuple[str, str], ...]:
        """(role, computation) of every computation that it calls."""
        found = _CALLED.findall(self.rest)
        return tuple((role, name) for role, names in found for name in re.findall(r"[\w.\-]+", names))

    @property
    def op_name(self) -> str:
        """What JAX called it: transformations, scopes and operation, with / between them; "" where XLA lost it."""
        named = re.search(r'op_name="([^"]*)"', self.rest)
        return named[1] if named else ""


@dataclasses.dataclass(frozen=True)
class HloText:
    """A program: instructions by computation, and how often a step runs each computation.

    Attributes:
      computations: name → its instructions, in their order.
      runs: name → times a step, loops multiplied out; computations that never run are missing.
    """

    computations: dict[str, list[Instruction]]
    runs: dict[str, int]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Every instruction by its name, which is unique in a program."""
        return {each.name: each for lines in self.computations.values() for each in lines}


def read_hlo(text: str) -> HloText:
    """Returns the program behind `compiled.as_text()`.

    Raises:
      ValueError: no entry computation, so that this is not such a text.
    """
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            head = _HEAD.match(line)
            if head and not line.startswith("HloModule"):
                current = head[2]
                computations[current] = []
                entry = current if head[1] else entry
        elif current:
            found = _INSTRUCTION.match(line)
            if found:
                computations[current].append(
                    Instruction(found[2], arrays_of(found[3]), found[4], found[5], found[1] is not None)
                )
    if not entry:
        raise ValueError("this is no optimized HLO text: it has no ENTRY computation")
    return HloText(computations, _runs(computations, entry))


def arrays_of(text: str) -> tuple[HloArray, ...]:
    """Returns the arrays of a type, of a tuple all of them."""
    return tuple(
        HloArray(dtype, tuple(int(size) for size in sizes.split(",") if size)) for dtype, sizes in _ARRAY.findall(text)
    )


def _runs(computations: dict[str, list[Instruction]], entry: str) -> dict[str, int]:
    """Multiplies loops out along the calls, which form no circle."""
    edges: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    callers: collections.Counter[str] = collections.Counter()
    for name, lines in computations.items():
        for instruction in lines:
            trips = _trip_count(instruction, computations) if instruction.operation == "while" else 1
            for role, target in instruction.called:
                if target in computations:
                    edges[name].append((target, trips if role in ("body", "condition") else 1))
                    callers[target] += 1
    runs: collections.Counter[str] = collections.Counter({entry: 1})
    ready = [name for name in computations if not callers[name]]
    while ready:
        name = ready.pop()
        for target, times in edges[name]:
            runs[target] += runs[name] * times
            callers[target] -= 1
            if not callers[target]:
                ready.append(target)
    return {name: times for name, times in runs.items() if times}


def _trip_count(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """Trips as XLA has noted them, else the bound in the condition: loops of `scan` count from 0 in steps of 1."""
    known = re.search(r"known_trip_count\D*(\d+)", loop.rest)
    if known:
        return int(known[1])
    pending = [target for role, target in loop.called if role == "condition"]
    bounds = [1]
    while pending:
        for each in computations.get(pending.pop(), []):
            pending += [target for _, target in each.called]
            if each.operation == "constant" and each.result[0] in _COUNTERS:
                bounds.append(int(re.match(r"-?\d+", each.rest)[0]))  # type: ignore[index]  # a scalar's constant
    return max(bounds)

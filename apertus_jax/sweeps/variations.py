"""Variations of a sweep: `goldfish.k=3,10,50` read into values, their product, and the names of the runs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Sequence

from apertus_jax.errors import UserError

NAMES = "name"  # in a group of values that vary together: what a person calls each of them
LARGEST_SWEEP = 10_000
LONGEST_NAME = 100  # file systems take 255 bytes, and files are written beside a run under longer names
OPENING, CLOSING, QUOTES = "([{", ")]}", "'\""
VARIABLE = re.compile(r"[A-Za-z_][\w./]*")
SHOWN_AS_IT_IS = re.compile(r"[^\w.+-]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One value of an axis, or one of each of several variables that vary together.

    Attributes:
      bindings: gin name → value, spelled as in a flag.
      name: what a person calls it; empty for a name made from the values.
    """

    bindings: dict[str, str]
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Variation:
    """One run of a sweep: its name, which is that of its folder, and what sets it apart from the others."""

    name: str
    bindings: dict[str, str]


def read_axis(text: str) -> list[Choice]:
    """Reads one `--vary`: `NAME=VALUE,VALUE` or, for variables that vary together, `NAME=V1,V2; NAME=W1,W2`.

    Values are gin's; commas inside brackets and quotes belong to a value. `name=…` among variables that vary together
    gives their values a name.

    Raises:
      UserError: it is not of this form, or variables that vary together have different numbers of values.
    """
    columns: dict[str, list[str]] = {}
    for part in split_outside(text, ";"):
        variable, equals, values = part.partition("=")
        variable = variable.strip()
        if not equals or not VARIABLE.fullmatch(variable):
            raise UserError(f"--vary={text!r} is not NAME=VALUE,VALUE; write for example --vary=goldfish.k=3,10,50")
        if variable in columns:
            raise UserError(f"--vary={text!r} names {variable} twice; give all of its values at once")
        columns[variable] = [value.strip() for value in split_outside(values, ",")]
        if not all(columns[variable]):
            raise UserError(f"--vary={text!r} has an empty value for {variable}; write '' for an empty text")
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        counts = ", ".join(f"{variable} {len(values)}" for variable, values in columns.items())
        raise UserError(f"--vary={text!r}: what varies together needs as many values each ({counts}); add the others")
    names = columns.pop(NAMES, [""] * lengths.pop())
    if not columns:
        raise UserError(f"--vary={text!r} names values of nothing; add '; NAME=VALUE,VALUE' with what varies")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if any(rows.count(row) > 1 for row in rows):
        raise UserError(f"--vary={text!r} has a value twice; each would be the same run, leave one out")
    return [Choice(row, name) for row, name in zip(rows, names, strict=True)]


def split_outside(text: str, separator: str) -> list[str]:
    """Splits a text at the separators that stand outside of brackets and quotes."""
    parts, start, depth, quote = [], 0, 0, ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[place - 1] != "\\" else quote
        elif character in QUOTES:
            quote = character
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def variations(texts: Sequence[str]) -> list[Variation]:
    """Returns every combination of what the axes give, the last axis changing fastest.

    Raises:
      UserError: an axis cannot be read, two vary the same name, or there are more than 10,000 combinations.
    """
    if not texts:
        raise UserError("a sweep varies nothing; give for example --vary=TrainingConfig.seed=1,2")
    axes = [read_axis(text) for text in texts]
    variables = [variable for axis in axes for variable in axis[0].bindings]
    if twice := next((each for each in variables if variables.count(each) > 1), None):
        raise UserError(f"{twice} is varied twice; give all of its values in one --vary")
    count = math.prod(len(axis) for axis in axes)
    if count > LARGEST_SWEEP:
        raise UserError(f"{count:,} combinations are more than the {LARGEST_SWEEP:,} that a sweep takes; vary less")
    labels = short_names(variables)
    found = []
    for choices in itertools.product(*axes):
        bindings = {variable: value for choice in choices for variable, value in choice.bindings.items()}
        found.append(Variation(run_name(choices, labels), bindings))
    return _told_apart(found)


def short_names(variables: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each gin name, or the whole name where two would be the same."""
    last = [variable.rpartition(".")[2] for variable in variables]
    whole = [variable.replace("/", ".") for variable in variables]
    return {
        variable: short if last.count(short) == 1 else full
        for variable, short, full in zip(variables, last, whole, strict=True)
    }


def run_name(choices: Sequence[Choice], labels: dict[str, str]) -> str:
    """Returns the name of a run, which a person reads and a file system takes: `k=3,seed=1`."""
    parts = []
    for choice in choices:
        if choice.name:
            parts.append(readable(choice.name).lstrip(".") or "_")
        else:
            parts += [f"{labels[variable]}={readable(value)}" for variable, value in choice.bindings.items()]
    name = ",".join(parts)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}~{_digest(name)}"


def readable(value: str) -> str:
    """Returns a value of gin as a part of a name: letters, digits and . + - _ alone."""
    return SHOWN_AS_IT_IS.sub("_", value.strip("'\"@()[] ")).strip("_") or "empty"


def _told_apart(found: list[Variation]) -> list[Variation]:
    """Gives runs whose names would be the same, such as those of [1] and (1), a digest of their values beside it."""
    names = [each.name for each in found]
    return [
        Variation(f"{each.name}~{_digest(repr(sorted(each.bindings.items())))}", each.bindings)
        if names.count(each.name) > 1
        else each
        for each in found
    ]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

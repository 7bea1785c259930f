"""Plain flags: what they bind, conflicts between them and gin, and errors in the words of the command line."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from apertus_jax.command_line.parser import flags_of
from apertus_jax.commands import Command
from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Given:
    """A plain flag on the command line, or the bare argument.

    Attributes:
      binding: the gin name that it stands for, such as `pretrain.store`.
      value: what it gives that name.
      typed: as a person types it, such as `--store=runs/mine/store`.
    """

    binding: str
    value: Any
    typed: str


def split_gin_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `--gin.NAME=VALUE` (returned as gin lines) from the other arguments.

    Raises:
      UserError: a gin flag has no `=VALUE`.
    """
    others, bindings = [], []
    for argument in arguments:
        if argument.startswith("--gin."):
            name, _, value = argument.removeprefix("--gin.").partition("=")
            if not value.strip():
                raise UserError(f"{argument} has no value; write --gin.{name}=VALUE")
            bindings.append(f"{name} = {value}")
        else:
            others.append(argument)
    return others, bindings


def given_flags(command: Command, options: argparse.Namespace, bindings: Sequence[str] = ()) -> list[Given]:
    """Returns the plain flags that are on the command line.

    Args:
      command: the command.
      options: what argparse made of the command line.
      bindings: those of the --gin flags on the same command line, as "NAME = VALUE".

    Raises:
      UserError: two flags, or a flag and a --gin flag, bind one name.
    """
    found = []
    for flag in command.flags:
        value = getattr(options, flag)
        if value is not None:
            shown = f"--{flag}" if value is True else f"--{flag}={value[0] if isinstance(value, list) else value}"
            found.append(Given(command.binding_of(flag), value, shown))
    if command.positional:
        value = getattr(options, command.positional)
        typed = " ".join(value) if isinstance(value, list) else value
        found.append(Given(f"{command.function}.{command.positional}", value, typed))
    _check_conflicts(found, bindings)
    return found


def _check_conflicts(given: Sequence[Given], bindings: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for each in given:
        if each.binding in first:
            raise UserError(f"{first[each.binding]} and {each.typed} both set {each.binding}; give one of them")
        first[each.binding] = each.typed
    for line in bindings:
        name, _, value = line.partition(" = ")
        if name.strip() in first:
            raise UserError(f"{first[name.strip()]} and --gin.{name}={value} both set {name.strip()}; give one of them")


def told_in_flags(line: str, command: Command, given: Sequence[Given]) -> str:
    """Returns the line of an error with the flags that were or can be typed in place of gin names and bare paths.

    What stands in a gin file is told by its gin name.
    """
    if line.startswith(("gin:", "gin file")) or "(gin file" in line:
        return line
    flags = {command.binding_of(flag): flag for flag in flags_of(command).values()}
    typed = {each.binding: each for each in given}
    for name, flag in flags.items():
        if name in typed:
            each = typed[name]
            if repr(each.value) in line:
                shown = re.escape(repr(each.value))
                line = re.sub(rf"(?<![\w.]){re.escape(name)} = {shown}(?!\w)", _as_it_stands(each.typed), line)
            line = re.sub(rf"(?<![\w.]){re.escape(name)} = ", _as_it_stands(f"--{flag}="), line)
        line = re.sub(rf"(?<![\w.-])(?:--gin\.)?{re.escape(name)}(?![\w.])(?! = )", f"--{flag}", line)
    return _with_flag_of_path(line, command, given)


def _as_it_stands(text: str) -> Callable[[re.Match[str]], str]:
    """Returns what `re.sub` puts in place of a match without reading escapes in it."""
    return lambda match: text


def _with_flag_of_path(line: str, command: Command, given: Sequence[Given]) -> str:
    """Returns the line with the flag before the path that it begins with, if a flag gave just that path."""
    positional = f"{command.function}.{command.positional}"
    for each in given:
        if not isinstance(each.value, str) or each.binding == positional or not each.value or each.value not in line:
            continue
        start = re.match(rf"({re.escape(command.function)}: )?{re.escape(each.value)}(?=[\s:,;]|$)", line)
        if start:
            return f"{start[1] or ''}{each.typed}{line[start.end() :]}"
    return line

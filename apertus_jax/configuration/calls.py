"""Gin-bound function calls: checks arguments, and turns what a user can mend into one line."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apertus_jax.configuration.recording import UNBOUND, bound, effective_bindings
from apertus_jax.configuration.registry import CALLER, Bindable, bindables, borrowed_from, plain_flags
from apertus_jax.configuration.values import mismatch
from apertus_jax.errors import UserError
from apertus_jax.process.failures import as_user_error
from apertus_jax.storage import building, places

# Commands whose output is held in another way: for a run folder, or part by part, because several tasks share it.
HOLD_BY_THEMSELVES = ("run", "reproduce", "pretrain", "sweep", "prepare", "memorization")


def at_the_edge(bindable: Bindable) -> Callable[..., Any]:
    """Wraps a configurable: what a person has to mend is one line, and who asks gets the bindings in effect."""
    name, target, signature = bindable.name, bindable.target, bindable.signature

    @functools.wraps(target, updated=())
    def build(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        check_arguments(bindable, given)
        places.check_arguments(name, given)
        if CALLER in signature.parameters:
            caller = given.get(CALLER, signature.parameters[CALLER].default)
            bindings_in_effect = functools.partial(effective_bindings, name)
            kwargs[CALLER] = dataclasses.replace(caller, effective_config=bindings_in_effect)
        try:
            with _held_output(name, given):
                return target(*args, **kwargs)
        except Exception as error:
            # Here and not only in `cli.main`: what gin lets through has lost its error number and its cause, so the
            # trace of where it happened goes with the line.
            told = as_user_error(error, name)
            if told is None or told is error:
                raise
            raise told.with_traceback(error.__traceback__) from error

    # Gin records defaults as in effect only where it sees the real parameters.
    build.__signature__ = signature  # type: ignore[attr-defined]  # where `inspect` looks for it
    return build


def built_arguments(command: str) -> dict[str, Any]:
    """Returns the arguments that a command would be called with, built and checked; the command is not called.

    Raises:
      UserError: one is missing, is not what its annotation asks for, or what builds it refuses its values.
    """
    bindable = bindables[command]
    values = {parameter: bound(command, parameter) for parameter in bindable.parameters}
    # gin makes what a reference stands for when it is copied
    arguments = {name: copy.deepcopy(value) for name, value in values.items() if value is not UNBOUND}
    check_arguments(bindable, arguments)
    return arguments


def _held_output(name: str, given: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Returns what keeps others from the output folder of a command while it computes."""
    output = given.get("output")
    if not output or name in HOLD_BY_THEMSELVES:
        return contextlib.nullcontext()
    return building.held(output)


def check_arguments(bindable: Bindable, given: Mapping[str, Any]) -> None:
    """Raises UserError when a parameter without default is missing, or a value is not what its annotation asks for."""
    name = bindable.name
    missing = [
        parameter
        for parameter in bindable.parameters
        if bindable.signature.parameters[parameter].default is inspect.Parameter.empty and parameter not in given
    ]
    if missing:
        raise UserError(f"{name} has no value for {', '.join(missing)}; {_how_to_give(name, missing)}")
    for parameter, value in given.items():
        if parameter in bindable.hints and (found := mismatch(value, bindable.hints[parameter])):
            raise UserError(found.told(f"{name}.{parameter}"))


def _how_to_give(name: str, missing: Sequence[str]) -> str:
    """Returns how a person gives values to parameters: by a plain flag where there is one, else in a gin file."""
    flags = plain_flags.get(name, {})
    for typed_command in plain_flags.values():  # those that stand for a field of the options `name`
        own = {binding: flag for binding, flag in typed_command.items() if binding.startswith(f"{name}.")}
        flags = flags | {binding.partition(".")[2]: flag for binding, flag in own.items()}
    typed = [f"--{flags[parameter]}=…" for parameter in missing if parameter in flags]
    owner = borrowed_from.get(name, name)
    bound = ", ".join(f"{owner}.{parameter}" for parameter in missing if parameter not in flags)
    parts = [f"give {' and '.join(typed)}"] if typed else []
    parts += [f"bind {bound} in a gin file, given by --gin_file=FILE"] if bound else []
    return ", and ".join(parts)

"""The `help` command: signature and documentation of any name that gin files may bind."""

from __future__ import annotations

import inspect

from apertus_jax.configuration.descriptions import describe
from apertus_jax.configuration.registry import bindables, known_names, model_parts
from apertus_jax.configuration.renames import new_name
from apertus_jax.configuration.statements import nothing_called
from apertus_jax.errors import UserError
from apertus_jax.terminal.terminal_text import printable_text


def help_of_name(name: str) -> None:
    """Prints what a bindable name is and each of its parameters.

    Args:
      name: a class, function or command that gin files or flags may bind, as `wsd_schedule` or `ModelConfig`.

    Raises:
      UserError: nothing is called so; the nearest names are shown.
    """
    if (new := new_name(*name.split(".", 1))) is not None:
        raise UserError(f"{name} is called {new} now; ask for {new.partition('.')[0]}")
    if name in model_parts:
        part = model_parts[name]
        documentation = inspect.getdoc(part.target) if inspect.isclass(part.target) else None
        print(printable_text(f"{name} (of {part.imported_from}), as {part.choice}\n\n{documentation or ''}".rstrip()))
        return
    if name not in bindables:
        raise UserError(nothing_called(name, known_names()))
    print(printable_text(describe(bindables[name])))

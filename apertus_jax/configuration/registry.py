"""Registry of bindable names: each function or dataclass with its parameters and annotations."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

from apertus_jax.process.module_sources import IMPORT_COMMENT

CALLER = "caller"  # a command with this parameter gets a dataclass whose `effective_config` returns its bindings
SUPPLIED_BY_THE_EDGE = (CALLER,)  # no gin file binds it


@dataclasses.dataclass(frozen=True)
class Bindable:
    """One name that gin files may bind.

    Attributes:
      name: how gin files call it.
      target: the function or class.
      is_command: it is called from the command line, never by a gin file.
      imported_from: the module given by --import that it comes from; empty for the package's own.
    """

    name: str
    target: Callable[..., Any]
    is_command: bool = False
    imported_from: str = ""

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """Its parameters, as in the text."""
        return inspect.signature(self.target)

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """Annotations of parameters and of `return`, resolved; what cannot be resolved is left out."""
        try:
            return typing.get_type_hints(self.target)
        except (NameError, TypeError, AttributeError):  # of names imported for type checkers only
            return self._one_by_one()

    def _one_by_one(self) -> dict[str, Any]:
        names = vars(sys.modules[self.target.__module__])
        written = {name: parameter.annotation for name, parameter in self.signature.parameters.items()}
        written["return"] = self.signature.return_annotation
        found = {}
        for name, annotation in written.items():
            if annotation is inspect.Signature.empty:
                continue
            try:
                found[name] = eval(annotation, names) if isinstance(annotation, str) else annotation  # noqa: S307
            except (NameError, TypeError, AttributeError, SyntaxError):
                continue
        return found

    @functools.cached_property
    def options(self) -> dict[str, type]:
        """Parameter → the options class that it takes: a dataclass and nothing else."""
        return {
            name: hint
            for name in self.parameters
            if inspect.isclass(hint := self.hints.get(name)) and dataclasses.is_dataclass(hint)
        }

    @property
    def made(self) -> Any:
        """What calling it gives, as a type; `typing.Any` where it does not say."""
        return self.target if inspect.isclass(self.target) else self.hints.get("return", Any)

    @property
    def parameters(self) -> list[str]:
        """The parameters that a gin file may bind."""
        return [
            parameter.name
            for parameter in self.signature.parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in SUPPLIED_BY_THE_EDGE
        ]


@dataclasses.dataclass(frozen=True)
class ImportedModule:
    """A module that the owner of this command line brought in.

    Attributes:
      name: as given to --import.
      digest: BLAKE2b of its source, see `process/module_sources.py`.
      version: its `__version__`, or empty.
    """

    name: str
    digest: str
    version: str = ""

    @property
    def recorded(self) -> str:
        """What is recorded of it."""
        return f"blake2b:{self.digest}{f' version {self.version}' if self.version else ''}"


@dataclasses.dataclass(frozen=True)
class ModelPart:
    """A part of the model from an outside module: gin does not bind it, the model's configuration names it.

    Attributes:
      name: how the configuration calls it.
      target: the Linen module or attention implementation.
      chosen_by: the field of the configuration.
      imported_from: the module given by --import that it comes from.
    """

    name: str
    target: Any
    chosen_by: str
    imported_from: str

    @property
    def choice(self) -> str:
        """The gin line that chooses it."""
        return f"{self.chosen_by} = {self.name!r}"


bindables: dict[str, Bindable] = {}
model_parts: dict[str, ModelPart] = {}
plain_flags: dict[str, dict[str, str]] = {}  # the command that was typed → parameter → the plain flag that sets it
borrowed_from: dict[str, str] = {}  # command → the command whose bindings hold for it too
imported: dict[str, ImportedModule] = {}


def name_flags(command: str, flags: Mapping[str, str]) -> None:
    """Says which plain flags the typed command has: parameter → flag. Those of other commands cannot be typed."""
    plain_flags.clear()
    plain_flags[command] = dict(flags)


def signature(name: str) -> inspect.Signature:
    """Returns the parameters of a registered name."""
    return bindables[name].signature


def options_of(name: str) -> list[str]:
    """Returns the names of the options classes that a registered name takes."""
    return [options.__name__ for options in bindables[name].options.values()]


def known_names() -> list[str]:
    """Returns every name a gin file may bind."""
    return sorted(bindables)


def imported_names() -> list[str]:
    """Returns the modules that were given by --import, in order."""
    return list(imported)


def imported_bindings() -> dict[str, str]:
    """Returns what was imported as bindings whose names are comments to gin: recorded, compared, and never acted on."""
    return {f"{IMPORT_COMMENT}{each.name}": repr(each.recorded) for each in imported.values()}

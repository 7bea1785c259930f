"""Help texts: every parameter of a bindable name with its type, default and the line of its docstring.

Nothing is written by hand: signatures and docstrings are the source, so a new parameter is described when it is added.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from apertus_jax.configuration.registry import Bindable

WIDTH = 100
LONGEST_DEFAULT = 60
_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|Source):\s*$")
_ENTRY = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: (.*)")


def describe_location(location: str, flags: Mapping[str, str] | None = None) -> str:
    """Returns the parameters of "module:function" and of the options that it takes, for `apertus COMMAND --help`.

    Args:
      location: of a command.
      flags: parameter, or "Options.field" → the plain flag that sets it.

    Raises:
      ModuleNotFoundError: a package that the command needs is not installed.
    """
    module, _, name = location.partition(":")
    command = Bindable(name, getattr(importlib.import_module(module), name))
    parts = [parameter_lines(command, flags)]
    for each in command.options.values():
        own = {
            name.partition(".")[2]: flag for name, flag in (flags or {}).items() if name.startswith(f"{each.__name__}.")
        }
        parts.append(parameter_lines(Bindable(each.__name__, each), own))
    return "\n".join(parts)


def describe(bindable: Bindable) -> str:
    """Returns what a name is, and its parameters, as `apertus help NAME` shows them."""
    documentation = inspect.getdoc(bindable.target) or ""
    kind = "command" if bindable.is_command else "class" if inspect.isclass(bindable.target) else "function"
    text = "\n\n".join(_wrapped(paragraph, "") for paragraph in _prose(documentation))
    origin = f", imported from {bindable.imported_from}" if bindable.imported_from else ""
    where = bindable.target.__module__
    return f"{bindable.name} ({kind} of {where}{origin})\n\n{text}\n\n{parameter_lines(bindable)}".rstrip()


def parameter_lines(bindable: Bindable, flags: Mapping[str, str] | None = None) -> str:
    """Returns one entry for each parameter: how it is bound, its type and default, and what its docstring says.

    `flags` are the plain flags of parameters that have one.
    """
    documented = documented_parameters(bindable.target)
    entries = []
    for name in bindable.parameters:
        parameter = bindable.signature.parameters[name]
        kind = _spelled(parameter.annotation)
        head = f"  {bindable.name}.{name}{f': {kind}' if kind else ''}{_default(parameter.default)}"
        if flags and name in flags:
            head += f"  [--{flags[name]}]"
        lines = [textwrap.fill(head, WIDTH, subsequent_indent="    ", break_on_hyphens=False)]
        if text := documented.get(name):
            lines.append(_wrapped(text, "      "))
        entries.append("\n".join(lines))
    return "\n".join(entries) if entries else "  It has no parameters."


def documented_parameters(target: Callable[..., Any]) -> dict[str, str]:
    """Returns parameter → text, from the sections Args and Attributes of a docstring, inherited fields included."""
    found: dict[str, str] = {}
    classes = reversed(target.__mro__[:-1]) if inspect.isclass(target) else [target]
    for each in classes:
        found |= _entries(inspect.cleandoc(each.__doc__ or ""))
        if inspect.isclass(each) and "__init__" in vars(each):
            found |= _entries(inspect.cleandoc(each.__init__.__doc__ or ""))
    return found


def _entries(documentation: str) -> dict[str, str]:
    found: dict[str, str] = {}
    inside, indent = False, 0
    names: list[str] = []
    for line in documentation.splitlines():
        if _SECTION.match(line):
            inside = line.startswith(("Args", "Attributes"))
            names = []
        elif inside and line.strip():
            depth = len(line) - len(line.lstrip())
            entry = _ENTRY.match(line.strip())
            if entry and (not names or depth <= indent):
                names, indent = entry[1].replace("*", "").split(", "), depth
                found |= dict.fromkeys(names, entry[2])
            else:
                for name in names:
                    found[name] += f" {line.strip()}"
    return found


def _prose(documentation: str) -> list[str]:
    """Returns the paragraphs before the first section."""
    lines = []
    for line in documentation.splitlines():
        if _SECTION.match(line):
            break
        lines.append(line)
    return [paragraph for paragraph in "\n".join(lines).split("\n\n") if paragraph.strip()]


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        " ".join(text.split()), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _spelled(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return " (required)"
    shown = getattr(default, "__name__", None) or repr(default)
    shown = re.sub(r"<factory>|<dataclasses\._HAS_DEFAULT_FACTORY_CLASS.*?>", "…", shown)
    return f" = {shown if len(shown) <= LONGEST_DEFAULT else type(default).__name__ + '(…)'}"

"""Operative configuration: the bindings that a command used, written and read back."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import gin
from etils import epath

from apertus_jax import __version__
from apertus_jax.configuration.registry import bindables, imported_bindings
from apertus_jax.storage import artifacts

OPERATIVE_CONFIG = "operative_config.gin"
GIN_MODULE = "apertus"  # what gin writes before a registered name
UNBOUND = object()
REFERENCE = re.compile(r"[@%]([\w./]+)")


def effective_bindings(root: str) -> dict[str, str]:
    """Returns `selector.parameter -> value` for everything that `root` used so far, defaults included.

    Values are gin's own spelling. Bindings of other commands in the same gin file are left out. Modules that were
    imported come first, as `# imported: module`.
    """
    every = parse_bindings(gin.operative_config_str())
    owners: dict[str, dict[str, str]] = {}
    for name, value in every.items():
        owner, separator, _ = name.rpartition(".")
        owners.setdefault(owner if separator else name, {})[name] = value
    reached: dict[str, str] = {}
    pending = [root]
    seen: set[str] = set()
    while pending:
        owner = pending.pop()
        if owner in seen:
            continue
        seen.add(owner)
        for name, value in owners.get(owner, {}).items():
            reached[name] = value
            pending.extend(REFERENCE.findall(value))
    return imported_bindings() | reached


def operative_text(title: str) -> str:
    """Returns everything that was used in this process as one gin text, with what was imported as comments."""
    comments = "".join(f"{name} = {value}\n" for name, value in imported_bindings().items())
    return f"# {title}\n{comments}{gin.operative_config_str()}"


def record_bindings(name: str) -> None:
    """Writes the bindings that `name` used, defaults and seeds included, into the folder that its `output` names.

    The file can be given as --gin_file to do the same again.
    """
    bindings = effective_bindings(name)
    outputs = [value for parameter, value in bindings.items() if parameter.endswith(f"{name}.output")]
    output = next((ast.literal_eval(value) for value in outputs if value.startswith(("'", '"'))), None)
    if not output or not epath.Path(output).is_dir():  # "" is no folder, and not the one we are in either
        return
    lines = [f"{parameter} = {value}\n" for parameter, value in sorted(bindings.items())]
    text = "".join([f"# apertus_jax {__version__}: {name}\n", *lines])
    path = epath.Path(output) / OPERATIVE_CONFIG
    if not (path.exists() and path.read_text() == text):
        artifacts.write_atomically(path, text)


def parse_bindings(text: str) -> dict[str, str]:
    """Reads gin text as written by `config_str` into `name -> value`, joining values that span lines."""
    bindings: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#") or line.startswith(("import ", "from ", "include ")):
            continue
        if not line.startswith(" ") and " = " in line or line.rstrip().endswith("= \\"):
            name, _, value = line.partition("=")
            name = name.strip()
            bindings[name] = value.strip().rstrip("\\").strip()
        elif name is not None:
            bindings[name] = f"{bindings[name]} {line.strip()}".strip()
    return bindings


def resolved_bindings(root: str) -> dict[str, str]:
    """Returns `selector.parameter -> value` of everything that `root` would use, defaults included; nothing is called.

    A parameter that must be given and is not stands there as `(required)`.
    """
    found: dict[str, str] = {}
    pending, seen = [root], set()
    while pending:
        selector = pending.pop(0)
        bindable = bindables.get(selector.rpartition("/")[2].removeprefix(f"{GIN_MODULE}."))
        if selector in seen or bindable is None:
            continue
        seen.add(selector)
        for name in bindable.parameters:
            value = bound(selector, name)
            if value is UNBOUND:
                value = bindable.signature.parameters[name].default
            text = "(required)" if value is inspect.Parameter.empty else repr(value)
            found[f"{selector}.{name}"] = text
            pending.extend(REFERENCE.findall(text))
    macros = [name for text in found.values() for name in re.findall(r"%([\w./]+)", text)]
    return {name: repr(gin.query_parameter(f"%{name}")) for name in dict.fromkeys(macros)} | found


def bound(selector: str, parameter: str) -> Any:
    """Returns the value that gin would give a parameter, or UNBOUND: the innermost scope that has one wins."""
    scopes, _, name = selector.rpartition("/")
    parts = scopes.split("/") if scopes else []
    for end in range(len(parts), -1, -1):
        try:
            return gin.query_parameter(f"{'/'.join([*parts[:end], name])}.{parameter}")
        except ValueError:  # gin has no other way to ask
            continue
    return UNBOUND

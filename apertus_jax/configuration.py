"""Gin at the edge: which names gin files may bind, how they are read, and what was in effect.

Nothing below the commands reads gin. Names are registered, not decorated: a plain call in Python never takes values
from a gin file, only references inside gin files do.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gin

from apertus_jax.errors import UserError

GIN_CONFIGS = Path(__file__).resolve().parent.parent / "gin_configs"
CONFIGURABLES = {
    "apertus_jax.model": ("ModelConfig", "RopeScaling"),
    "apertus_jax.sharding": ("MeshConfig",),
    "apertus_jax.data": ("BatchSchedule", "Mixture", "MixtureStage", "MegatronMixture", "MegatronStage"),
    "apertus_jax.objectives": ("goldfish", "not_after_eod", "not_padding", "completion_only"),
    "apertus_jax.optimization": ("ademamix", "adamw", "wsd_schedule", "cosine_schedule", "constant_schedule"),
    "apertus_jax.training": ("Objective", "TrainingConfig"),
}
IMPORTABLE_PREFIXES = ("apertus_jax", "__gin__")
IMPORT_LINE = re.compile(r"^\s*(?:import\s+([\w.]+)|from\s+([\w.]+)\s+import\b)", re.MULTILINE)
INCLUDE_LINE = re.compile(r"""^\s*include\s+['"]([^'"]+)['"]""", re.MULTILINE)
REFERENCE = re.compile(r"[@%]([\w./]+)")
_registered: dict[str, inspect.Signature] = {}


def register(commands: Sequence[str]) -> None:
    """Registers every name that gin files may bind: the table above, and the commands (as "module:function")."""
    locations = [f"{module}:{name}" for module, group in CONFIGURABLES.items() for name in group]
    for location in [*locations, *commands]:
        module, _, name = location.partition(":")
        if name not in _registered:
            target = getattr(importlib.import_module(module), name)
            _registered[name] = inspect.signature(target)
            gin.register(name, module="apertus")(_with_clear_errors(target, name))


def _with_clear_errors(target: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Wraps a configurable so that a missing value is one line for people instead of a TypeError."""
    signature = inspect.signature(target)

    @functools.wraps(target, updated=())
    def build(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind_partial(*args, **kwargs)
        missing = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in bound.arguments
        ]
        if missing:
            wanted = ", ".join(f"{name}.{parameter}" for parameter in missing)
            raise UserError(f"{name} has no value for {', '.join(missing)}; bind {wanted} in a gin file or flag")
        return target(*args, **kwargs)

    return build


def parse(gin_files: Sequence[str], bindings: Sequence[str]) -> None:
    """Reads gin files, then bindings, in this order.

    Raises:
      UserError: a file is missing, imports a module outside the allow-list, or binds an unknown name (the nearest
        names are shown).
    """
    gin.add_config_file_search_path(str(GIN_CONFIGS))
    for name in gin_files:
        _check_imports(name, seen=set())
    try:
        gin.parse_config_files_and_bindings([str(name) for name in gin_files], list(bindings))
    except (ValueError, SyntaxError, RuntimeError, OSError, TypeError) as error:
        raise UserError(_explain(error)) from error


def _check_imports(name: str, seen: set[str]) -> None:
    """A gin file from a stranger must not run code of its own: imports outside the package are refused."""
    path = next((place for place in (Path(name), GIN_CONFIGS / name) if place.exists()), None)
    if path is None:
        raise UserError(f"gin file {name} does not exist (looked here and in {GIN_CONFIGS})")
    if str(path) in seen:
        return
    seen.add(str(path))
    text = path.read_text()
    for match in IMPORT_LINE.finditer(text):
        module = match[1] or match[2]
        if module.split(".")[0] not in IMPORTABLE_PREFIXES:
            raise UserError(f"gin file {path} imports {module}, which is not part of apertus_jax; remove the import")
    for included in INCLUDE_LINE.findall(text):
        _check_imports(included, seen)


def _explain(error: Exception) -> str:
    """Turns a gin error into one line, with the nearest known names when one is unknown."""
    text = " ".join(str(error).split())
    if match := re.search(r"doesn't have a parameter named '([^']+)'", text):
        owner = re.search(r"Configurable '([^']+)'", text)[1]
        known = list(_registered[owner.rpartition(".")[2]].parameters)
        return f"gin: {owner} has no parameter {match[1]!r}; {_nearest(match[1], known)} ({_place(text)})"
    if match := re.search(r"No configurable matching (?:reference )?'@?([\w./]+)", text):
        return f"gin: nothing is called {match[1]!r}; {_nearest(match[1], known_names())} ({_place(text)})"
    return f"gin: {text}"


def _place(text: str) -> str:
    """The part of a gin message that tells where the line stands."""
    found = re.search(r"In (file \"[^\"]+\", line \d+|bindings string line \d+)", text)
    return found[1] if found else "in the gin bindings"


def _nearest(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"known are: {', '.join(sorted(known))}"


def known_names() -> list[str]:
    """Returns every name a gin file may bind."""
    return sorted(_registered)


def effective_bindings(root: str) -> dict[str, str]:
    """Returns `selector.parameter -> value` for everything that `root` used so far, defaults included.

    Values are gin's own spelling. Bindings of other commands in the same gin file are left out.
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
    return reached


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

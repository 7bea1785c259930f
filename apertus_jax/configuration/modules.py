"""A lab's own modules: `--import my_lab.masks` makes the names in the module's `__all__` bindable.

A function or class in `__all__` is bound by gin as those of the package are. A Linen module is a feed-forward block, an
`Implementation` one of attention: the model's configuration names them (`MODEL_PARTS`). There is no other way in.

Only the owner's command line imports. What was imported is recorded beside what it made, as a comment that no reader
of gin acts on; whoever uses the output again is told which modules to give, and nothing is imported for it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from apertus_jax.configuration.names import add
from apertus_jax.configuration.recording import OPERATIVE_CONFIG
from apertus_jax.configuration.registry import (
    IMPORT_COMMENT,
    Bindable,
    ImportedModule,
    ModelPart,
    bindables,
    imported,
    model_parts,
)
from apertus_jax.errors import UserError
from apertus_jax.process.module_sources import MODULES, OWN_PACKAGE, source_digest
from apertus_jax.storage.json_reader import parse_json
from apertus_jax.storage.listing import COMMIT_MARKER
from apertus_jax.storage.run_folder import RECORD_FILE
from apertus_jax.terminal.terminal_text import printable

LONGEST_REASON = 300

MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
RECORDED = re.compile(rf"{IMPORT_COMMENT}({MODULE.pattern}) = 'blake2b:([0-9a-f]{{64}})(?: version \S+)?'", re.ASCII)
GIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_log = logging.getLogger(__name__)
RECORD_BYTES = 2**24
# Kind → what makes one known to the model under its name, and the field of the configuration that chooses it.
MODEL_PARTS = {
    ("flax.linen", "Module"): ("add_feedforward", "ModelConfig.feedforward"),
    ("apertus_jax.model.attention", "Implementation"): ("add_attention", "ModelConfig.attention_implementation"),
}
WITHOUT_NAMES = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


def import_modules(names: Sequence[str]) -> None:
    """Imports modules and makes what they list in `__all__` bindable.

    Modules are looked for where Python looks, and then in the folder we are in.

    Raises:
      UserError: there is no such module, it fails, it has no `__all__`, or a name is taken.
    """
    for name in dict.fromkeys(names):
        if not MODULE.fullmatch(name):
            raise UserError(f"--import={name!r} is not the name of a module; write for example --import=my_lab.masks")
        if name in imported:
            continue
        module = _import(name)
        with _told(name):
            offered = [_checked(module, each, name) for each in _offered(module, name)]
            described = ImportedModule(name, source_digest(module), _version(module))
            for each in sorted(offered, key=lambda each: isinstance(each, Bindable)):  # last what cannot be refused
                _add(each)
        imported[name] = described


def check_recorded_modules(folder: str | os.PathLike[str], goes_on: bool = False) -> None:
    """Checks that the modules with which something was made are given again; nothing is imported for it.

    Args:
      folder: what was made.
      goes_on: the command goes on with it, and compares what the modules hold by itself.

    Raises:
      UserError: one is missing, or is not what it was; the line has the flags to type.
    """
    recorded = _modules_recorded_in(folder) if goes_on else recorded_modules(folder)
    missing = [name for name in recorded if name not in imported]
    if missing:
        flags = " ".join(f"--import={name}" for name in missing)
        raise UserError(
            f"{folder} was made with {_listed(missing)}, which this command line does not give; if you have and trust "
            f"{'them' if len(missing) > 1 else 'it'}, add {flags}"
        )
    for name, digest in recorded.items():
        if digest != imported[name].digest:
            told = f"{folder} was made with another {name} (blake2b {digest[:16]}…, not {imported[name].digest[:16]}…)"
            if not goes_on:
                raise UserError(f"{told}; give the file it was made with")
            _log.warning("%s; what has changed in it holds from here on, if the command goes on at all", told)


def recorded_modules(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Returns module → digest as recorded in a folder or the one that holds it."""
    return _modules_recorded_in(folder) or _modules_recorded_in(Path(folder).parent)


def failure_of_module(error: BaseException) -> str:
    """Returns one line for an exception that the code of a module given by --import raised; "" for any other."""
    module = _module_at_fault(error)
    told = " ".join(f"{type(error).__name__}: {error}".partition("\n  In call to configurable")[0].split())
    return f"--import={module}: its code fails with {printable(told)[:LONGEST_REASON]}" if module else ""


def _module_at_fault(error: BaseException) -> str:
    """Returns the module given by --import whose code was running when an exception was raised; "" for none.

    The last code counts that was of this package or of such a module; libraries that it called do not.
    """
    tops = {name.partition(".")[0]: name for name in imported}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        top = frame.f_globals.get("__name__", "").partition(".")[0]
        if top == OWN_PACKAGE or top in tops:
            return tops.get(top, "")
    return ""


def _modules_recorded_in(folder: str | os.PathLike[str]) -> dict[str, str]:
    place = Path(folder)
    lines = [*_read(place / OPERATIVE_CONFIG).splitlines(), *_bindings_of_run(_read(place / RECORD_FILE))]
    lines += _modules_of_model(_read(place / COMMIT_MARKER))
    return {match[1]: match[3] for match in map(RECORDED.match, lines) if match}


def _bindings_of_run(content: str) -> list[str]:
    """Returns the bindings in the record of a training run, as lines."""
    with contextlib.suppress(ValueError, AttributeError, KeyError, TypeError):
        return [f"{name} = {value}" for name, value in parse_json(content, RECORD_FILE)["config"].items()]
    return []


def _modules_of_model(content: str) -> list[str]:
    """Returns the modules in the commit marker of a model folder, as lines of a record."""
    with contextlib.suppress(ValueError, AttributeError, KeyError, TypeError):
        found = parse_json(content, COMMIT_MARKER)["summary"][MODULES]
        return [f"{IMPORT_COMMENT}{name} = {value}" for name, value in found.items()]
    return []


def _read(path: Path) -> str:
    """Returns the text of a small local file, or nothing; what is wrong with it is for its own reader to say."""
    with contextlib.suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= RECORD_BYTES:
            return path.read_text()
    return ""


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return f"the module{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _import(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: a file here must not stand in for an installed module
    with _told(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                raise UserError(
                    f"--import={name}: there is no module {error.name} here or where Python looks; correct the name"
                ) from error
            raise UserError(f"--import={name}: it needs {error.name}, which is not installed; install it") from error


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns whatever a lab's code raises into one line, also what it raises to end the program."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(
            f"--import={name}: it fails with {type(error).__name__}: {printable(error)[:200]}; --debug shows where"
        ) from error


def _offered(module: ModuleType, name: str) -> list[str]:
    """Returns the names that a module lists in `__all__`."""
    listed = getattr(module, "__all__", None)
    if not isinstance(listed, (list, tuple)) or not listed:
        raise UserError(f"--import={name}: it has no __all__; list there what gin may bind, as __all__ = ['my_mask']")
    for each in listed:
        if not isinstance(each, str) or not hasattr(module, each):
            raise UserError(f"--import={name}: __all__ lists {each!r}, which it does not have; correct the list")
    return list(dict.fromkeys(listed))


def _checked(module: ModuleType, each: str, name: str) -> Bindable | ModelPart:
    """Returns what a module offers under one name, once it is known that it can be used."""
    if not GIN_NAME.fullmatch(each):
        raise UserError(f"--import={name}: {each!r} in __all__ is no name that gin can bind; use a-z, A-Z, 0-9 and _")
    if taken := bindables.get(each) or model_parts.get(each):
        owner = taken.imported_from or "apertus_jax"
        raise UserError(f"--import={name}: {each} is a name of {owner} already; call it otherwise")
    target = getattr(module, each)
    if chosen_by := _chosen_by(target):
        return ModelPart(each, target, chosen_by, imported_from=name)
    if not (inspect.isfunction(target) or inspect.isclass(target)):
        raise UserError(f"--import={name}: {each} in __all__ is neither function nor class; leave it out")
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError as error:
        raise UserError(
            f"--import={name}: {each} does not say which parameters it takes; give it an __init__ with named parameters"
        ) from error
    if unnamed := [f"{'*' * (p.kind is p.VAR_POSITIONAL)}{p.name}" for p in parameters if p.kind in WITHOUT_NAMES]:
        raise UserError(
            f"--import={name}: {each} takes {', '.join(unnamed)} by position, which gin cannot bind; name them"
        )
    return Bindable(each, target, imported_from=name)


def _chosen_by(target: object) -> str:
    """Returns the field of the model's configuration that names such a thing; "" for what gin binds itself."""
    for (module, kind), (_, field) in MODEL_PARTS.items():
        wanted = getattr(sys.modules.get(module), kind, None)  # else nobody has imported it to make one of it
        if wanted is not None and (
            isinstance(target, wanted) or (inspect.isclass(target) and issubclass(target, wanted))
        ):
            return field
    return ""


def _add(offered: Bindable | ModelPart) -> None:
    """Makes what a module offers known, to gin or to the model."""
    if isinstance(offered, Bindable):
        add(offered)
        return
    adder = next(adder for adder, field in MODEL_PARTS.values() if field == offered.chosen_by)
    try:
        getattr(importlib.import_module("apertus_jax.model"), adder)(offered.name, offered.target)
    except UserError as error:
        raise UserError(f"--import={offered.imported_from}: {error}") from error
    model_parts[offered.name] = offered


def _version(module: ModuleType) -> str:
    version = getattr(module, "__version__", None) or getattr(
        sys.modules.get(module.__name__.partition(".")[0]), "__version__", ""
    )
    return re.sub(r"[^0-9A-Za-z.+!_-]", "", str(version))[:64]

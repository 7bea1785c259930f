"""Gin at the edge: which names gin files may bind, how they are read, and what was in effect.

Nothing below the commands reads gin. Names are registered, not decorated: a plain call in Python never takes values
from a gin file, only references inside gin files do.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import errno
import functools
import importlib
import inspect
import logging
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from etils import epath
from gin import config_parser

from apertus_jax import __version__, artifacts
from apertus_jax.errors import UserError

GIN_CONFIGS = Path(__file__).resolve().parent.parent / "gin_configs"
CONFIGURABLES = {
    "apertus_jax.corpus.sources": ("Source", "Limits"),
    "apertus_jax.corpus.overlay": ("write_overlay",),
    "apertus_jax.corpus.robots_snapshot": ("RobotsScoring", "RobotsRule"),
    "apertus_jax.corpus.signals": ("SignalScoring", "SignalRule"),
    "apertus_jax.corpus.licences": ("LicenceScoring", "LicenceRule"),
    "apertus_jax.corpus.removal": ("RemovalScoring", "RemovalRule"),
    "apertus_jax.corpus.personal_data": ("PersonalDataPolicy",),
    "apertus_jax.corpus.language": ("LanguageScoring", "LanguageRule"),
    "apertus_jax.corpus.quality": ("QualityScoring", "QualityRule", "EnglishQualityRule"),
    "apertus_jax.corpus.classifiers": (
        "ClassifierScoring",
        "HashedNgramEmbedding",
        "TransformerEmbedding",
        "QualityScoreRule",
        "ToxicityRule",
    ),
    "apertus_jax.corpus.contamination": ("ContaminationScoring", "ContaminationRule"),
    "apertus_jax.corpus.duplicates": ("DuplicateScoring", "DuplicateRule"),
    "apertus_jax.corpus.prepare": ("Policy", "OnlySources"),
    "apertus_jax.model": ("ModelConfig", "RopeScaling"),
    "apertus_jax.sharding": ("MeshConfig",),
    "apertus_jax.data": (
        "BatchSchedule",
        "Mixture",
        "MixtureStage",
        "MegatronMixture",
        "MegatronStage",
    ),
    "apertus_jax.data.vocabulary_pieces": ("vocabulary_text",),
    "apertus_jax.objectives": ("goldfish", "not_after_eod", "not_padding", "completion_only"),
    "apertus_jax.optimization": ("ademamix", "adamw", "wsd_schedule", "cosine_schedule", "constant_schedule"),
    "apertus_jax.training": ("Objective", "TrainingConfig"),
    "apertus_jax.evaluation.memorization.canaries": ("CanaryPlan",),
    "apertus_jax.evaluation.in_training": ("HeldOutEvaluator", "HeldOutSample"),
    "apertus_jax.release.output_filter": ("OutputFilter",),
    "apertus_jax.release.data_summary": (
        "Provider",
        "PublishedModel",
        "SourceDescription",
        "Crawler",
        "Declarations",
        "DatasheetAnswers",
    ),
}
# What can be wrong with the place a command writes to, and what to do about it.
PLACE_ERRORS = {
    errno.ENOSPC: "the disk is full; free space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free space and run the same command again",
    errno.EACCES: "no permission; choose another folder or change its permissions",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
}
IMPORTABLE_PREFIXES = ("apertus_jax", "__gin__")
# Annotations whose values can be checked by type alone, and how a person calls them.
PLAIN_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text in quotes"),
    "bool": ((bool,), "True or False"),
}
OPERATIVE_CONFIG = "operative_config.gin"
EFFECTIVE_CONFIG = "effective_config"  # a command with this parameter gets a function that returns its bindings
REFERENCE = re.compile(r"[@%]([\w./]+)")
_registered: dict[str, inspect.Signature] = {}


def register(commands: Sequence[str]) -> None:
    """Registers every name that gin files may bind: the table above, and the commands (as "module:function")."""
    if not _registered:
        gin.add_config_file_search_path(str(GIN_CONFIGS))
    locations = [f"{module}:{name}" for module, group in CONFIGURABLES.items() for name in group]
    for location in [*locations, *commands]:
        module, _, name = location.partition(":")
        if name not in _registered:
            target = getattr(importlib.import_module(module), name)
            _registered[name] = inspect.signature(target)
            with gin.unlock_config():  # scripts add names of their own after a first file was read
                gin.register(name, module="apertus")(_at_the_edge(target, name))


def borrow(source: str, target: str) -> None:
    """Binds the parameters of `target` to what `source` has bound under the same names, where they have no binding."""
    with gin.unlock_config():
        for name in _registered[target].parameters:
            if not _is_bound(f"{target}.{name}") and _is_bound(f"{source}.{name}"):
                gin.bind_parameter(f"{target}.{name}", gin.query_parameter(f"{source}.{name}"))


def _is_bound(name: str) -> bool:
    """Returns whether a gin file or flag has given `configurable.parameter` a value."""
    try:
        gin.query_parameter(name)
    except ValueError:  # gin has no other way to ask
        return False
    return True


def _at_the_edge(target: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Wraps a configurable: what a person has to mend is one line, and who asks gets the bindings in effect."""
    signature = _registered[name]

    @functools.wraps(target, updated=())
    def build(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        _check_arguments(name, signature, given)
        if EFFECTIVE_CONFIG in signature.parameters and EFFECTIVE_CONFIG not in given:
            kwargs[EFFECTIVE_CONFIG] = functools.partial(effective_bindings, name)
        try:
            return target(*args, **kwargs)
        except OSError as error:
            if error.errno not in PLACE_ERRORS:
                raise
            raise UserError(f"{error.filename or name}: {PLACE_ERRORS[error.errno]}") from error

    build.__signature__ = signature  # gin records defaults as in effect only where it sees the real parameters
    return build


def _check_arguments(name: str, signature: inspect.Signature, given: Mapping[str, Any]) -> None:
    """Raises UserError when a parameter without default is missing, or a plain value has the wrong type."""
    missing = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in given
    ]
    if missing:
        wanted = ", ".join(f"{name}.{parameter}" for parameter in missing)
        raise UserError(f"{name} has no value for {', '.join(missing)}; bind {wanted} in a gin file or flag")
    for parameter, value in given.items():
        plain, separator, _ = str(signature.parameters[parameter].annotation).partition(" | None")
        if plain not in PLAIN_TYPES or (separator and value is None):
            continue
        types, meaning = PLAIN_TYPES[plain]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UserError(f"{name}.{parameter} = {value!r} must be {meaning}; correct it in the gin file or flag")


def parse(gin_files: Sequence[str], bindings: Sequence[str]) -> None:
    """Reads gin files, then bindings, in this order; what was read before is forgotten.

    Raises:
      UserError: a file is missing, imports a module outside the allow-list, or binds an unknown name (the nearest
        names are shown).
    """
    gin.clear_config()
    with _without_reports_of_search():
        try:
            for name in gin_files:
                _check_imports(name, seen=set())
            gin.parse_config_files_and_bindings([str(name) for name in gin_files], list(bindings))
        except tokenize.TokenError as error:
            raise UserError("gin: a bracket or quote is never closed in a gin file or flag; close it") from error
        except (ValueError, SyntaxError, RuntimeError, OSError, TypeError) as error:
            raise UserError(_explain(error)) from error


@contextlib.contextmanager
def _without_reports_of_search() -> Iterator[None]:
    """Gin logs an error for every place in which a file is not, even when the next place has it."""

    def is_report(record: logging.LogRecord) -> bool:
        return record.module != "resource_reader"

    root = logging.getLogger()
    root.addFilter(is_report)
    try:
        yield
    finally:
        root.removeFilter(is_report)


class _NamesOnly(config_parser.ParserDelegate):
    """Lets gin's own parser list the statements of a file without resolving what they refer to."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        return scoped_configurable_name

    def macro(self, macro_name: str) -> str:
        return macro_name


def _check_imports(name: str, seen: set[str]) -> None:
    """A gin file from a stranger must not run code of its own: imports outside the package are refused."""
    path = next((place for place in (Path(name), GIN_CONFIGS / name) if place.is_file()), None)
    if path is None:
        known = [str(found.relative_to(GIN_CONFIGS)) for found in GIN_CONFIGS.rglob("*.gin")]
        raise UserError(f"gin file {name} does not exist here or in {GIN_CONFIGS}; {_nearest(name, known)}")
    if str(path) in seen:
        return
    seen.add(str(path))
    with path.open() as file:
        try:
            statements = list(config_parser.ConfigParser(file, _NamesOnly()))
        except tokenize.TokenError as error:
            raise UserError(f"gin file {path}: a bracket or quote is never closed; close it") from error
    for statement in statements:
        if isinstance(statement, config_parser.ImportStatement):
            if statement.module.split(".")[0] not in IMPORTABLE_PREFIXES:
                raise UserError(
                    f"gin file {path} imports {statement.module}, which is not part of apertus_jax; remove the import"
                )
        elif isinstance(statement, config_parser.IncludeStatement):
            _check_imports(statement.filename, seen)


def _explain(error: Exception) -> str:
    """Turns a gin error into one line, with the nearest known names when one is unknown."""
    text = " ".join(str(error).split())
    if match := re.search(r"doesn't have a parameter named '([^']+)'", text):
        owner = re.search(r"Configurable '([^']+)'", text)[1]
        known = list(_registered[owner.rpartition(".")[2]].parameters)
        return f"gin: {owner} has no parameter {match[1]!r}; {_nearest(match[1], known)} ({_place(text)})"
    if match := re.search(r"No configurable matching (?:reference )?'@?([\w./]+)", text):
        return f"gin: nothing is called {match[1]!r}; {_nearest(match[1], known_names())} ({_place(text)})"
    if match := re.search(r"No bindings specified for '([^']+)/gin\.macro'", text):
        return f"gin: %{match[1]} is used and has no value; add a line {match[1]} = VALUE, or --gin.{match[1]}=VALUE"
    if isinstance(error, SyntaxError) and error.text:
        where = f"{error.filename or 'the gin bindings'}, line {error.lineno}"
        return f"gin: {error.msg.rstrip('.')}: {error.text.strip()!r} ({where}); write NAME.PARAMETER = VALUE"
    return f"gin: {text}"


def _place(text: str) -> str:
    """The part of a gin message that tells where the line stands."""
    found = re.search(r"In (file \"[^\"]+\", line \d+|bindings string line \d+)", text)
    return found[1] if found else "in the gin bindings"


def _nearest(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"known are: {', '.join(sorted(known))}"


def signature(name: str) -> inspect.Signature:
    """Returns the parameters of a registered name."""
    return _registered[name]


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


def record_bindings(name: str) -> None:
    """Writes the bindings that `name` used, defaults and seeds included, into the folder that its `output` names.

    The file can be given as --gin_file to do the same again.
    """
    bindings = effective_bindings(name)
    outputs = [value for parameter, value in bindings.items() if parameter.endswith(f"{name}.output")]
    output = next((ast.literal_eval(value) for value in outputs if value.startswith(("'", '"'))), None)
    if not output or not epath.Path(output).is_dir():  # "" is no folder, and not the one we are in either
        return
    lines = [f"{parameter} = {value}" for parameter, value in sorted(bindings.items())]
    text = "\n".join([f"# apertus_jax {__version__}: {name}", *lines, ""])
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

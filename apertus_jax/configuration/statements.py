"""Gin statements as data: the bindings of a file or flag as plain values, before names are resolved.

Gin's own parser reads the text and nothing else of gin is used: no import, no dynamic registration, no include is ever
carried out by it. Files that are included are looked for here, in the search path and beside the including file.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import io
import math
import os
import re
import stat
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

from apertus_jax.errors import UserError
from apertus_jax.terminal.terminal_text import printable

_PACKAGE = Path(__file__).resolve().parent.parent
# In a wheel they lie in the package, in a checkout beside it.
GIN_CONFIGS = next(
    (folder for folder in (_PACKAGE / "gin_configs", _PACKAGE.parent / "gin_configs") if folder.is_dir()),
    _PACKAGE / "gin_configs",
)
LARGEST_FILE = 2**18
DEEPEST_BRACKETS = 40
DEEPEST_INCLUDES = 20
MAX_FILES = 200
LONGEST_STRING_RUN = 200  # 'a' 'b' 'c' are one text; gin reads each anew together with all before it
LONGEST_SHOWN = 120
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
GIN_MODULE = "apertus"  # what may stand before a name, as in apertus.ModelConfig
SECRET = "secret"  # a parameter of this name is bound by nobody and shown nowhere
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
FLAG_NAME = re.compile(rf"(?:{NAME}/)*{NAME}(?:\.{NAME})*")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# What some reader of lines takes for the end of one; a flag is one line to all of them.
FORBIDDEN_IN_FLAGS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
UNREADABLE_TOKEN = re.compile(r"Failed to parse token '(.*)'\Z", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Place:
    """Position of a statement: a line of a gin file, or a flag (line 0)."""

    source: str
    line: int = 0
    from_library: bool = False  # included from gin_configs/: may name more than the including file uses

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}" if self.line else self.source

    @property
    def is_flag(self) -> bool:
        """Whether a person typed it on this command line."""
        return not self.line


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/name`, or `@scope/name()` which is called."""

    name: str
    called: bool

    @property
    def bare(self) -> str:
        """The registered name, without scopes and without the module that may stand before it."""
        return bare(self.name.rpartition("/")[2])

    def __repr__(self) -> str:
        return f"@{self.name}{'()' if self.called else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%scope/name`: the value that another binding gives."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True)
class Binding:
    """`scope/selector.parameter = value`; of a macro the selector is its name and the parameter is empty."""

    scope: str
    selector: str
    parameter: str
    value: Any
    place: Place

    @property
    def name(self) -> str:
        """How a person writes it."""
        scoped = f"{self.scope}/{self.selector}" if self.scope else self.selector
        return f"{scoped}.{self.parameter}" if self.parameter else scoped


def bare(selector: str) -> str:
    """Returns a registered name without the module that may stand before it."""
    return selector.removeprefix(f"{GIN_MODULE}.")


class _Unreadable(UserError):
    """A flag that is no gin; what stands there and how to write it is added by `read_flag`."""


class _AsWritten(config_parser.ParserDelegate):
    """Keeps references as what they are in the text."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def read_file(name: str | os.PathLike[str], recorded: bool = False) -> list[Binding]:
    """Returns the bindings of a gin file and of what it includes, in order.

    Args:
      name: a path, or a name below gin_configs/.
      recorded: a command wrote it, so it may hold what commands write and nothing else.

    Raises:
      UserError: the file cannot be read as gin, or does what a gin file must not do. The line is named, never shown:
        the file may be another than a person thinks.
    """
    path = _first_file([Path(name), GIN_CONFIGS / name])
    if path is None:
        known = [str(found.relative_to(GIN_CONFIGS)) for found in GIN_CONFIGS.rglob("*.gin")]
        raise UserError(f"gin file {name} does not exist here or in {GIN_CONFIGS}; {nearest(str(name), known)}")
    return list(_bindings_of(path, recorded, above=(), counted=[]))


def read_flag(name: str, value: str) -> Binding:
    """Returns the one binding of `--gin.NAME=VALUE`.

    Raises:
      UserError: it is not one name and one literal or reference.
    """
    secret = name.rpartition(".")[2] == SECRET
    shown = _shown(f"--gin.{name}={'…' if secret else value}")
    place = Place(shown)
    if not FLAG_NAME.fullmatch(name):
        raise UserError(f"{shown}: {_shown(name)!r} is no name; write --gin.NAME.PARAMETER=VALUE")
    if found := FORBIDDEN_IN_FLAGS.search(value):
        raise UserError(
            f"{shown} holds the character U+{ord(found[0]):04X}; a flag is one binding on one line, "
            "write line breaks inside quotes as \\n"
        )
    try:
        statements = _statements(f"{name} = {value.strip()}", place)
    except _Unreadable as error:
        value = "…" if secret else value
        raise UserError(f"gin: {error}: {name} = {_shown(value)}; {_advice(name, value)}") from error
    if len(statements) != 1 or not isinstance(statements[0], Binding):
        raise UserError(f"{shown} is more than one binding; write --gin.NAME.PARAMETER=VALUE once for each")
    return statements[0]


def _advice(name: str, value: str) -> str:
    """How a flag that cannot be read should have been written."""
    plain = value.strip()
    if plain.lower() in ("true", "false", "none"):
        return f"write --gin.{name}={plain.capitalize()}"
    if plain and not re.search(r"[\[\](){}'\"@%#=\\]", plain):
        return f"text needs quotes of its own, write --gin.{name}=\"'{_shown(plain)}'\""
    return "write NAME.PARAMETER = VALUE, with quotes around text inside"


def _shown(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"


def _first_file(places: Sequence[Path]) -> Path | None:
    """Returns the first of several paths that is a file, or anything else but a folder."""
    for place in places:
        try:
            if place.exists() and not place.is_dir():
                return place
        except (OSError, ValueError) as error:  # a loop of links, a name that is too long, a NUL in it
            raise UserError(
                f"gin file {_shown(str(place))} cannot be read ({_reason(error)}); give a .gin file"
            ) from error
    return None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _bindings_of(path: Path, recorded: bool, above: tuple[Path, ...], counted: list[Path]) -> Iterator[Binding]:
    """Yields the bindings of one file, those of an included one where the include stands.

    Args:
      path: the file.
      recorded: see `read_file`.
      above: real paths of the files that include this one.
      counted: every file read so far; extended.
    """
    real = path.resolve()
    if real in above:
        raise UserError(f"gin file {path} includes itself; remove one of the includes")
    counted.append(real)
    if len(above) > DEEPEST_INCLUDES or len(counted) > MAX_FILES:
        raise UserError(f"gin file {path} is included too deep, or with too many others; put them into one file")
    place = Place(f"gin file {path}", 1, from_library=bool(above) and real.is_relative_to(GIN_CONFIGS))
    for statement in _statements(_read_text(path), place, recorded):
        if isinstance(statement, Binding):
            yield statement
        else:
            included = _find_included(statement.filename, path, statement.location.line_num)
            yield from _bindings_of(included, recorded, (*above, real), counted)


def _find_included(name: str, including: Path, line: int) -> Path:
    """Returns the file that an include names: beside the including file or below it, or in gin_configs/."""
    place = f"gin file {including}, line {line}"
    roots = (including.parent, GIN_CONFIGS)
    if "\0" in name:
        raise UserError(f"{place}: the name of the included file holds a NUL; correct it")
    found = _first_file([root / name for root in roots])
    if found is None:
        known = [str(each.relative_to(GIN_CONFIGS)) for each in GIN_CONFIGS.rglob("*.gin")]
        raise UserError(
            f"{place} includes {_shown(name)}, which is not beside it nor in {GIN_CONFIGS}; {nearest(name, known)}"
        )
    real = found.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise UserError(
            f"{place} includes {_shown(name)}, which leads elsewhere; a gin file includes what lies beside it or in "
            f"{GIN_CONFIGS}: copy the file there"
        )
    return found


def _read_text(path: Path) -> str:
    """Returns the text of a gin file, whatever stands at its path.

    Raises:
      UserError: no regular file, too large, not UTF-8, or with characters that no editor shows.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not make us wait
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UserError(f"gin file {path} is not a regular file; give a .gin file")
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"gin file {path} cannot be read ({_reason(error)}); give a .gin file") from error
    if len(content) > LARGEST_FILE:
        raise UserError(f"gin file {path} is larger than {LARGEST_FILE:,} bytes; that is no configuration")
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            raise UserError(
                f"gin file {path}, line 1 begins with the byte order mark of {encoding}; save it as UTF-8 without one"
            )
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"gin file {path}, line {line} is not UTF-8 (perhaps Latin-1); save it as UTF-8") from error
    if found := FORBIDDEN.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise UserError(f"gin file {path}, line {line} holds the control character U+{ord(found[0]):04X}; remove it")
    return text


def _statements(text: str, place: Place, recorded: bool = False) -> list[Binding | config_parser.IncludeStatement]:
    """Returns the bindings and includes of one text.

    Raises:
      UserError: it is not gin, it imports something, or a recorded one holds what recording does not write.
    """
    found: list[Binding | config_parser.IncludeStatement] = []
    for statement in _parsed(text, place):
        here = dataclasses.replace(place, line=statement.location.line_num) if place.line else place
        if isinstance(statement, config_parser.ImportStatement):
            raise UserError(
                f"{here} imports {_shown(statement.module)}: gin files are data and import nothing, remove the import; "
                "a module of your own comes in by --import on the command line"
            )
        if recorded and not isinstance(statement, config_parser.BindingStatement):
            raise UserError(f"{here} is not what a command records (a plain binding); the record was changed by hand")
        if isinstance(statement, config_parser.IncludeStatement):
            found.append(statement)
        elif isinstance(statement, config_parser.BindingStatement):
            _check_literals(statement.value, here)
            found.append(Binding(statement.scope, statement.selector, statement.arg_name, statement.value, here))
        # What remains is the head of a block, whose bindings follow one by one.
    return found


def _parsed(text: str, place: Place) -> list[Any]:
    """Returns the statements that gin's parser finds; every way it has to fail becomes one line without the text."""
    line = 1
    cause: Exception | None = None
    try:
        _check_tokens(text, place)
        with warnings.catch_warnings():  # of escapes in quoted text; they would show it
            warnings.simplefilter("ignore")
            return list(config_parser.ConfigParser(text, _AsWritten()))
    except tokenize.TokenError as error:
        line = error.args[-1][0] if isinstance(error.args[-1], tuple) else 1
        problem, cause = "a bracket or quote is never closed", error
    except SyntaxError as error:
        line, problem, cause = error.lineno or 1, _problem(error), error
    except (ValueError, TypeError) as error:  # such as a list as the key of a dictionary
        problem, cause = "a value that gin cannot read", error
    except (RecursionError, MemoryError, OverflowError) as error:
        problem, cause = "brackets are nested too deep", error
    if place.is_flag:
        raise _Unreadable(problem) from cause
    place = dataclasses.replace(place, line=line)
    raise UserError(f"{place}: {problem}; write NAME.PARAMETER = VALUE") from cause


def _problem(error: SyntaxError) -> str:
    """What is wrong, without showing what stands there."""
    if UNREADABLE_TOKEN.search(error.msg or ""):
        return "a value is neither a number, quoted text, True, False, None, @reference nor %macro (text needs quotes)"
    if isinstance(error, IndentationError):
        return "a line is indented and belongs to nothing"
    if "statement" in error.msg or "selector" in error.msg or "Unexpected token" in error.msg:
        return "not a binding"
    return "a bracket, comma, value or line end is missing"


def _check_tokens(text: str, place: Place) -> None:
    """Refuses what would take gin's parser beyond its stack or minutes of time."""
    depth = strings = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
        strings = strings + 1 if token.type == tokenize.STRING else 0 if token.type != tokenize.NL else strings
        here = dataclasses.replace(place, line=token.start[0]) if place.line else place
        if depth > DEEPEST_BRACKETS:
            raise UserError(f"{here}: brackets are nested deeper than {DEEPEST_BRACKETS}; no value needs that")
        if strings > LONGEST_STRING_RUN:
            raise UserError(f"{here}: more than {LONGEST_STRING_RUN} texts stand in a row; write them as one")
        if not place.line and (token.type == tokenize.COMMENT or token.string == ";"):
            raise UserError(f"{here}: a flag is one binding without comment; quote the text")


def _check_literals(value: Any, place: Place) -> None:
    """Refuses literals that no parameter takes: 1e999 and its like, half of a character, bytes."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        for each in value:
            _check_literals(each, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}: {value} is no finite number; write one that is")
    elif isinstance(value, str) and (found := LONE_SURROGATE.search(value)):
        raise UserError(f"{place}: a text holds U+{ord(found[0]):04X}, which is no character; remove it")
    elif not isinstance(value, (int, float, str, Reference, Macro, type(None))):
        raise UserError(f"{place}: {type(value).__name__} values are not taken; write a number or quoted text")


def nearest(wrong: str, known: Sequence[str]) -> str:
    """Returns a question with the names that come close, or a list of all."""
    close = difflib.get_close_matches(wrong[:LONGEST_SHOWN], known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"known are: {', '.join(sorted(known))}"


def nothing_called(name: str, known: Sequence[str], written: str = "") -> str:
    """Returns what is said of a name that nothing has: how one of an outside module comes in, and the nearest.

    Args:
      name: without scope.
      known: every name there is.
      written: as it stands in the file or on the command line, where that is not the name.
    """
    advice = f"if a module of yours has it, add --import=MODULE; {nearest(name, known)}"
    return f"nothing is called {written or name!r}; {advice}"


def literal(text: str) -> Any:
    """Returns the value of a Python literal, or None where the text is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def is_literal(text: str) -> bool:
    """Returns whether a text is a Python literal, None included."""
    return text == "None" or literal(text) is not None

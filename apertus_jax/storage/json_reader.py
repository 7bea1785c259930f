"""Strict JSON reader for files from others: a malformed one is one line that names the place.

The standard parser gives up in five ways (syntax, recursion, 4,300 digits, bytes that are no text, memory) and takes
what is no JSON (NaN) or no text (lone surrogates). Here all of them are one error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.listing import regular_file

LARGEST_FILE_BYTES = 1 << 28
DEEPEST_NESTING = 100
LONGEST_NUMBER = 100
BYTE_ORDER_MARK = "\ufeff"


class JSONError(UserError, ValueError):
    """Content that is not JSON as this project reads it. Also a ValueError, as the standard module's errors are.

    Attributes:
      reason: what is wrong with the content, without the place.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}; mend it")
        self.reason = reason


class _Refused(ValueError):
    """A part of the content that is wrong; `parse_json` adds where."""


def parse_json(content: bytes | str, where: str, allow_nan: bool = False, allow_surrogates: bool = False) -> Any:
    """Returns the value that `content` spells.

    Args:
      content: UTF-8 bytes, with or without a byte order mark, or text.
      where: names the place in errors, for example "corpus.jsonl, line 3".
      allow_nan: takes NaN and Infinity, which Python writes, as numbers.
      allow_surrogates: passes texts on that cannot be encoded, for a reader that looks at each field that it uses.

    Raises:
      JSONError: it is not JSON, not UTF-8, nested too deeply, has a number of too many digits or beyond floating
        point, or text that cannot be encoded (a lone surrogate).
    """
    try:
        text = content.decode() if isinstance(content, bytes | bytearray | memoryview) else content
        value = (_LENIENT if allow_nan else _STRICT).decode(text.removeprefix(BYTE_ORDER_MARK))
        may_hold_surrogates = isinstance(content, str) or "\\ud" in text or "\\uD" in text
        _check_value(value, surrogates=may_hold_surrogates and not allow_surrogates)
    except UnicodeDecodeError as error:
        raise JSONError(where, f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise JSONError(where, f"not valid JSON ({error.msg} at character {error.pos})") from error
    except RecursionError as error:
        raise JSONError(where, f"not valid JSON (nested more than {DEEPEST_NESTING} levels deep)") from error
    except ValueError as error:
        raise JSONError(where, f"not valid JSON ({error})") from error
    return value


def read_json(path: epath.PathLike, max_bytes: int = LARGEST_FILE_BYTES, allow_nan: bool = False) -> Any:
    """Returns the value in a JSON file.

    Raises:
      JSONError: the file is larger than `max_bytes`, or as `parse_json`.
      UserError: it is missing or no regular file.
    """
    file = regular_file(path)
    size = file.stat().length
    if size > max_bytes:
        raise JSONError(str(file), f"{size} bytes long, more than the {max_bytes} that such a file may have")
    return parse_json(file.read_bytes(), str(file), allow_nan)


def read_json_object(path: epath.PathLike, max_bytes: int = LARGEST_FILE_BYTES, allow_nan: bool = False) -> dict:
    """Returns the object in a JSON file.

    Raises:
      JSONError: it holds another kind of value, or as `read_json`.
    """
    value = read_json(path, max_bytes, allow_nan)
    if not isinstance(value, dict):
        raise JSONError(str(path), f"a JSON {_name_of(value)} where an object is expected")
    return value


def parse_json_lines(lines: Iterable[bytes | str], where: str, allow_nan: bool = False) -> Iterator[tuple[int, Any]]:
    """Yields `(number, value)` of every line that is not blank, numbers counted from 1.

    Raises:
      JSONError: as `parse_json`; names the line.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, parse_json(line, f"{where}, line {number}", allow_nan)


def _name_of(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise _Refused(f"a number has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Refused(f"the number {digits[:LONGEST_NUMBER]} is beyond what floating point can hold")
    return value


def _no_number(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON number")


_STRICT = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_no_number)
_LENIENT = json.JSONDecoder(parse_int=_integer)


def _check_value(value: Any, surrogates: bool) -> None:
    """Raises ValueError or RecursionError for what parses and breaks later: deep nesting, text that has no encoding."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST_NESTING:
            raise RecursionError
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                if surrogates:
                    _check_texts(each)
                    _check_texts(each.values())
                below.extend(child for child in each.values() if isinstance(child, dict | list))
            elif isinstance(each, list):
                if surrogates:
                    _check_texts(each)
                below.extend(child for child in each if isinstance(child, dict | list))
            elif surrogates:
                _check_texts([each])
        level = below


def _check_texts(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                found = f"\\u{ord(value[error.start]):04x}"
                raise _Refused(f"it holds half of a surrogate pair ({found}), which is no text") from error

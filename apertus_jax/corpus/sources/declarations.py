"""Consent declarations in a row, in any column and form: all count, none hides another.

Licences stand in one column or in several, as a text, a list or an object; the address and the rest stand in the row
or, as many crawls write them, in its `metadata`; headers are a mapping, pairs, objects of name and value, or text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from apertus_jax.corpus.sources.quarantine import QuarantineReason, Unusable
from apertus_jax.corpus.sources.source import Source, column_key
from apertus_jax.corpus.web.http_messages import parse_fields
from apertus_jax.storage.json_reader import JSONError, parse_json

MAX_NESTED = 4
_NAMES, _VALUES = ("name", "key"), ("value", "content", "values")


def consent_fields(fields: Mapping[str, Any], source: Source) -> list[tuple[str, Any]]:
    """Returns (column, value) of what a row, and the metadata in it, holds under a name that says something of consent.

    Names are compared without case, and `-` is `_`; the row's own values come first.
    """
    wanted, metadata = source.consent_columns, column_key(source.metadata_field)
    found, nested = [], []
    for name, value in fields.items():
        if value is None or value == "":
            continue
        key = column_key(name)
        if key in wanted:
            found.append((key, value))
        elif key == metadata:
            nested.append(value)
    for value in nested:
        if isinstance(value, str) and value.lstrip()[:1] == "{":
            value = parsed(value, source.metadata_field)
        if isinstance(value, (list, tuple)) and value and all(isinstance(each, (list, tuple)) for each in value):
            value = dict(each for each in value if len(each) == 2 and isinstance(each[0], str))
        if isinstance(value, Mapping):
            pairs = ((column_key(str(name)), each) for name, each in value.items())
            found += [(key, each) for key, each in pairs if key in wanted and each is not None and each != ""]
    return found


def parsed(text: str, column: str) -> Any:
    """Returns the value of a column that holds JSON as text.

    Raises:
      Unusable: it holds none.
    """
    try:
        return parse_json(text, column, allow_nan=True, allow_surrogates=True)
    except JSONError:
        raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is not JSON") from None


def licence_declaration(values: Iterable[tuple[str, Any]]) -> str:
    """Returns all that some columns declare as a licence: one text as it is, several as a JSON list of texts.

    Raises:
      Unusable: a value is nothing that a licence can be written as.
    """
    found = dict.fromkeys(text for column, value in values for text in _texts(value, column, MAX_NESTED) if text)
    return next(iter(found), "") if len(found) < 2 else json.dumps(list(found), ensure_ascii=False)


def _texts(value: Any, column: str, depth: int) -> Iterator[str]:
    """Yields the texts of a value, and of the lists and objects in it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None:
        return
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, (list, tuple, Mapping)) and depth:
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each, column, depth - 1)
    else:
        raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is a {type(value).__name__}")


def signal_pairs(value: Any, column: str) -> Iterator[tuple[str, str]]:
    """Yields (name, value) of headers or tags: a mapping, pairs, objects of name and value, JSON, or header lines.

    A value may be a list; None says nothing.

    Raises:
      Unusable: it is none of these.
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        is_json = value.lstrip()[:1] in ("{", "[")
        value = parsed(value, column) if is_json else parse_fields(value.encode("utf-8", "surrogatepass"))
        if not value and not is_json:
            raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is a str that holds no headers")
    if not isinstance(value, (Mapping, list, tuple)):
        raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is a {type(value).__name__}")
    for entry in value.items() if isinstance(value, Mapping) else value:
        if type(entry) is tuple and len(entry) == 2 and type(entry[0]) is str and type(entry[1]) is str:
            yield entry  # as nearly all are
            continue
        for name, contents in _entry(entry, column):
            for content in contents if isinstance(contents, (list, tuple)) else (contents,):
                if isinstance(content, bytes):
                    content = content.decode("utf-8", "replace")
                if content is None:
                    continue
                if isinstance(content, bool) or not isinstance(content, (str, int)):
                    raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} holds a {type(content).__name__}")
                yield name, str(content)


def _entry(entry: Any, column: str) -> list[tuple[str, Any]]:
    """Returns the names of an entry with their values."""
    if isinstance(entry, str):
        pairs: list = parse_fields(entry.encode("utf-8", "surrogatepass"))
    elif isinstance(entry, Mapping):
        keys = {str(key).lower(): key for key in entry}
        name = next((entry[keys[key]] for key in _NAMES if key in keys), None)
        content = next((entry[keys[key]] for key in _VALUES if key in keys), None)
        pairs = list(entry.items()) if name is None else [(name, content)]
    else:
        pairs = [tuple(entry)] if isinstance(entry, (list, tuple)) and len(entry) == 2 else []
    named = [(name.decode("latin-1") if isinstance(name, bytes) else name, content) for name, content in pairs]
    if not named or not all(isinstance(name, str) for name, _ in named):
        raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is not a list of names and values")
    return named

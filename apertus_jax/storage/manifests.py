"""Manifest checks: whether JSON from others has the fields and types that its readers use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from apertus_jax.errors import UserError

STRANGE_VALUES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
LARGEST_COUNT = 2**63 - 1
NAMES = {str: "a text", int: "a whole number from 0", dict: "an object", list: "a list", bool: "true or false"}


def require_fields(values: Any, fields: Mapping[str, type], where: str) -> None:
    """Checks that a JSON object has fields of these kinds; other fields are left alone.

    Args:
      values: the object.
      fields: name → str, int (a count: whole, not negative, at most 63 bits), dict, list or bool.
      where: names the object in errors.

    Raises:
      UserError: it is no object, or a field is missing or of another kind; one line names it.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is no JSON object; restore it, or run the command that writes it again")
    for name, kind in fields.items():
        if name not in values:
            raise UserError(f"{where} lacks {name!r}; restore it, or run the command that writes it again")
        value = values[name]
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not fits or (kind is int and not 0 <= value <= LARGEST_COUNT):
            shown = f"{value!r}" if not isinstance(value, int) or value.bit_length() < 99 else "a huge number"
            shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
            raise UserError(f"{where} has {name} = {shown} where {NAMES[kind]} is expected; restore it")


@contextlib.contextmanager
def values_of(place: Any, kind: str) -> Iterator[None]:
    """For the block that makes something of what is written in a place: values of another kind are told as damage.

    Digests can be remade by whoever changes what they are of; then anything may stand where a number was.

    Raises:
      UserError: the block could not make anything of a value.
    """
    try:
        yield
    except UserError:
        raise
    except STRANGE_VALUES as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"{place} holds values of another kind than a {kind} has ({type(error).__name__}: {reason}); restore it, "
            "or run the command that writes it again"
        ) from error

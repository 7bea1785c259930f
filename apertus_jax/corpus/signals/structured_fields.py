"""Dictionaries of HTTP structured fields (RFC 9651 §3.2), read strictly: a field that fails to parse says nothing."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from typing import Any

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_DISPLAY_STRING = re.compile(r'%"((?:[ !#$&-~]|%[0-9a-f]{2})*)"')
_BYTES = re.compile(r":([A-Za-z0-9+/=]*):")
_BOOLEAN = re.compile(r"\?([01])")
_DATE = re.compile(r"@(-?[0-9]{1,15})(?![0-9.])")
_SPACES = re.compile(r" *")
_OPTIONAL_WHITESPACE = re.compile(r"[ \t]*")


class Token(str):
    """A bare word, which is not the same as a quoted string of the same letters."""

    __slots__ = ()


def parse_dictionary(text: str) -> dict[str, Any]:
    """Returns the members of a dictionary; parameters are checked and dropped, a repeated key keeps its last value.

    Values are int, float, str, Token, bytes, bool, or a list of these (inner list); dates are int.

    Raises:
      ValueError: the field does not parse, so all of it must be ignored (RFC 9651 §4.2).
    """
    return dict(parse_members(text))


def parse_members(text: str) -> list[tuple[str, Any]]:
    """Returns the members of a dictionary in their order, each that is given again as often as it is given.

    Raises:
      ValueError: the field does not parse.
    """
    return _Parser(text.strip(" ")).dictionary()


class _Parser:
    """A cursor over the text; each method reads one production and moves on."""

    def __init__(self, text: str):
        self._text, self._at = text, 0

    def dictionary(self) -> list[tuple[str, Any]]:
        members: list[tuple[str, Any]] = []
        while self._at < len(self._text):
            key = self._take(_KEY, "a key").group()
            if self._skip("="):
                members.append((key, self._inner_list() if self._peek() == "(" else self._bare_item()))
            else:
                members.append((key, True))
            self._parameters()
            self._take(_OPTIONAL_WHITESPACE)
            if self._at == len(self._text):
                break
            if not self._skip(","):
                raise ValueError(f"no comma at character {self._at}")
            self._take(_OPTIONAL_WHITESPACE)
            if self._at == len(self._text):
                raise ValueError("a comma at the end")
        return members

    def _inner_list(self) -> list[Any]:
        self._at += 1
        items: list[Any] = []
        while True:
            self._take(_SPACES)
            if self._skip(")"):
                return items
            items.append(self._bare_item())
            self._parameters()
            if self._peek() not in (" ", ")"):
                raise ValueError(f"an inner list is not closed at character {self._at}")

    def _parameters(self) -> None:
        while self._skip(";"):
            self._take(_SPACES)
            self._take(_KEY, "a parameter")
            if self._skip("="):
                self._bare_item()

    def _bare_item(self) -> Any:
        first = self._peek()
        if first == '"':
            return re.sub(r"\\(.)", r"\1", self._take(_STRING, "a string").group(1))
        if first == "?":
            return self._take(_BOOLEAN, "a boolean").group(1) == "1"
        if first == "@":
            return int(self._take(_DATE, "a date").group(1))
        if first == ":":
            return self._bytes()
        if first == "%":
            return self._display_string()
        if first and first in "-0123456789":
            return self._number()
        return Token(self._take(_TOKEN, "a value").group())

    def _number(self) -> int | float:
        text = self._take(_NUMBER, "a number").group()
        whole, point, fraction = text.lstrip("-").partition(".")
        if not point and len(whole) <= 15:
            return int(text)
        if point and len(whole) <= 12 and 1 <= len(fraction) <= 3:
            return float(text)
        raise ValueError(f"a number out of range before character {self._at}")

    def _bytes(self) -> bytes:
        text = self._take(_BYTES, "a byte sequence").group(1)
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4))
        except binascii.Error as error:
            raise ValueError(str(error)) from error

    def _display_string(self) -> str:
        text = self._take(_DISPLAY_STRING, "a display string").group(1)
        return urllib.parse.unquote(text, errors="strict")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _take(self, pattern: re.Pattern[str], what: str = "") -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"no {what.removeprefix('a ')} at character {self._at}")
        self._at = found.end()
        return found

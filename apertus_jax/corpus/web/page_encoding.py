"""Encoding detection of a page: byte order mark, HTTP header, meta tag, then the bytes themselves.

The order is that of browsers (HTML Standard, "determining the character encoding"). Beyond it, text that is not what it
is declared as but is valid UTF-8 is read as such.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.web import encodings
from apertus_jax.corpus.web.encodings import UTF_8, UTF_16BE, UTF_16LE

MAX_REPLACED = 0.001  # share of characters that may be unreadable under the declared encoding
PRESCAN_BYTES = 1 << 14  # the standard asks for 1,024; browsers go on while the head does
LONGEST_ATTRIBUTES = 4096

_CONTROLS = re.compile("[\x80-\x9f]")
_ESCAPE = b"\x1b"
_DETECTED = {"cp949": "euc-kr", "mac-cyrillic": "x-mac-cyrillic", "mac-roman": "macintosh"}  # names that are no labels
_XML = re.compile(rb"<\?xml\b[^>]{0,512}?\bencoding[ \t\r\n]*=[ \t\r\n]*(?:\"([^\"<>]{1,64})\"|'([^'<>]{1,64})')")
_SKIPPED = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|title|textarea|noscript)\b.*?(?:</\1\b|\Z)", re.IGNORECASE | re.DOTALL
)
_META = re.compile(rb"<meta[\s/]((?:[^>\"']|\"[^\"]*\"|'[^']*'){1,%d}+)" % LONGEST_ATTRIBUTES, re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"([^\s\"'>/=]+)\s*(?:=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+)))?")
_CONTENT_CHARSET = re.compile(r"charset\s*=\s*(?:\"([^\"]+)\"|'([^']+)'|([^\s;\"']+))", re.IGNORECASE)


def decode_page(body: bytes, charset: str, is_html: bool) -> str | None:
    """Returns the text of a body, malformed sequences as U+FFFD; None if it is in no encoding that anything suggests.

    Args:
      body: content and transfer codings undone.
      charset: what the header says, or nothing.
      is_html: whether the page itself may say it, in a meta element or an XML declaration.
    """
    marked = encodings.byte_order_mark(body)
    if marked is not None:
        mark, encoding = marked
        return _accepted(*encodings.decode(body[len(mark) :], encoding))
    declared = encodings.find_encoding(charset.strip()) if charset else None
    if declared is None and is_html:
        declared = encoding_in_page(body)
    if declared in (None, UTF_8):
        text = _strict_utf_8(body)
        if text is not None and (declared or not (_ESCAPE in body or "\0" in text)):
            return text
    if declared is None:
        return _guessed(body)
    if declared == encodings.REPLACEMENT:
        return None
    if declared in (UTF_16LE, UTF_16BE) and b"\0" not in body and (text := _strict_utf_8(body)) is not None:
        return text  # mistaken, for in UTF-16 no markup and hardly any text is without NULs
    text, malformed = encodings.decode(body, declared)
    if malformed or _CONTROLS.search(text):
        # Free places of the table, or control characters that nobody writes: perhaps the declaration is wrong.
        actual = _strict_utf_8(body)
        if actual is not None and not body.isascii() and "\0" not in actual:
            return actual
    if not malformed:
        return text
    return _accepted(text, malformed) or _guessed(body, encoding_in_page(body) if is_html else None)


def encoding_in_page(body: bytes) -> str | None:
    """Returns the encoding that an HTML page declares in a meta element near its beginning, or in an XML declaration.

    A page that can be read so far is not in UTF-16, and x-user-defined is for scripts: these stand for what they are.
    """
    head = body[:PRESCAN_BYTES]
    if head.startswith(b"<\0?\0x\0"):
        return UTF_16LE
    if head.startswith(b"\0<\0?\0x"):
        return UTF_16BE
    declaration = _XML.match(head)
    for match in _META.finditer(_SKIPPED.sub(b"", head)):
        found = _encoding_of_meta(match.group(1))
        if found is not None:
            return found
    return _of_ascii_text((declaration.group(1) or declaration.group(2)).decode("latin-1")) if declaration else None


def _encoding_of_meta(attributes: bytes) -> str | None:
    """Returns the encoding that the attributes of a meta element declare; of repeated attributes the first counts."""
    values: dict[str, str] = {}
    for name, *spellings in _ATTRIBUTE.findall(attributes):
        values.setdefault(name.decode("latin-1").lower(), next(filter(None, spellings), b"").decode("latin-1"))
    if values.get("charset"):
        return _of_ascii_text(values["charset"])
    if values.get("http-equiv", "").strip().lower() == "content-type":
        match = _CONTENT_CHARSET.search(values.get("content", ""))
        return _of_ascii_text(next(filter(None, match.groups()))) if match else None
    return None


def _of_ascii_text(label: str) -> str | None:
    """Returns the encoding for a label that was read out of text that looks like ASCII."""
    found = encodings.find_encoding(label.strip())
    if found in (UTF_16LE, UTF_16BE):
        return UTF_8
    return "windows-1252" if found == "x-user-defined" else found


def _strict_utf_8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _accepted(text: str, malformed: int) -> str | None:
    """Returns a text unless too much of it could not be read."""
    return text if malformed <= MAX_REPLACED * len(text) else None


def _guessed(body: bytes, second: str | None = None) -> str | None:
    """Returns the text of a body by a second declaration or by the look of its bytes, or None.

    A guess must fit to the last byte and leave no control characters, for tables of single bytes fit everything.
    """
    for suggest in (lambda _: second, encodings.utf16_without_mark, _japanese_escapes, lambda _: UTF_8, _looks_like):
        encoding = suggest(body)
        if encoding is not None:
            text, malformed = encodings.decode(body, encoding)
            if not malformed and not _CONTROLS.search(text):
                return text
    return _accepted(*encodings.decode(body, UTF_8))


def _japanese_escapes(body: bytes) -> str | None:
    return "iso-2022-jp" if b"\x1b$B" in body or b"\x1b$@" in body else None


def _looks_like(body: bytes) -> str | None:
    """Returns the encoding that statistics of the bytes suggest."""
    from resiliparse.parse.encoding import detect_encoding

    name = (detect_encoding(body, html5_compatible=False) or "").lower().replace("_", "-")
    return encodings.find_encoding(_DETECTED.get(name, name))

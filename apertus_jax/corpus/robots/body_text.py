"""Decoding of robots.txt bodies into the UTF-8 that RFC 9309 §2.3 asks for, from any Unicode encoding."""

from __future__ import annotations

from apertus_jax.corpus.web import encodings

_UTF_32 = ((b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be"))
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF_8_MARK, _UTF_7_MARK = b"\xef\xbb\xbf", b"+/v"


def decode_wide(body: bytes) -> tuple[bytes, bool] | None:
    """Returns a body in UTF-16 or UTF-32 as UTF-8 without its mark, and whether all of it could be read; else None.

    Both are known by their marks, UTF-16 also by its NULs.
    """
    if b"\0" not in body and not body.startswith(_WIDE_MARKS):
        return None
    for mark, codec in _UTF_32:
        if body.startswith(mark) and len(body) >= 8:
            text = body[len(mark) :].decode(codec, "replace")
            return text.encode(), encodings.REPLACEMENT_CHARACTER not in text
    mark, encoding = encodings.byte_order_mark(body) or (b"", encodings.utf16_without_mark(body))
    if encoding in (None, encodings.UTF_8):
        return None
    content = body[len(mark) :]
    text, malformed = encodings.decode(content, encoding)
    # An odd number of bytes is a character that was cut, as at the end of a body that is too long.
    return text.removeprefix("\ufeff").encode(), malformed <= len(content) % 2


def utf8_body(body: bytes) -> tuple[bytes, bool]:
    """Returns a body in UTF-8 without byte order marks and NULs, and whether it is the text that somebody wrote.

    What cannot be read is not given up: a rule that can be found in it still counts. Encodings other than those of
    Unicode keep their octets, which rules compare as they are.
    """
    body, is_sound = decode_wide(body) or (body, not body.startswith(_UTF_7_MARK))
    # Around a text NULs are padding, inside it something else was meant.
    body = body.strip(b"\0")
    is_sound, body = is_sound and b"\0" not in body, body.replace(b"\0", b"")
    while body.startswith(_UTF_8_MARK):
        body = body[len(_UTF_8_MARK) :]
    return body, is_sound

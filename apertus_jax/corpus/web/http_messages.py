"""HTTP responses as archives store them: status, header fields and body, whatever the line ends."""

from __future__ import annotations

import dataclasses
import re

_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(r"HTTP/\S+[ \t]+(\d{3})(?!\S)", re.ASCII | re.IGNORECASE)
_CHARSET = re.compile(r"(?:^|[;,\s])charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
MAX_INTERIM_RESPONSES = 8


@dataclasses.dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A response; field names are in lower case and stand in the order of the message, each as often as in it."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def field(self, name: str) -> str:
        """Returns the first value of a field, or nothing."""
        return next((value for each, value in self.fields if each == name), "")


def parse_response(block: bytes) -> HTTPResponse | None:
    """Returns the response in the block of a record, interim ones (status 1xx) passed over; None when it is none."""
    for _ in range(MAX_INTERIM_RESPONSES):
        head, body = split_head(block)
        status_line, _, rest = head.lstrip(b"\r\n").partition(b"\n")
        status = _STATUS_LINE.match(_text(status_line))
        if status is None:
            return None
        code = int(status.group(1))
        if not (100 <= code < 200 and body[:5].upper() == b"HTTP/"):
            return HTTPResponse(code, tuple(parse_fields(rest)), body)
        block = body
    return None


def split_head(block: bytes) -> tuple[bytes, bytes]:
    """Returns what stands before and behind the first empty line."""
    end = _END_OF_HEADER.search(block)
    return (block, b"") if end is None else (block[: end.start()], block[end.end() :])


def parse_fields(head: bytes) -> list[tuple[str, str]]:
    """Returns the fields of a header, names in lower case; a line that begins with a blank continues the one before."""
    fields: list[tuple[str, str]] = []
    for line in head.split(b"\n"):
        text = _text(line.rstrip(b"\r"))
        if text[:1] in (" ", "\t") and fields:
            name, value = fields[-1]
            fields[-1] = name, f"{value} {text.strip()}".strip()
            continue
        name, colon, value = text.partition(":")
        if colon:
            fields.append((name.strip().lower(), value.strip()))
    return fields


def charset_of(content_type: str) -> str:
    """Returns the charset parameter of a content type, or nothing."""
    match = _CHARSET.search(content_type)
    return match.group(1) if match else ""


def _text(line: bytes) -> str:
    """Returns a line of a header: UTF-8 where it is, else one character for each octet."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")

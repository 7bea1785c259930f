"""Web encodings (WHATWG Encoding Standard): labels, and decoders that read every byte as browsers do.

Python's codecs of the same names are narrower or differ here and there, so decoders are made of them with the
corrections of `encoding_tables`; labels are those of the package webencodings. A sequence that has no character becomes
U+FFFD and is counted, and a byte of ASCII inside it is read again, so that no markup is swallowed.
"""

from __future__ import annotations

import codecs
import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

from apertus_jax.corpus.web.encoding_tables import (
    CODECS,
    CORRECTIONS,
    SINGLE_BYTES,
    WITH_CONTROLS,
    doubtful_characters,
)

UTF_8, UTF_16LE, UTF_16BE, REPLACEMENT = "utf-8", "utf-16le", "utf-16be", "replacement"
BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", UTF_8), (b"\xff\xfe", UTF_16LE), (b"\xfe\xff", UTF_16BE))
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
# Stands for a malformed sequence until it is counted: no decoder gives half a surrogate pair.
_MALFORMED = "\udcff"
_LONGEST_LABEL = 64
_TOKENS_AT_ONCE = 1 << 16
_SAMPLE = 1 << 12

# One alternative for ASCII, then what the standard takes as one sequence, well-formed or not; `\Z` where the text ends.
_SEQUENCES = {
    "big5": rb"[\x00-\x7f]+|[\x81-\xfe](?:.|\Z)|.",
    "euc-jp": rb"[\x00-\x7f]+|\x8f[\xa1-\xfe](?:.|\Z)|[\x8e\x8f\xa1-\xfe](?:.|\Z)|.",
    "euc-kr": rb"[\x00-\x7f]+|[\x81-\xfe](?:.|\Z)|.",
    "gb18030": rb"[\x00-\x7f]+|[\x81-\xfe](?:[0-9](?:[\x81-\xfe](?:[0-9]|\Z)|\Z)|[^0-9]|\Z)|.",
    "shift_jis": rb"[\x00-\x80]+|[\x81-\x9f\xe0-\xfc](?:.|\Z)|.",
}
_TWO_BYTES_OF_JIS = rb"[\x21-\x7e](?:.|\Z)|."
_ESCAPES = {b"\x1b(B": "ascii", b"\x1b(J": "roman", b"\x1b(I": "katakana", b"\x1b$@": "jis", b"\x1b$B": "jis"}
_RUNS = re.compile(rb"\x1b\([BJI]|\x1b\$[@B]|\x1b|[^\x1b]+")


def find_encoding(label: str) -> str | None:
    """Returns the name of the encoding that a label stands for (lower case), or None."""
    return _encoding_of_label(label) if len(label) <= _LONGEST_LABEL and label.isascii() else None


@functools.lru_cache(maxsize=1024)
def _encoding_of_label(label: str) -> str | None:
    import webencodings

    found = webencodings.lookup(label)
    return found.name.lower() if found is not None else None


def decode(body: bytes, encoding: str) -> tuple[str, int]:
    """Returns the text of bytes in an encoding (a name from `find_encoding`), and how many sequences had no character.

    A byte order mark is a character here like any other.
    """
    if encoding == UTF_8:
        try:
            return body.decode(), 0
        except UnicodeDecodeError:
            text = body.decode(errors="replace")
            return text, text.count(REPLACEMENT_CHARACTER) - body.count(REPLACEMENT_CHARACTER.encode())
    text = _decoder(encoding)(body)
    malformed = text.count(_MALFORMED)
    return text.replace(_MALFORMED, REPLACEMENT_CHARACTER) if malformed else text, malformed


def byte_order_mark(body: bytes) -> tuple[bytes, str] | None:
    """Returns the mark at the beginning of bytes and its encoding, or None."""
    return next(((mark, encoding) for mark, encoding in BYTE_ORDER_MARKS if body.startswith(mark)), None)


def utf16_without_mark(body: bytes) -> str | None:
    """Returns the byte order of UTF-16 whose NULs give it away: of each two bytes nearly always the same is NUL."""
    sample = body[: min(len(body), _SAMPLE) & ~1]
    if len(sample) < 4 or sample.count(0) * 4 < len(sample):
        return None
    first, second = sample[0::2].count(0), sample[1::2].count(0)
    if min(first, second) * 8 > max(first, second):
        return None
    return UTF_16BE if first > second else UTF_16LE


def _replaced(error: Any) -> tuple[str, int]:
    """Error handler of a codec: one sign for what is malformed."""
    return _MALFORMED, error.end


@functools.cache
def _decoder(encoding: str) -> Callable[[bytes], str]:
    """Returns the decoder of an encoding."""
    if encoding in (UTF_16LE, UTF_16BE):
        codecs.register_error("apertus_jax.malformed", _replaced)
        return lambda body: body.decode(encoding[:6] + "-" + encoding[6:], "apertus_jax.malformed")
    if encoding == REPLACEMENT:
        return lambda body: _MALFORMED if body else ""
    if encoding == "iso-2022-jp":
        return _decode_iso_2022_jp
    encoding = "gb18030" if encoding == "gbk" else encoding
    if encoding in _SEQUENCES:
        return _SequenceDecoder(encoding)
    table = _single_bytes(encoding)
    return lambda body: codecs.charmap_decode(body, "strict", table)[0]


def _single_bytes(encoding: str) -> str:
    """Returns the 256 characters of a table of single bytes."""
    if encoding == "x-user-defined":
        return "".join(chr(byte if byte < 0x80 else 0xF700 + byte) for byte in range(256))
    codec, corrections = CODECS.get(encoding, encoding), SINGLE_BYTES.get(encoding, {})
    characters = []
    for byte in range(256):
        free = chr(byte) if 0x80 <= byte < 0xA0 and encoding.startswith(WITH_CONTROLS) else _MALFORMED
        characters.append(corrections.get(byte) or _by_codec(bytes((byte,)), codec) or free)
    return "".join(characters)


def _by_codec(sequence: bytes, codec: str) -> str | None:
    """Returns what one of Python's codecs makes of a sequence, or None."""
    try:
        return sequence.decode(codec)
    except UnicodeDecodeError:
        return None


class _SequenceDecoder:
    """Decodes sequences of several bytes: with Python's codec where it is right, else one by one."""

    def __init__(self, encoding: str):
        self._codec = CODECS[encoding]
        self._doubtful = re.compile(f"[{doubtful_characters(encoding)}]") if doubtful_characters(encoding) else None
        # Corrections of what a codec takes for ASCII could not be told from ASCII afterwards.
        self._hidden = [each for each in CORRECTIONS[encoding] if (_by_codec(each, self._codec) or "\x80") < "\x80"]
        self._pattern, self._table = re.compile(_SEQUENCES[encoding], re.DOTALL), _Sequences(encoding)

    def __call__(self, body: bytes) -> str:
        text = _by_codec(body, self._codec)
        is_right = text is not None and (self._doubtful is None or self._doubtful.search(text) is None)
        if text is not None and is_right and not any(sequence in body for sequence in self._hidden):
            return text
        return _decode_sequences(self._pattern, self._table, body)


def _decode_sequences(pattern: re.Pattern[bytes], table: dict[bytes, str], body: bytes) -> str:
    """Cuts bytes into sequences and puts their characters together, a bounded number at once."""
    found = map(re.Match.group, pattern.finditer(body))
    pieces: list[str] = []
    while batch := list(itertools.islice(found, _TOKENS_AT_ONCE)):
        pieces.append("".join(map(table.__getitem__, batch)))
    return "".join(pieces)


class _Sequences(dict[bytes, str]):
    """Sequence → its characters, in a table that fills itself with those that occur; runs of ASCII are not kept."""

    def __init__(self, encoding: str):
        super().__init__(CORRECTIONS.get(encoding, {}))
        self._encoding = encoding
        self._codec = CODECS.get(encoding, encoding)

    def __missing__(self, sequence: bytes) -> str:
        if sequence[0] <= 0x80 and not (sequence[0] == 0x80 and self._encoding != "shift_jis"):
            return sequence.decode("latin-1")
        characters = self._characters(sequence) or self._malformed(sequence)
        if len(sequence) < 4:  # of the long ones there are a million
            self[sequence] = characters
        return characters

    def _characters(self, sequence: bytes) -> str | None:
        """Returns the characters of a sequence, or None where the standard has none."""
        if self._encoding == "shift_jis" and len(sequence) == 1:
            return chr(0xFEC0 + sequence[0]) if 0xA1 <= sequence[0] <= 0xDF else None
        if self._encoding == "euc-jp" and sequence[0] != 0x8F:
            if sequence[0] == 0x8E:
                return chr(0xFEC0 + sequence[1]) if sequence[1:] and 0xA1 <= sequence[1] <= 0xDF else None
            return _jis(sequence[0] - 0xA1, sequence[1] - 0xA1) if sequence[1:] else None
        return _by_codec(sequence, self._codec)

    def _malformed(self, sequence: bytes) -> str:
        """Returns the mark of a malformed sequence, and its last byte where that is ASCII and did not belong to it."""
        is_number = self._encoding == "gb18030" and sequence[1:] and 0x30 <= sequence[1] <= 0x39
        return _MALFORMED if is_number or sequence[-1] >= 0x80 else _MALFORMED + chr(sequence[-1])


def _jis(row: int, cell: int) -> str | None:
    """Returns the character of a place in JIS X 0208 with the rows of NEC and IBM, both from 0; None if it is free."""
    if not (0 <= row < 94 and 0 <= cell < 94):
        return None
    lead, trail = divmod(row * 94 + cell, 188)
    lead += 0x81 if lead < 0x1F else 0xC1
    trail += 0x40 if trail < 0x3F else 0x41
    return _by_codec(bytes((lead, trail)), CODECS["shift_jis"])


class _TwoBytesOfJIS(dict[bytes, str]):
    """Two bytes of ISO-2022-JP → the character; a sequence that is none takes both bytes with it."""

    def __missing__(self, sequence: bytes) -> str:
        place = [byte - 0x21 for byte in sequence]
        self[sequence] = (_jis(*place) if len(place) == 2 else None) or _MALFORMED
        return self[sequence]


@functools.cache
def _iso_2022_jp() -> dict[str, Callable[[bytes], str]]:
    """Returns the decoders of the parts between escape sequences."""
    shifts = b"\x0e\x0f\x1b"
    ascii_table = "".join(_MALFORMED if byte in shifts or byte > 0x7F else chr(byte) for byte in range(256))
    roman = ascii_table.translate({0x5C: "\N{YEN SIGN}", 0x7E: "\N{OVERLINE}"})
    katakana = "".join(chr(0xFF40 + byte) if 0x21 <= byte <= 0x5F else _MALFORMED for byte in range(256))
    two_bytes = re.compile(_TWO_BYTES_OF_JIS, re.DOTALL), _TwoBytesOfJIS()
    tables = {"ascii": ascii_table, "roman": roman, "katakana": katakana}
    by_table = {name: functools.partial(_by_table, table) for name, table in tables.items()}
    return {**by_table, "jis": functools.partial(_decode_sequences, *two_bytes)}


def _by_table(table: str, run: bytes) -> str:
    return codecs.charmap_decode(run, "strict", table)[0]


def _decode_iso_2022_jp(body: bytes) -> str:
    """Decodes ISO-2022-JP; an escape sequence with nothing behind it but another counts as malformed."""
    decoders, state = _iso_2022_jp(), "ascii"
    pieces: list[str] = []
    is_idle = False
    for run in map(re.Match.group, _RUNS.finditer(body)):
        if run in _ESCAPES:
            if is_idle:
                pieces.append(_MALFORMED)
            state, is_idle = _ESCAPES[run], True
            continue
        is_idle = False
        pieces.append(_MALFORMED if run == b"\x1b" else decoders[state](run))
    return "".join(pieces)

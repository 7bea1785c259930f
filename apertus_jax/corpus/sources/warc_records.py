"""WARC records (ISO 28500), framed here so that a damaged one does not take the rest with it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from apertus_jax.corpus.sources.quarantine import QuarantineReason, Unusable
from apertus_jax.corpus.sources.streams import Damage
from apertus_jax.corpus.web.http_messages import parse_fields

LONGEST_HEADER = 1 << 16
MARKER = b"WARC/"
END_OF_RECORD = b"\r\n\r\n"
# All versions frame records alike; 0.17 and 0.18 are drafts of the standard that archives of 2008 and 2009 are in.
_FIRST_LINE = re.compile(rb"WARC/\d\.\d{1,2}[ \t]*\r?\n")
_LONGEST_FIRST_LINE = 16
_END_OF_HEADER = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_NEXT = re.compile(rb"[\r\n]WARC/\d\.\d{1,2}[ \t]*\r?\n")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A record: its header fields (names in lower case), its block, and how long the block is if it was cut."""

    fields: tuple[tuple[str, str], ...]
    block: bytes
    length: int

    def field(self, name: str) -> str:
        """Returns the first value of a field, or nothing."""
        return next((value for each, value in self.fields if each == name), "")

    @property
    def kind(self) -> str:
        """The type of the record in lower case."""
        return self.field("warc-type").lower()

    @property
    def target(self) -> str:
        """The address that the record is about; some writers put it into angle brackets."""
        return self.field("warc-target-uri").strip("<> ")

    @property
    def is_http(self) -> bool:
        """Whether the block is a message of HTTP."""
        return self.field("content-type").lower().startswith("application/http")


class _Buffer:
    """The bytes of a stream that were not looked at yet; `damage` is what keeps more from coming for now."""

    def __init__(self, chunks: Iterator[bytes | Damage]):
        self._chunks = chunks
        self.content = bytearray()
        self.damage: Damage | None = None

    def fill(self, size: int) -> bool:
        """Reads until `size` bytes are there; returns whether they are."""
        while len(self.content) < size and self.damage is None:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            if isinstance(chunk, Damage):
                self.damage = chunk
            else:
                self.content += chunk
        return len(self.content) >= size

    def pass_damage(self) -> Damage | None:
        """Forgets what stands before the damage that was met, so that reading goes on behind it; returns the damage."""
        damage, self.damage = self.damage, None
        if damage is not None:
            self.content.clear()
        return damage

    def skip(self, size: int) -> bool:
        """Passes over `size` bytes without holding them; returns whether there were so many."""
        while size > len(self.content):
            size -= len(self.content)
            self.content.clear()
            if not self.fill(1):
                return False
        del self.content[:size]
        return True

    def skip_to_record(self, start: int) -> bool:
        """Passes over bytes until a record begins, looking from `start` on; returns whether one does."""
        while True:
            match = _NEXT.search(self.content, start)
            if match is not None:
                del self.content[: match.start() + 1]
                return True
            del self.content[: max(len(self.content) - _LONGEST_FIRST_LINE, 0)]
            start = 0
            if not self.fill(len(self.content) + 1):
                self.content.clear()
                return False


def cut_records(
    chunks: Iterator[bytes | Damage], longest: int, kept: int | None = None
) -> Iterator[Record | Damage | Unusable]:
    """Yields whole records; in the place of a record that is not whole, what is wrong with it.

    A record must be followed by another or by the end; if not, its length is wrong and reading goes on at the next
    thing that looks like a beginning.

    Args:
      longest: a record with a longer block is unusable.
      kept: gives of each block only so many bytes, so that a longer one can be passed over and yet be used.
    """
    buffer = _Buffer(chunks)
    while True:
        record = _next_record(buffer, longest, kept)
        if record is not None:
            yield record
        elif damage := buffer.pass_damage():
            yield damage
            buffer.content += b"\n"
            buffer.skip_to_record(0)
        else:
            return


def _next_record(buffer: _Buffer, longest: int, kept: int | None) -> Record | Unusable | None:
    """Returns the next record, what is wrong with it, or None where the stream ends or is damaged."""
    while buffer.fill(1) and buffer.content[0] in b"\r\n":
        del buffer.content[: len(buffer.content) - len(buffer.content.lstrip(b"\r\n"))]
    if not buffer.content:
        return None
    buffer.fill(LONGEST_HEADER)
    is_record = _FIRST_LINE.match(buffer.content) is not None
    found = _END_OF_HEADER.search(buffer.content, 0, LONGEST_HEADER) if is_record else None
    if found is None and len(buffer.content) < LONGEST_HEADER and (is_record or _may_begin(buffer.content)):
        # A header that the end, or the damage, cuts off.
        buffer.content.clear()
        return None if buffer.damage else Unusable(QuarantineReason.TRUNCATED_FILE, "the file ends inside a header")
    length = _LENGTH.search(buffer.content, 0, found.start() + 1) if found is not None else None
    if found is None or length is None:
        buffer.skip_to_record(1)
        return Unusable(QuarantineReason.DAMAGED_RECORD, "no header of a record with a length")
    fields = tuple(parse_fields(bytes(buffer.content[: found.start()]).partition(b"\n")[2]))
    header, block = found.end(), int(length.group(1))
    if kept is not None and block > kept:
        return _beginning(buffer, fields, header, block, kept)
    if block > longest:
        if not buffer.skip(header + block):
            return None if buffer.damage else Unusable(QuarantineReason.TRUNCATED_FILE, "ends inside a large record")
        return Unusable(QuarantineReason.RECORD_TOO_LARGE, f"more than {longest} bytes")
    if not buffer.fill(header + block):
        # Either the file ends too early or the length is wrong and the next records stand inside.
        if buffer.skip_to_record(header):
            return Unusable(QuarantineReason.DAMAGED_RECORD, "shorter than it says")
        return None if buffer.damage else Unusable(QuarantineReason.TRUNCATED_FILE, "the file ends inside a record")
    if not _is_followed_well(buffer, header + block):
        buffer.skip_to_record(header)
        return Unusable(QuarantineReason.DAMAGED_RECORD, "not as long as it says")
    record = Record(fields, bytes(buffer.content[header : header + block]), block)
    del buffer.content[: header + block]
    return record


def _beginning(
    buffer: _Buffer, fields: tuple[tuple[str, str], ...], header: int, block: int, kept: int
) -> Record | Unusable | None:
    """Returns a record with the first `kept` bytes of its block, the rest passed over."""
    whole = buffer.fill(header + kept)
    record = Record(fields, bytes(buffer.content[header : header + kept]), block)
    if not (whole and buffer.skip(header + block)):
        return None if buffer.damage else Unusable(QuarantineReason.TRUNCATED_FILE, "ends inside a large record")
    if not _is_followed_well(buffer, 0):
        return Unusable(QuarantineReason.DAMAGED_RECORD, "not as long as it says")
    return record


def _may_begin(content: bytearray) -> bool:
    """Returns whether bytes that end inside their first line may be the beginning of a record."""
    is_beginning = content.startswith(MARKER) or MARKER.startswith(content)
    return is_beginning and len(content) < _LONGEST_FIRST_LINE and b"\n" not in content


def _is_followed_well(buffer: _Buffer, size: int) -> bool:
    """Returns whether behind `size` bytes there is the end of the file or of a record."""
    buffer.fill(size + len(END_OF_RECORD) + len(MARKER))
    rest = bytes(buffer.content[size : size + len(END_OF_RECORD) + len(MARKER)])
    behind = rest.lstrip(b"\r\n")
    # Two line ends are what the standard wants; some writers leave one.
    return rest.startswith(END_OF_RECORD) or not behind or (behind != rest and behind.startswith(MARKER))

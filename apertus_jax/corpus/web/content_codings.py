"""Content and transfer codings of HTTP bodies (RFC 9110 §8.4, RFC 9112 §7), undone where they really apply.

Archives differ from the wire: many store bodies whose codings were undone, wholly or in part, under the headers that
announce them, and some servers code twice or announce nothing. So the bytes decide: each coding is undone where they
are in it, and what is left must look like text. Codings: gzip (also x-gzip, and several members), deflate (zlib, and
the raw form that some servers send), br, zstd, chunked, aws-chunked, and identity.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_LAYERS = 8
MAX_MEMBERS = 10_000
FIRST_SLICE, SLICE = 1 << 9, 1 << 14
ZSTANDARD_SLICE = 1 << 10  # the decoder cannot be told to stop, and one such slice expands to 32 MiB at most
ZSTANDARD_WINDOW = 1 << 27
SAMPLE = 1 << 16
TRUNCATED, DAMAGED = "ends before its end mark", "is damaged"

_NOTHING = frozenset(("", "identity", "none"))
_GZIP, _ZSTANDARD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
# Those of C0 that no text has; tabulators, line ends, Ctrl-Z and the shifts of ISO 2022 are left out.
_CONTROLS = bytes(sorted({*range(0x20)} - set(b"\t\n\v\f\r\x0e\x0f\x1a\x1b")))
_TEXTS_PER_CONTROL = 33  # bytes for each control character that a text may have; coded bytes have one in eleven
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,1024})?\r\n")


@dataclasses.dataclass(frozen=True, slots=True)
class Undone:
    """A body without its codings.

    `is_cut` says that more than the limit would come, `defect` why the body is not whole or no text; nothing if it is.
    """

    body: bytes
    is_cut: bool = False
    defect: str = ""

    @property
    def is_truncated(self) -> bool:
        """Whether the coded bytes are sound but end too early: `body` is the beginning of what they were."""
        return self.defect.endswith(TRUNCATED)


def announced_codings(fields: Iterable[tuple[str, str]]) -> list[str]:
    """Returns the codings that header fields (names in lower case) announce, the outermost last."""
    found: dict[str, list[str]] = {"content-encoding": [], "transfer-encoding": []}
    for name, value in fields:
        if name in found:
            found[name] += [coding.partition(";")[0].strip().lower() for coding in value.split(",")]
    return [coding for codings in found.values() for coding in codings if coding not in _NOTHING]


def undo_codings(body: bytes, announced: Sequence[str], limit: int) -> Undone:
    """Returns a body with its codings undone: those announced, from the last to the first, and gzip and zstd anyway.

    Args:
      body: as it was stored.
      announced: from `announced_codings`.
      limit: no more bytes than these are made in any step.
    """
    pending = list(announced)
    is_cut = False
    for _ in range(MAX_LAYERS):
        step = _outermost(body, pending, limit)
        if step is None:
            break
        body, is_cut = step.body, is_cut or step.is_cut
        if step.defect:
            return dataclasses.replace(step, is_cut=is_cut)
    else:
        return Undone(body, is_cut, f"more than {MAX_LAYERS} codings around each other")
    if pending and not looks_like_text(body):
        return Undone(body, is_cut, f"coding {pending[-1][:40]} cannot be undone")
    return Undone(body, is_cut)


def undo_unannounced(body: bytes, limit: int) -> Undone:
    """Returns a body that was saved without its header fields, with the codings undone that are in it.

    Brotli and deflate have no mark of their own, so they are tried where the bytes are no text otherwise.
    """
    undone = undo_codings(body, (), limit)
    if not looks_like_text(undone.body):
        for coding in ("br", "deflate"):
            tried = undo_codings(body, (coding,), limit)
            if not tried.defect and looks_like_text(tried.body):
                return tried
    return undone


def looks_like_text(body: bytes) -> bool:
    """Returns whether bytes may be text in any encoding of the web: hardly any control characters, or a mark."""
    sample = body[:SAMPLE]
    if sample.startswith(_MARKS):
        return True
    if not all((sample[0::2].strip(b"\0"), sample[1::2].strip(b"\0"))):
        sample = sample.replace(b"\0", b"")  # UTF-16 of western text without a mark
    return (len(sample) - len(sample.translate(None, _CONTROLS))) * _TEXTS_PER_CONTROL <= len(sample)


def _outermost(body: bytes, pending: list[str], limit: int) -> Undone | None:
    """Undoes the outermost coding that the bytes are in and takes it off the list; None when there is none."""
    for place in reversed(range(len(pending))):
        undo = _CODINGS.get(pending[place])
        step = undo(body, limit) if undo is not None else None
        if step is not None:
            del pending[place]
            return step
    if body.startswith((_GZIP, _ZSTANDARD)):
        return _undo_zlib(body, limit) or _undo_zstandard(body, limit)
    return None


def _is_plain(body: bytes) -> bool:
    """Returns whether bytes are plainly UTF-8 text: the codings that begin with no mark of their own were undone."""
    if body.translate(None, _CONTROLS) != body:
        return False
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _collect(pieces: Iterator[bytes], limit: int) -> Undone:
    """Joins pieces up to a limit; an error of the decoder behind them, or an early end, becomes the defect."""
    kept: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            kept.append(piece)
            size += len(piece)
            if size > limit:
                return Undone(b"".join(kept)[:limit], is_cut=True)
    except _Ends as end:
        return Undone(b"".join(kept), defect=f"the coded body {end}")
    return Undone(b"".join(kept))


class _Ends(Exception):
    """A decoder cannot go on; says how the coded bytes end."""


def _unless_guessed(step: Undone) -> Undone | None:
    """Returns what came of bytes without a mark of their coding, or None if they were not in it after all."""
    return step if not step.defect or (step.body and looks_like_text(step.body)) else None


def _undo_zlib(body: bytes, limit: int) -> Undone | None:
    """Undoes gzip and zlib, each known by its first bytes; servers confuse the two."""
    if body.startswith(_GZIP):
        return _collect(_inflate(body, zlib.MAX_WBITS | 16), limit)
    is_zlib = len(body) > 1 and body[0] & 0x8F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    if is_zlib and not _is_plain(body):
        return _unless_guessed(_collect(_inflate(body, zlib.MAX_WBITS), limit))
    return None


def _undo_deflate(body: bytes, limit: int) -> Undone | None:
    """Undoes deflate, in a zlib wrapping as it should be or raw."""
    step = _undo_zlib(body, limit)
    if step is None and body and not _is_plain(body):
        step = _unless_guessed(_collect(_inflate(body, -zlib.MAX_WBITS), limit))
    return step


def _inflate(body: bytes, wbits: int) -> Iterator[bytes]:
    """Yields what zlib makes of bytes; gzip members follow each other, what follows the last is no part of the body."""
    position = 0
    for _ in range(MAX_MEMBERS):
        decoder, size = zlib.decompressobj(wbits), FIRST_SLICE
        while not decoder.eof:
            taken = body[position : position + size]
            if not taken:
                raise _Ends(TRUNCATED)
            position, size = position + len(taken), min(2 * size, SLICE)
            try:
                while taken and not decoder.eof:
                    yield decoder.decompress(taken, SLICE)
                    taken = decoder.unconsumed_tail
            except zlib.error:
                raise _Ends(DAMAGED) from None
        position -= len(decoder.unused_data)
        while body[position : position + 1] == b"\0":  # zeros may fill the space behind a member
            position += 1
        if wbits < 0 and body[position : position + SLICE].strip():
            raise _Ends(DAMAGED)
        if wbits < 0 or not body.startswith(_GZIP, position):
            return
    raise _Ends(DAMAGED)


def _undo_zstandard(body: bytes, limit: int) -> Undone | None:
    """Undoes zstd, known by its first bytes."""
    return _collect(_expand_zstandard(body), limit) if body.startswith(_ZSTANDARD) else None


def _expand_zstandard(body: bytes) -> Iterator[bytes]:
    """Yields the content of all frames."""
    import zstandard

    position = 0
    for _ in range(MAX_MEMBERS):
        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTANDARD_WINDOW).decompressobj()
        while not decoder.eof:
            taken = body[position : position + ZSTANDARD_SLICE]
            if not taken:
                raise _Ends(TRUNCATED)
            try:
                yield decoder.decompress(taken)
            except zstandard.ZstdError:
                raise _Ends(DAMAGED) from None
            position += len(taken)
        position -= len(decoder.unused_data)
        if not body.startswith(_ZSTANDARD, position):
            return
    raise _Ends(DAMAGED)


def _undo_brotli(body: bytes, limit: int) -> Undone | None:
    """Undoes br, which has no first bytes of its own."""
    return None if not body or _is_plain(body) else _unless_guessed(_collect(_expand_brotli(body), limit))


def _expand_brotli(body: bytes) -> Iterator[bytes]:
    """Yields what brotli makes of bytes."""
    import brotli

    decoder = brotli.Decompressor()
    try:
        for start in range(0, len(body), SLICE):
            yield decoder.process(body[start : start + SLICE], output_buffer_limit=SLICE)
            while not decoder.can_accept_more_data():
                yield decoder.process(b"", output_buffer_limit=SLICE)
        while not decoder.is_finished():
            piece = decoder.process(b"", output_buffer_limit=SLICE)
            if not piece:
                raise _Ends(TRUNCATED)
            yield piece
    except brotli.error:
        raise _Ends(DAMAGED) from None


def _undo_chunked(body: bytes, limit: int) -> Undone | None:
    """Joins the chunks of a body that begins with the length of one."""
    first = _CHUNK.match(body)
    if first is None or not _is_followed(body, first.end() + int(first.group(1), 16)):
        return None
    return _collect(_chunks(body), limit)


def _chunks(body: bytes) -> Iterator[bytes]:
    """Yields chunks up to the empty one; what follows it are trailer fields."""
    position = 0
    while (header := _CHUNK.match(body, position)) is not None:
        size = int(header.group(1), 16)
        if size == 0:
            return
        end = header.end() + size
        yield body[header.end() : end]
        if not _is_followed(body, end):
            raise _Ends(DAMAGED)
        position = end + 2
    raise _Ends(TRUNCATED if position >= len(body) else DAMAGED)


def _is_followed(body: bytes, end: int) -> bool:
    """Returns whether a chunk that ends here is followed by a line end, or by the end of the body."""
    return end >= len(body) or body[end : end + 2] == b"\r\n"


_CODINGS: dict[str, Callable[[bytes, int], Undone | None]] = {
    "gzip": _undo_zlib,
    "x-gzip": _undo_zlib,
    "deflate": _undo_deflate,
    "x-deflate": _undo_deflate,
    "br": _undo_brotli,
    "zstd": _undo_zstandard,
    "x-zstd": _undo_zstandard,
    "chunked": _undo_chunked,
    "aws-chunked": _undo_chunked,
}

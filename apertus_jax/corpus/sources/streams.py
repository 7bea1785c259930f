"""Input streams: digested while read, decompressed within limits, cut into lines of bounded length."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Iterator

from etils import epath

from apertus_jax.corpus.sources.quarantine import QuarantineReason
from apertus_jax.corpus.sources.source import Limits
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

READ_BYTES = 1 << 20
OUTPUT_BYTES = 1 << 18
GZIP_SLICE = 1 << 14
ZSTANDARD_SLICE = 1 << 10  # a zstandard decoder cannot be told to stop, and one such slice expands to 32 MiB at most
ZSTANDARD_WINDOW = 1 << 27
GZIP_MAGIC = b"\x1f\x8b\x08"
KEPT_BYTES = 4 << 20  # compressed bytes of a damaged gzip member that are searched for the beginning of the next
MAX_RESUMPTIONS = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """Stands in a stream of bytes where some were lost; `is_last` when nothing can follow."""

    reason: QuarantineReason
    detail: str
    is_last: bool = True


class CheckedFile:
    """Bytes `start` to `stop` of a file; `finish` compares them with the digest that was taken while planning."""

    def __init__(self, path: epath.Path, start: int = 0, stop: int | None = None):
        self._path = path
        self._digest = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
        self.position = start
        try:
            self._stop = path.stat().length if stop is None else stop
            self._file = path.open("rb")
            self._file.seek(start)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error}); restore it") from error

    def read(self, size: int = READ_BYTES) -> bytes:
        """Returns up to `size` further bytes, none at the end."""
        try:
            piece = self._file.read(min(size, self._stop - self.position))
        except OSError as error:
            raise UserError(f"{self._path} cannot be read ({error.strerror or error}); restore it") from error
        self.position += len(piece)
        self._digest.update(piece)
        return piece

    def pieces(self) -> Iterator[bytes]:
        """Yields what is left."""
        while piece := self.read():
            yield piece

    def finish(self, expected: str) -> None:
        """Reads what is left and closes the file.

        Raises:
          UserError: the bytes are not those that were there while planning.
        """
        for _ in self.pieces():
            pass
        self._file.close()
        if self._digest.hexdigest() != expected:
            raise UserError(f"{self._path} has changed since the work was planned; restore it, or start a new output")


def expand(file: CheckedFile, name: str, limits: Limits, resumes: bool = False) -> Iterator[bytes | Damage]:
    """Yields the content of a file by its suffix (.gz, .zst, else as it is), at most READ_BYTES at a time.

    Args:
      resumes: whether reading goes on at the next gzip member after a damaged one; otherwise damage is the end.
    """
    if name.endswith(".gz"):
        yield from _within_limits(_expand_gzip(file, resumes), file, limits)
    elif name.endswith(".zst"):
        yield from _within_limits(_expand_zstandard(file), file, limits)
    else:
        yield from file.pieces()


def cut_lines(chunks: Iterator[bytes | Damage], longest: int) -> Iterator[bytes | Damage | None]:
    """Yields lines without their line feed, None for one longer than `longest`, and the damage that ends them.

    A line that damage cuts off is not yielded.
    """
    kept: list[bytes] = []
    size = 0
    for chunk in chunks:
        if isinstance(chunk, Damage):
            yield chunk
            return
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            size += len(piece)
            if size > longest:
                yield None
            else:
                yield b"".join([*kept, piece]) if kept else piece
            kept, size = [], 0
        size += len(pieces[-1])
        if size > longest:
            kept = []
        elif pieces[-1]:
            kept.append(pieces[-1])
    if size:
        yield None if size > longest else b"".join(kept)


def _within_limits(chunks: Iterator[bytes | Damage], file: CheckedFile, limits: Limits) -> Iterator[bytes | Damage]:
    """Passes chunks on until too many bytes have come, or too many for what was read since the last look."""
    total = produced = 0
    looked_at = file.position
    for chunk in chunks:
        if not isinstance(chunk, Damage):
            total += len(chunk)
            produced += len(chunk)
            if produced > limits.expansion_free_bytes:
                if produced > limits.expansion * max(file.position - looked_at, 1):
                    yield Damage(QuarantineReason.DECOMPRESSION_BOMB, f"expands more than {limits.expansion} times")
                    return
                produced, looked_at = 0, file.position
            if total > limits.file_bytes:
                yield Damage(QuarantineReason.DECOMPRESSION_BOMB, f"expands to more than {limits.file_bytes} bytes")
                return
        yield chunk


def _expand_gzip(file: CheckedFile, resumes: bool) -> Iterator[bytes | Damage]:
    """Yields the content of all members; after a damaged one, of those that can be found behind it."""
    window = b""  # from the beginning of the member, as far as it is kept
    # A piece waits until the next one, or the check sum, shows that decoding went well so far.
    waiting = output = b""
    position = failures = 0
    decoder = None
    is_sound = True
    while True:
        # A full piece of output may mean that there is more of it without further input.
        if position == len(window) and len(output) < OUTPUT_BYTES:
            piece = file.read(OUTPUT_BYTES)
            if not piece:
                if decoder is not None and is_sound:
                    yield waiting
                    yield Damage(QuarantineReason.TRUNCATED_FILE, "the gzip data end before their end mark")
                return
            window = (window[-KEPT_BYTES:] if resumes else b"") + piece
            position = len(window) - len(piece)
        if decoder is None:
            # Zeros may fill the space behind a member.
            window, position = window[position:].lstrip(b"\0"), 0
            if not window:
                continue
            decoder = zlib.decompressobj(wbits=31)
        taken = window[position : position + GZIP_SLICE]
        try:
            output = decoder.decompress(taken, OUTPUT_BYTES)
        except zlib.error:
            failures, waiting, output = failures + 1, b"", b""
            is_last = not resumes or failures > MAX_RESUMPTIONS
            if is_sound or is_last:
                yield Damage(QuarantineReason.DAMAGED_FILE, "the gzip data are damaged", is_last)
            if is_last:
                return
            window, position, decoder, is_sound = _from_next_member(file, window), 0, None, False
            continue
        # At the end of a member what is left may stand in both places.
        position += len(taken) - len(decoder.unused_data if decoder.eof else decoder.unconsumed_tail)
        if output:
            yield waiting
            waiting = output
        if decoder.eof:
            yield waiting
            decoder, waiting, output, is_sound = None, b"", b"", True


def _from_next_member(file: CheckedFile, window: bytes) -> bytes:
    """Returns compressed bytes from the next place that looks like the beginning of a gzip member; none at the end."""
    place = window.find(GZIP_MAGIC, 1)
    while place < 0:
        piece = file.read(OUTPUT_BYTES)
        if not piece:
            return b""
        window = window[-2:] + piece
        place = window.find(GZIP_MAGIC)
    return window[place:]


def _expand_zstandard(file: CheckedFile) -> Iterator[bytes | Damage]:
    """Yields the content of all frames."""
    import zstandard

    decoder = None
    for piece in file.pieces():
        output: list[bytes] = []
        size = position = 0
        while position < len(piece):
            if decoder is None:
                decoder = zstandard.ZstdDecompressor(max_window_size=ZSTANDARD_WINDOW).decompressobj()
            taken = piece[position : position + ZSTANDARD_SLICE]
            try:
                expanded = decoder.decompress(taken)
            except zstandard.ZstdError as error:
                yield b"".join(output)
                yield _zstandard_damage(error)
                return
            position += len(taken)
            output.append(expanded)
            size += len(expanded)
            if size >= OUTPUT_BYTES:
                yield from _in_pieces(b"".join(output))
                output, size = [], 0
            if decoder.eof:
                position -= len(decoder.unused_data)
                decoder = None
        yield b"".join(output)
    if decoder is not None:
        yield Damage(QuarantineReason.TRUNCATED_FILE, "the zstandard data end before their end mark")


def _in_pieces(content: bytes) -> Iterator[bytes]:
    """Yields bytes in pieces of OUTPUT_BYTES, so that limits are looked at between them."""
    return (content[start : start + OUTPUT_BYTES] for start in range(0, len(content), OUTPUT_BYTES))


def _zstandard_damage(error: Exception) -> Damage:
    """Returns what a decoder's refusal means."""
    if "memory" in str(error):
        return Damage(QuarantineReason.DECOMPRESSION_BOMB, "the zstandard data want too much memory")
    return Damage(QuarantineReason.DAMAGED_FILE, "the zstandard data are damaged")

"""TensorBoard event files read back: each record is a length, a checksum, the event, a checksum."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from etils import epath
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

EVENT_FILES = "events.out.tfevents.*"


def read_scalars(folder: epath.Path) -> Iterator[tuple[int, float, str, float]]:
    """Yields (step, wall time, tag, value) of every scalar in the event files of a folder, oldest file first.

    A file ends for us where a kill or a full disk cut it short.
    """
    for path in sorted(folder.glob(EVENT_FILES), key=lambda path: path.name):
        for event in _events(path.read_bytes()):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield event.step, event.wall_time, value.tag, value.simple_value


def _events(content: bytes) -> Iterator[event_pb2.Event]:
    """Yields the events of a file up to the first record that is not whole."""
    place = 0
    while place + 12 <= len(content):
        header = content[place : place + 8]
        (length,) = struct.unpack("<Q", header)
        body = content[place + 12 : place + 12 + length]
        checksums = content[place + 8 : place + 12] + content[place + 12 + length : place + 16 + length]
        if len(checksums) < 8 or checksums != _checksum(header) + _checksum(body):
            return
        try:
            yield event_pb2.Event.FromString(body)
        except DecodeError:
            return
        place += 16 + length


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))

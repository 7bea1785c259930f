"""Devices that are not here: those of recorded TPU topologies, and nodes of GPUs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

RECORDED = json.loads((Path(__file__).parent / "topologies.json").read_text())
SOURCE = RECORDED.pop("source")


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    """What laying out a mesh asks of a device."""

    id: int
    process_index: int
    platform: str
    device_kind: str
    coords: tuple[int, int, int] = (0, 0, 0)
    core_on_chip: int = 0
    slice_index: int = 0


def tpu_devices(topology: str, slices: int = 1) -> list[FakeDevice]:
    """Returns the devices of a recorded topology, so many times; processes are numbered slice by slice."""
    entry, found = RECORDED[topology], []
    numbers = entry.get("slices") or [0] * len(entry["hosts"])
    for copy in range(slices):
        for host, (first, number) in enumerate(zip(entry["hosts"], numbers, strict=True)):
            for *offset, core in entry["chips_of_host"]:
                coords = tuple(a + b for a, b in zip(first, offset, strict=True))
                process = copy * len(entry["hosts"]) + host
                found.append(FakeDevice(len(found), process, "tpu", entry["kind"], coords, core, copy + number))
    return found


def gpu_devices(nodes: int, of_node: int) -> list[FakeDevice]:
    """Returns the devices of nodes with one process each; the driver numbers every node's as a slice of its own."""
    return [
        FakeDevice(number, number // of_node, "gpu", "NVIDIA H100", slice_index=number // of_node)
        for number in range(nodes * of_node)
    ]

"""Accelerators: peak FLOP/s and memory as their vendors say, for `plan` and for MFU."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable

import jax


@dataclasses.dataclass(frozen=True)
class Device:
    """Vendor figures of an accelerator.

    Attributes:
      flops_per_second: dense bfloat16 peak.
      memory_bytes: of one device.
      platform: JAX's name of its platform.
      kind: regular expression of JAX's `device_kind`. Variants with another peak (PCIe, NVL) do not match.
    """

    flops_per_second: float
    memory_bytes: float
    platform: str
    kind: str


DEVICES = {
    "a100": Device(312e12, 80e9, "gpu", r"NVIDIA A100-.*"),
    "h100": Device(989e12, 80e9, "gpu", r"NVIDIA H100 80GB HBM3"),
    "h200": Device(989e12, 141e9, "gpu", r"NVIDIA H200"),
    "gh200": Device(989e12, 96e9, "gpu", r"NVIDIA GH200 .*"),
    "tpu_v4": Device(275e12, 32e9, "tpu", r"TPU v4"),
    "tpu_v5e": Device(197e12, 16e9, "tpu", r"TPU v5( lite|e)"),
    "tpu_v5p": Device(459e12, 95e9, "tpu", r"TPU v5p?"),
    "tpu_v6e": Device(918e12, 32e9, "tpu", r"TPU v6( lite|e)"),
}

CPU = "cpu"
# float32, of one core: about half of what AVX2 at 3 GHz could do. A rough figure; no vendor says one.
CPU_CORE_FLOPS_PER_SECOND = 5e10


def known_devices() -> list[str]:
    """Returns the names that `device_named` takes."""
    return [CPU, *DEVICES]


def device_named(name: str, count: int) -> Device:
    """Returns an accelerator, or one of `count` equal shares of this machine's cores and memory for `cpu`."""
    if name != CPU:
        return DEVICES[name]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(CPU_CORE_FLOPS_PER_SECOND * (os.cpu_count() or 1) / count, memory / count, CPU, "")


def peak_flops_per_second(devices: Iterable[jax.Device]) -> float | None:
    """Returns the bfloat16 peak of all devices together, None where that of any is not known."""
    peaks = [_peak(device.device_kind) for device in devices]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) if len(known) == len(peaks) else None


def _peak(device_kind: str) -> float | None:
    known = [device.flops_per_second for device in DEVICES.values() if re.fullmatch(device.kind, device_kind)]
    return known[0] if known else None

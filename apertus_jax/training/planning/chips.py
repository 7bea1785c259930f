"""TPU chips: peaks, memory and networks as their vendor says, and what share of the peak published runs reached.

Vendor figures: https://docs.cloud.google.com/tpu/docs, pages `v4`, `v5e`, `v5p`, `v6e` and `tpu7x`. Bandwidth of a link
is the vendor's "bidirectional ICI bandwidth per chip" divided by its links (4 on a plane, 6 on a torus of three
dimensions) and by the two directions.
"""

from __future__ import annotations

import dataclasses

from apertus_jax.training.planning.devices import Device


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one chip.

    Attributes:
      name: of the kind of device, as JAX has it.
      flops_per_second: dense bfloat16 peak.
      memory_bytes, memory_bandwidth: of its HBM, in bytes and bytes per second.
      link_bandwidth: bytes per second that one link of the torus carries in one direction.
      dimensions: of the torus.
      wraps_from: chips along a dimension from which on its ends are joined.
      slow_bandwidth: bytes per second of one chip's share of the network between slices.
      devices: how many devices JAX sees in a chip.
      matrix_unit: width of its systolic arrays; a product over fewer numbers, such as the 128 of a head, leaves the
        rest idle.
      efficiency: share of the peak that arithmetic reaches in published runs, see `efficiency_source`.
      efficiency_source: where that is from.
    """

    name: str
    flops_per_second: float
    memory_bytes: float
    memory_bandwidth: float
    link_bandwidth: float
    dimensions: int
    wraps_from: int
    slow_bandwidth: float
    devices: int
    matrix_unit: int
    efficiency: float
    efficiency_source: str

    @property
    def device(self) -> Device:
        """What JAX calls a device: the chip, or its share of it."""
        return Device(self.flops_per_second / self.devices, self.memory_bytes / self.devices, "tpu", "")


_UNMEASURED = "no published run known here; v5p's"
CHIPS = {
    "v4": Chip("TPU v4", 275e12, 32e9, 1228e9, 50e9, 3, 4, 6.25e9, 1, 128, 0.78, _UNMEASURED),
    "v5e": Chip("TPU v5 lite", 197e12, 16e9, 819e9, 50e9, 2, 16, 3.125e9, 1, 128, 0.78, _UNMEASURED),
    "v5p": Chip(
        *("TPU v5", 459e12, 95e9, 2765e9, 100e9, 3, 4, 6.25e9, 1, 128, 0.78),
        "docs/reference/after_version_1.md §5.1: Llama-2 70B, one row",
    ),
    "v6e": Chip(
        *("TPU v6 lite", 918e12, 32e9, 1600e9, 100e9, 2, 16, 12.5e9, 1, 256, 0.61),
        "docs/reference/after_version_1.md §5.1: Llama-3.1 8B and 70B",
    ),
    "tpu7x": Chip(
        *("TPU7x", 2307e12, 192e9, 7380e9, 100e9, 3, 4, 12.5e9, 2, 256, 0.67),
        "docs/reference/after_version_1.md §5.1: Llama-3.1 70B on 64 chips",
    ),
}

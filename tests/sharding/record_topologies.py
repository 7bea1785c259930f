"""Records the devices of TPU topologies as libtpu describes them: `record_topologies.py > topologies.json`.

Needs an environment of requirements-tpu.txt and no TPU. A topology is kept as the chips of one host, relative to the
first, and the first chip of each host; the script fails where a topology is not made like that.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

from importlib.metadata import version

import jax
from jax.experimental import topologies

TORI = "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8"
PLANES = "2x2 2x4 4x4 4x8 8x8 8x16 16x16"
SLICES = {"v4": TORI, "v5p": TORI + " 8x8x16 8x16x16 16x16x16", "v5e": PLANES, "v6e": PLANES, "tpu7x": TORI + " 8x8x16"}


def record(name: str, **options: Any) -> dict[str, Any]:
    """Returns what libtpu says of the devices of one topology."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    if name.startswith("v4:"):
        # Described are both cores of a chip, which a job on v4 has as one device.
        devices = [device for device in devices if device.core_on_chip == 0]
    hosts: dict[int, list[Any]] = {}
    for device in devices:
        hosts.setdefault(device.process_index, []).append(device)
    assert list(hosts) == list(range(len(hosts))), f"{name}: devices are not listed by process"
    first = [members[0].coords for members in hosts.values()]
    shifted = [
        [[a - b for a, b in zip(device.coords, members[0].coords, strict=True)] + [device.core_on_chip]
         for device in members]
        for members in hosts.values()
    ]  # fmt: skip
    assert all(each == shifted[0] for each in shifted), f"{name}: hosts are not alike"
    recorded: dict[str, Any] = {"kind": devices[0].device_kind, "chips_of_host": shifted[0], "hosts": first}
    numbers = [getattr(members[0], "slice_index", None) for members in hosts.values()]
    return recorded | ({"slices": numbers} if any(numbers) else {})


def main() -> None:
    """Prints the table."""
    table = {
        f"{chip}:{shape}": record(f"{chip}:{shape}") for chip, shapes in SLICES.items() for shape in shapes.split()
    }
    for chip in ("v5e", "v6e"):
        table[f"{chip}:2x4, one host"] = record(f"{chip}:2x4", chips_per_host_bounds=(2, 4, 1))
        table[f"{chip}:1x1"] = record(f"{chip}:1x1", chips_per_host_bounds=(1, 1, 1))
    table["v5p:2x2x2, 2 slices"] = record("v5p:2x2x2", num_slices=2)
    source = {"jax": jax.__version__, "libtpu": version("libtpu")}
    lines = [f"  {json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in table.items()]
    sys.stdout.write(f'{{\n  "source": {json.dumps(source)},\n' + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

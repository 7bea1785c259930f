"""Peak memory of writing, exporting and importing a model as wide as the 8B, two layers deep, spread over processes.

    python experiments/benchmarks/model_memory.py [FOLDER]        about 10 minutes of one core, 12 GB of FOLDER's disk
    MODEL_MEMORY_SIZE=half python …                               half as wide: a quarter of both

Four processes with two fake devices each hold 1.51 GB of 6.04 GB. Each phase shows, for the process that needs most,
how far its resident memory rises above what it holds before the phase (runtime and own shards; loaded shards are
taken off too), in megabytes and in shards of the largest leaf: two are allowed. Every phase has run before on a tiny
model, so that the runtime's own growth is not counted. The commands run in one process, whose whole rise is shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PROCESSES, DEVICES = 4, 2
WIDE = os.environ.get("MODEL_MEMORY_SIZE", "wide")
ALLOWED_SHARDS = 2
MEGABYTE = 1e6


def resident(field: str) -> int:
    """Returns a field of this process's memory in bytes: VmRSS now, VmHWM at most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """Makes the peak begin again at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def rise(phase: Callable[[], Any]) -> tuple[Any, int]:
    """Returns what a phase returns, and by how many bytes the resident memory rose in it at most."""
    forget_peak()
    before = resident("VmRSS")
    result = phase()
    return result, resident("VmHWM") - before


def config_of(size: str) -> Any:
    """Returns the architecture: `wide` as the 8B, `half` as wide, or `tiny`."""
    from apertus_jax.model import ModelConfig

    shapes = {"tiny": (512, 64, 128, 2, 8, 2), "half": (65536, 2048, 10752, 2, 16, 4)}
    return ModelConfig(*shapes.get(size, (131072, 4096, 21504, 2, 32, 8)))


def worker(folder: str, port: str, index: str) -> None:
    """One process of the job: every phase, tiny and wide, and a line of JSON for each wide one."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # On a machine that is busy with other things a process may not run for minutes.
    jax.distributed.initialize(f"localhost:{port}", PROCESSES, int(index), heartbeat_timeout_seconds=3600)
    for size in ("tiny", WIDE):
        for name, over, allowed in phases(Path(folder) / size, size):
            if size == WIDE:
                tell(folder, index, {"phase": name, "bytes": over, "shard": allowed})
    jax.distributed.shutdown()


def tell(folder: str, teller: str, line: dict[str, Any]) -> None:
    """Adds a line to those of a process, and shows it at once."""
    text = json.dumps(line) + "\n"
    print(f"{teller}: {text}", end="", file=sys.stderr, flush=True)
    with open(Path(folder) / f"{teller}.jsonl", "a") as file:
        file.write(text)


def phases(folder: Path, size: str) -> Any:
    """Runs the phases of one model; yields name, bytes above the own shards, bytes of a shard of the largest leaf."""
    import jax
    import numpy as np
    from flax.traverse_util import flatten_dict, unflatten_dict
    from jax.experimental import multihost_utils

    from apertus_jax import sharding
    from apertus_jax.model import abstract_parameters
    from apertus_jax.model.model_folder import load_model, save_model
    from apertus_jax.model.parameters import parameter_shapes
    from apertus_jax.release import load_huggingface, save_huggingface
    from apertus_jax.storage.tensors.device_boxes import put_shards

    config, mesh = config_of(size), sharding.MeshConfig(data=1, fsdp=PROCESSES * DEVICES)
    places = sharding.parameter_shardings(abstract_parameters(config), sharding.make_mesh(mesh), mesh.axis_rules())
    flat_places = flatten_dict(places, sep="/")

    def drawn(path: str, shape: tuple[int, ...]) -> jax.Array:
        def draw(box: tuple[slice, ...]) -> np.ndarray:
            seed = int.from_bytes(hashlib.blake2b(f"{path} {box}".encode(), digest_size=4).digest())
            sizes = [part.stop - part.start for part in box]
            return np.random.default_rng(seed).random(sizes, np.float32)

        return put_shards(shape, np.dtype(np.float32), flat_places[path], draw)

    def digests(tree: Any) -> list[str]:
        parts = (shard.data for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards)
        return [hashlib.blake2b(np.asarray(part)).hexdigest() for part in parts]

    def own_bytes(tree: Any) -> int:
        return sum(shard.data.nbytes for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards)

    params: Any = unflatten_dict(
        {path: drawn(path, shape) for path, shape in parameter_shapes(config).items()}, sep="/"
    )
    expected, own = digests(params), own_bytes(params)
    shard = max(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params))
    meet = multihost_utils.sync_global_devices
    meet(f"{size} drawn")
    yield "end of run: mesh → model folder", rise(lambda: save_model(folder / "model", config, params))[1], shard
    meet(f"{size} saved")
    yield "export: mesh → Hugging Face", rise(lambda: save_huggingface(folder / "export", config, params))[1], shard
    meet(f"{size} exported")
    params = None
    for name, load, source in (
        ("import: Hugging Face → mesh", load_huggingface, "export"),
        ("model folder → mesh", load_model, "model"),
    ):
        (_, loaded), over = rise(lambda load=load, source=source: load(folder / source, shardings=places))
        assert digests(loaded) == expected, name
        yield name, over - own, shard
        del loaded
    meet(f"{size} loaded")


def command(name: str, folder: str) -> None:
    """One command in one process, tiny and wide; a line of JSON for the wide one."""
    from apertus_jax.release import export, import_huggingface

    run, source, target = {
        "export": (export, "model", "export_command"),
        "import": (import_huggingface, "export_command", "import_command"),
    }[name]
    for size in ("tiny", WIDE):
        root = Path(folder) / size
        over = rise(lambda root=root: run(root / source, root / target))[1]
        if size == WIDE:
            tell(folder, name, {"phase": f"command {name}, one process", "bytes": over, "shard": 0})


def files_of(folder: Path) -> Mapping[str, Any]:
    """Returns the digests of the weights in a committed folder."""
    files = json.loads((folder / "COMMITTED.json").read_text())["files"]
    return {name: record["blake2b"] for name, record in files.items() if "safetensors" in name}


def run_all(folder: Path) -> list[dict[str, Any]]:
    """Runs the job and the commands; returns their lines."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_cpu_enable_concurrency_optimized_scheduler=false"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    own = [sys.executable, __file__]
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL}
    job = [
        subprocess.Popen([*own, "worker", str(folder), str(port), str(index)], **quiet) for index in range(PROCESSES)
    ]
    assert not any([process.wait() for process in job])
    exported = files_of(folder / WIDE / "export")
    shutil.rmtree(folder / WIDE / "export")
    for name, source, made, wanted in (
        ("export", "model", "export_command", exported),
        ("import", "export_command", "import_command", files_of(folder / WIDE / "model")),
    ):
        subprocess.run([*own, "command", name, str(folder)], check=True, **quiet)
        shutil.rmtree(folder / WIDE / source)
        assert files_of(folder / WIDE / made) == wanted, f"{name} wrote other bytes than the mesh did"
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def main(place: str | None = None) -> None:
    """Runs everything and prints the table."""
    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory(dir=place) as folder:
        lines = run_all(Path(folder))
    table = Table("phase", "peak above own shards, MB", "shards of the largest leaf", "of those allowed")
    for name in dict.fromkeys(line["phase"] for line in lines):
        own = [line for line in lines if line["phase"] == name]
        most, shard = max(line["bytes"] for line in own), own[0]["shard"]
        shares = (f"{most / shard:.2f}", f"{ALLOWED_SHARDS}") if shard else ("", "")
        table.add_row(name, f"{most / MEGABYTE:,.0f}", *shares)
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    elif sys.argv[1:2] == ["command"]:
        command(*sys.argv[2:])
    else:
        main(*sys.argv[1:])

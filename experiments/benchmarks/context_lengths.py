"""Long sequences over `context`: work of a device, gathers, losses and peak memory, on fake devices of one CPU.

    python experiments/benchmarks/context_lengths.py                 16,384 tokens over 1, 2, 4 and 8 devices
    python experiments/benchmarks/context_lengths.py 65536 --steps 2 over 8 devices
    python experiments/benchmarks/context_lengths.py 262144          one step, 16 times the work of one of those

A model of two layers with two heads of 32 is trained on one document with `xla_blockwise`; each number of devices in a
process of its own. Shown for each:

- block pairs: products of a block of queries with a block of keys that the busiest device computes in a layer, from the
  zigzag order that it trains by. The loops of `xla_blockwise` end where the causal mask does, which XLA's cost analysis
  does not know, so FLOPs of a device are its pairs times the FLOPs that this analysis counts in a program of one pair.
- FLOPs of plain attention (`xla`), which has no loops: XLA's cost analysis of the compiled program of one device.
- gathers: all-gathers over keys and values in the compiled step, forward and backward, which is a loop over layers.
- the loss of the last step, and the most resident memory of the process, of all devices together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_layers": 2, "num_heads": 2}
HEAD_DIM, PLAIN_LENGTH = 32, 16_384
GIB = 1 << 30


def train(context: int, length: int, steps: int) -> dict[str, Any]:
    """Compiles and runs steps over so many devices of this process; returns what is shown."""
    import jax
    import numpy as np

    from apertus_jax.model import ModelConfig
    from apertus_jax.optimization import ademamix, optimizer_chain
    from apertus_jax.sharding import MeshConfig
    from apertus_jax.training import Objective
    from apertus_jax.training.program import make_program

    config = ModelConfig(**SIZES, num_kv_heads=2, head_dim=HEAD_DIM, attention_implementation="xla_blockwise")
    mesh = MeshConfig(data=1, context=context)
    program = make_program(config, optimizer_chain(ademamix(1e-3), 1.0), Objective(), mesh, 1, length)
    text = program.compile(1).as_text()
    keys = rf"\w+\[(?:2,)?1,{length},2,{HEAD_DIM}\]"
    found: dict[str, Any] = {"gathers": len(re.findall(rf"= {keys}\S* all-gather(?:-start)?\(", text))}
    state = program.initial_state(0)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (1, length + 1), dtype=np.int32)
    host = {
        "tokens": tokens,
        "segment_ids": np.zeros((1, length), np.int32),
        "positions": np.arange(length, dtype=np.int32)[None],
        "left_context": np.zeros((1, program.objective.left_context), np.int32),
        "document_keys": np.zeros((1, length), np.uint32),
        "loss_weights": np.ones((1, length), np.float32),
    }
    batch = {name: jax.device_put(array, program.batch_sharding) for name, array in host.items()}
    started = time.monotonic()
    for _ in range(steps):
        state, metrics = program.step(state, batch)
    found["loss"] = float(metrics["loss"])
    found["seconds"] = (time.monotonic() - started) / steps
    return found


def work_of_blocks(context: int, length: int) -> dict[str, float]:
    """Returns the block pairs of the busiest device, those of the least busy, and the FLOPs of one pair, both ways."""
    import jax
    import jax.numpy as jnp

    from apertus_jax.model.attention_blockwise import BLOCK, blockwise_attention
    from apertus_jax.model.context_parallelism import CHUNKS, zigzag

    chunk = length // (CHUNKS * context) // BLOCK  # in blocks
    of_chunks = zigzag(context).reshape(context, CHUNKS)
    pairs = [sum(int(c) * chunk + row + 1 for c in chunks for row in range(chunk)) for chunks in of_chunks]
    heads = jnp.zeros((1, BLOCK, SIZES["num_heads"], HEAD_DIM))
    loss = lambda q, k, v: blockwise_attention(q, k, v).sum()  # noqa: E731
    one_pair = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(heads, heads, heads).compile()
    return {"most_pairs": max(pairs), "least_pairs": min(pairs), "pair_flops": one_pair.cost_analysis()["flops"]}


def plain_flops(context: int) -> float:
    """Returns the FLOPs of one device in plain attention of 16,384 tokens, both ways, by XLA's cost analysis."""
    import jax
    import jax.numpy as jnp

    from apertus_jax import sharding
    from apertus_jax.model.attention import attend

    heads = jax.ShapeDtypeStruct((1, PLAIN_LENGTH, SIZES["num_heads"], HEAD_DIM), jnp.float32)
    config = sharding.MeshConfig(data=1, context=context)
    rows = jax.sharding.PartitionSpec(None, "context" if context > 1 else None)
    with sharding.use_mesh(sharding.make_mesh(config), config.axis_rules("cpu")) as mesh:
        split = jax.sharding.NamedSharding(mesh, rows)
        loss = lambda q, k, v: attend(q, k, v, implementation="xla").sum()  # noqa: E731
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)), in_shardings=split)
        return step.lower(heads, heads, heads).compile().cost_analysis()["flops"]


def child(context: int, length: int, steps: int) -> None:
    """Measures one number of devices and prints JSON."""
    found = {"context": context, **work_of_blocks(context, length)}
    if length == PLAIN_LENGTH:
        found["plain_flops"] = plain_flops(context)
    found |= train(context, length, steps)
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


def measured(context: int, length: int, steps: int) -> dict[str, Any]:
    """Returns what a process with so many fake devices measures."""
    flags = f"--xla_force_host_platform_device_count={context}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(length), "--steps", str(steps), "--devices", str(context), "--child"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measures, prints the table, and returns 1 where a step took more memory than allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("length", type=int, nargs="?", default=PLAIN_LENGTH, help="tokens of the sequence")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--devices", type=int, action="append", help="repeatable; 1, 2, 4, 8 at 16,384 tokens, else 8")
    parser.add_argument("--allowed", type=float, default=20.0, help="GiB of resident memory")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    devices = options.devices or ([1, 2, 4, 8] if options.length == PLAIN_LENGTH else [8])
    if options.child:
        child(devices[0], options.length, options.steps)
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{options.length:,} tokens, {options.steps} steps")
    for name in ("context", "block pairs", "GFLOP", "plain GFLOP", "gathers", "loss", "s a step", "peak GiB"):
        table.add_column(name, justify="right")
    peaks = []
    for context in devices:
        found = measured(context, options.length, options.steps)
        pairs = found["most_pairs"]
        same = f"{pairs:,}" if pairs == found["least_pairs"] else f"{found['least_pairs']:,} to {pairs:,}"
        plain = f"{found['plain_flops'] / 1e9:,.1f}" if "plain_flops" in found else ""
        flops = f"{pairs * found['pair_flops'] / 1e9:,.1f}"
        peaks.append(found["peak_bytes"] / GIB)
        figures = (f"{found['loss']:.6f}", f"{found['seconds']:.0f}", f"{peaks[-1]:.2f}")
        table.add_row(str(context), same, flops, plain, str(found["gathers"]), *figures)
    Console(width=120).print(table)
    return int(max(peaks) > options.allowed)


if __name__ == "__main__":
    sys.exit(main())

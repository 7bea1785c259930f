"""The measurements of `train_step.py`: each function here runs in a process of its own and returns plain numbers."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
WARMUP_STEPS = 2
LEARNING_RATE, CLIP_NORM, WEIGHT_DECAY = 1e-4, 0.1, 0.1
EOD_ID = 2
# A step counts as undisturbed when other processes used less than this share of the machine during it.
QUIET_SHARE = 0.08
GEMM_REPETITIONS = 7
GOLDFISH_REPETITIONS = 30


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and a batch."""

    model: dict[str, int]
    batch_size: int
    sequence_length: int

    @property
    def tokens(self) -> int:
        """Labels of one step."""
        return self.batch_size * self.sequence_length


SHAPES = {
    "cpu-60m": Shape(
        {
            "vocab_size": 32_000,
            "hidden_size": 512,
            "intermediate_size": 2688,
            "num_layers": 8,
            "num_heads": 8,
            "num_kv_heads": 2,
        },
        batch_size=4,
        sequence_length=512,
    ),
    "big-vocab": Shape(
        {
            "vocab_size": 131_072,
            "hidden_size": 256,
            "intermediate_size": 1344,
            "num_layers": 4,
            "num_heads": 4,
            "num_kv_heads": 2,
        },
        batch_size=2,
        sequence_length=1024,
    ),
}


def busy_seconds() -> float:
    """Returns the processor seconds that all processes of this machine have used since it started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def resident_kilobytes(field: str) -> int:
    """Returns VmRSS (now) or VmHWM (the peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def wait_for_quiet(patience: float, window: float = 0.5) -> float:
    """Waits until other processes leave the machine alone for a moment, at most `patience` s → patience left."""
    while patience > 0:
        busy, own = busy_seconds(), time.process_time()
        time.sleep(window)
        foreign = busy_seconds() - busy - (time.process_time() - own)
        if foreign < QUIET_SHARE * window * os.cpu_count():
            break
        patience -= window
    return patience


def time_steps(step: Callable[[], float], steps: int, patience: float) -> dict[str, Any]:
    """Calls `step` some times to warm up and `steps` times more → seconds, losses, and others' share of the machine."""
    patience = wait_for_quiet(patience)
    losses = [step() for _ in range(WARMUP_STEPS)]
    seconds, others = [], []
    for _ in range(steps):
        patience = wait_for_quiet(patience)
        started, own, busy = time.perf_counter(), time.process_time(), busy_seconds()
        losses.append(step())
        elapsed = time.perf_counter() - started
        foreign = busy_seconds() - busy - (time.process_time() - own)
        seconds.append(elapsed)
        others.append(max(foreign, 0.0) / (elapsed * os.cpu_count()))
    return {"seconds": seconds, "others": others, "losses": losses}


def make_tokens(shape: Shape) -> np.ndarray:
    """Returns the token ids that both sides train on, int32 [B, T+1]."""
    generator = np.random.default_rng(0)
    return generator.integers(3, shape.model["vocab_size"], (shape.batch_size, shape.sequence_length + 1), np.int32)


def make_batch(shape: Shape, left_context: int) -> dict[str, np.ndarray]:
    """Returns a batch whose rows are one document each, as torch sees them."""
    rows, length = shape.batch_size, shape.sequence_length
    return {
        "tokens": make_tokens(shape),
        "segment_ids": np.zeros((rows, length), np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "left_context": np.full((rows, left_context), -1, np.int32),
        "document_keys": np.zeros((rows, length), np.uint32),
        "loss_weights": np.ones((rows, length), np.float32),
    }


def ours(shape: Shape, attention: str, scan_unroll: int, num_tiles: int) -> Callable[[], float]:
    """Returns a call that makes one step of the program that `pretrain` runs."""
    import jax

    from apertus_jax.model import ModelConfig
    from apertus_jax.objectives import goldfish, not_after_eod
    from apertus_jax.optimization import adamw, optimizer_chain, weight_decay_mask
    from apertus_jax.sharding import MeshConfig
    from apertus_jax.training.program import make_program
    from apertus_jax.training.train_step import Objective

    config = ModelConfig(
        **shape.model, attention_implementation=attention, scan_unroll=scan_unroll, doc_attention="causal"
    )
    optimizer = adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=weight_decay_mask)
    objective = Objective(loss_masks=(goldfish(), not_after_eod(EOD_ID)), num_tiles=num_tiles)
    program = make_program(
        config, optimizer_chain(optimizer, CLIP_NORM), objective, MeshConfig(), 1, shape.sequence_length
    )
    batch = jax.device_put(make_batch(shape, objective.left_context), program.batch_sharding)
    state = program.initial_state(seed=0)

    def step() -> float:
        nonlocal state
        state, metrics = program.step(state, batch)
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    return step


def torch_step(shape: Shape, compiled: bool, fused: bool) -> Callable[[], float]:
    """Returns a call that makes one step of transformers' model with torch's AdamW."""
    import torch
    from transformers import ApertusConfig, ApertusForCausalLM

    from apertus_jax.model import ModelConfig

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    sizes = shape.model
    config = ApertusConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
        num_key_value_heads=sizes["num_kv_heads"],
        initializer_range=ModelConfig.init_std,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = ApertusForCausalLM(config).float().train()
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8, fused=fused)
    forward = torch.compile(model) if compiled else model
    tokens = torch.from_numpy(make_tokens(shape).astype(np.int64))
    inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> float:
        loss = forward(input_ids=inputs, labels=labels, shift_labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def measure_step(shape: Shape, side: str, steps: int, patience: float, options: dict[str, Any]) -> dict[str, Any]:
    """Times one side, and takes its peak memory above what the imports alone hold."""
    if side == "ours":
        import jax

        jax.devices()
    else:
        import torch._dynamo  # noqa: F401
        import transformers.models.apertus.modeling_apertus  # noqa: F401
    start = resident_kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    step = ours(shape, **options) if side == "ours" else torch_step(shape, **options)
    return time_steps(step, steps, patience) | {"peak_megabytes": (resident_kilobytes("VmHWM") - start) / 1024}


def weight_products(shape: Shape) -> list[tuple[str, int, int, int]]:
    """Returns (name, rows in, rows out, how many) of every matrix that tokens are multiplied with."""
    sizes = shape.model
    embed, width, layers = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_layers"]
    heads = sizes["num_kv_heads"] * embed // sizes["num_heads"]
    return [
        ("query, output", embed, embed, 2 * layers),
        ("key, value", embed, heads, 2 * layers),
        ("up", embed, width, layers),
        ("down", width, embed, layers),
        ("lm_head", embed, sizes["vocab_size"], 1),
    ]


def measure_products(shape: Shape) -> dict[str, Any]:
    """Times the products of a step alone, each as one dot: forward, gradient of the input, gradient of the kernel."""
    import jax
    import jax.numpy as jnp

    rows: list[dict[str, Any]] = []
    for name, inner, outer, count in weight_products(shape):
        inputs, kernel, upstream = (
            jax.random.normal(jax.random.key(0), sizes, jnp.float32)
            for sizes in ((shape.tokens, inner), (inner, outer), (shape.tokens, outer))
        )
        products = {
            "forward": (lambda left, right: left @ right, inputs, kernel),
            "input": (lambda left, right: left @ right.T, upstream, kernel),
            "kernel": (lambda left, right: left.T @ right, inputs, upstream),
        }
        for kind, (product, *operands) in products.items():
            seconds = median_call(jax.jit(product), operands, GEMM_REPETITIONS)
            flops = 2 * shape.tokens * inner * outer
            rows.append({"matrix": name, "product": kind, "count": count, "seconds": seconds, "flops": flops})
    seconds = sum(row["count"] * row["seconds"] for row in rows)
    return {"products": rows, "seconds": seconds, "flops": sum(row["count"] * row["flops"] for row in rows)}


def measure_goldfish(shape: Shape) -> dict[str, float]:
    """Times each strategy's mask alone, as a compiled function of the batch → median seconds."""
    import jax

    from apertus_jax.objectives import goldfish

    times = {}
    for strategy in ("document", "megatron"):
        mask = goldfish(strategy=strategy)
        batch = jax.device_put(make_batch(shape, mask.left_context))
        times[strategy] = median_call(jax.jit(mask), [batch], GOLDFISH_REPETITIONS)
    return times


def median_call(function: Callable[..., Any], arguments: list[Any], repetitions: int, patience: float = 5) -> float:
    """Returns the median seconds of a call in quiet moments, compilation left out."""
    import jax

    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repetitions):
        patience = wait_for_quiet(patience, window=0.1)
        started = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def run_child(task: dict[str, Any]) -> dict[str, Any]:
    """The child process: does one measurement."""
    shape = SHAPES[task["shape"]]
    if task["kind"] == "step":
        return measure_step(shape, task["side"], task["steps"], task["patience"], task["options"])
    return {"products": measure_products, "goldfish": measure_goldfish}[task["kind"]](shape)

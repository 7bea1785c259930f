"""Greedy decoding on the CPU, ours against `generate` of transformers on torch, on the same weights.

    python experiments/benchmarks/decode.py                     (both shapes, about five minutes)
    python experiments/benchmarks/decode.py --shape 60m --rounds 5 --json result.json

Both sides continue the same 8 prompts of 128 random tokens by exactly 128 tokens in float32 on two threads, and must
give the same tokens. torch runs eagerly, as `generate` does by default. See `alternation.py` for how it is measured.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from alternation import build_parser, show, take_turns, time_calls
from rich.console import Console
from train_step_measurements import THREADS

BATCH, PROMPT_LENGTH, NEW_TOKENS = 8, 128, 128
TARGET = 1.5
SIDES = ("ours", "transformers")
SHAPES = {
    "30m": {
        "vocab_size": 16_384,
        "hidden_size": 384,
        "intermediate_size": 2016,
        "num_layers": 8,
        "num_heads": 6,
        "num_kv_heads": 2,
    },
    "60m": {
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 2688,
        "num_layers": 8,
        "num_heads": 8,
        "num_kv_heads": 2,
    },
}


def write_model(folder: Path, shape: str) -> None:
    """Writes one random model in the layout that both sides read."""
    import jax

    from apertus_jax.model import ModelConfig, init_parameters
    from apertus_jax.release import save_huggingface

    # A wide initialisation: logits far enough apart that rounding never decides a token.
    config = ModelConfig(**SHAPES[shape], max_position_embeddings=512, init_std=0.05)
    save_huggingface(folder, config, init_parameters(config, jax.random.key(0)))


def make_prompts(shape: str) -> list[list[int]]:
    """Returns the prompts both sides continue."""
    return np.random.default_rng(0).integers(4, SHAPES[shape]["vocab_size"], (BATCH, PROMPT_LENGTH)).tolist()


def ours(folder: Path, prompts: list[list[int]]) -> Callable[[], list[list[int]]]:
    """Returns a call that decodes with this package."""
    from apertus_jax.inference import decoding_parameters, generate_tokens
    from apertus_jax.release import load_huggingface

    config, params = load_huggingface(folder)
    params = decoding_parameters(config, params)
    return lambda: generate_tokens(config, params, prompts, max_new_tokens=NEW_TOKENS)


def transformers(folder: Path, prompts: list[list[int]]) -> Callable[[], list[list[int]]]:
    """Returns a call that decodes with transformers on torch."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.tensor(prompts)
    options = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "eos_token_id": None}

    def decode() -> list[list[int]]:
        with torch.inference_mode():
            outputs = model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
        return outputs[:, PROMPT_LENGTH:].tolist()

    return decode


def run_child(task: dict[str, Any]) -> dict[str, Any]:
    """The child process: measures one side."""
    side = {"ours": ours, "transformers": transformers}[task["side"]]
    return time_calls(side(Path(task["folder"]), make_prompts(task["shape"])), task["calls"], task["patience"])


def main() -> None:
    """Compares the sides at each shape, or is the process of one measurement."""
    arguments = build_parser(__doc__, SHAPES, calls=3).parse_args()
    if arguments.child:
        print(json.dumps(run_child(json.loads(arguments.child))))
        return
    console, outcomes = Console(), {}
    for shape in arguments.shape or SHAPES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = str(Path(scratch) / "model")
            write_model(Path(folder), shape)
            task = {"shape": shape, "folder": folder, "calls": arguments.calls, "patience": arguments.patience}
            records = take_turns(__file__, SIDES, task, arguments.rounds, console)
        if records["ours"]["answer"] != records["transformers"]["answer"]:
            raise SystemExit(f"{shape}: the sides gave different tokens, so their times cannot be compared")
        title = f"{shape}: {BATCH} prompts of {PROMPT_LENGTH} tokens, {NEW_TOKENS} new ones, float32, {THREADS} threads"
        show(title, BATCH * NEW_TOKENS, "tokens", records, console)
        ratio = records["transformers"]["median_seconds"] / records["ours"]["median_seconds"]
        console.print(f"speed against transformers {ratio:.2f} (target: {TARGET}, more is better); same tokens")
        outcomes[shape] = {"speed": ratio, "sides": records}
        if arguments.json:
            arguments.json.write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    main()

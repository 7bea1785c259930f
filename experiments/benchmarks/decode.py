"""Tokens per second of greedy decoding: ours against `generate` of transformers, on the same weights.

Run:
    python experiments/benchmarks/decode.py

Both sides continue the same 8 prompts of 32 random tokens by exactly 128 tokens in float32 on two threads, and must
give the same tokens. Sides alternate (A B A B …), each time in a process of its own that warms up once; printed are the
median tokens per second of each side and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH, PROMPT_LENGTH, NEW_TOKENS, THREADS = 8, 32, 128, 2
SHAPE = {
    "vocab_size": 16384,
    "hidden_size": 384,
    "intermediate_size": 2016,
    "num_layers": 8,
    "num_heads": 6,
    "num_kv_heads": 2,
    "max_position_embeddings": 512,
}
SIDES = ("ours", "transformers")


def make_prompts() -> list[list[int]]:
    """Returns the prompts both sides continue."""
    return np.random.default_rng(0).integers(4, SHAPE["vocab_size"], (BATCH, PROMPT_LENGTH)).tolist()


def write_model(folder: Path) -> None:
    """Writes one random model in the layout that both sides read."""
    import jax

    from apertus_jax.model import ModelConfig, initial_parameters
    from apertus_jax.release import save_huggingface

    # A wide initialisation: logits far enough apart that rounding never decides a token.
    config = ModelConfig(**SHAPE, init_std=0.05)
    save_huggingface(folder, config, initial_parameters(config, jax.random.key(0)))


def ours(folder: Path) -> Callable[[], list[list[int]]]:
    """Returns a call that decodes with this package."""
    from apertus_jax.inference import decoding_parameters, generate_tokens
    from apertus_jax.release import load_huggingface

    config, params = load_huggingface(folder)
    params = decoding_parameters(config, params)
    return lambda: generate_tokens(config, params, make_prompts(), max_new_tokens=NEW_TOKENS)


def transformers(folder: Path) -> Callable[[], list[list[int]]]:
    """Returns a call that decodes with transformers on torch."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = torch.tensor(make_prompts())
    options = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "eos_token_id": None}

    def decode() -> list[list[int]]:
        with torch.inference_mode():
            outputs = model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
        return outputs[:, PROMPT_LENGTH:].tolist()

    return decode


def measure(side: str, folder: Path, calls: int) -> None:
    """Prints the tokens and the seconds of `calls` calls after one to warm up, as JSON: the child process."""
    decode = {"ours": ours, "transformers": transformers}[side](folder)
    tokens = decode()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        decode()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"tokens": tokens, "seconds": seconds}))


def compare(rounds: int, calls: int) -> dict[str, float]:
    """Runs both sides in turn and returns median tokens per second, the ratio, and the share of equal tokens."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    tokens = {}
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_model(folder)
        for _ in range(rounds):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--calls", str(calls)]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                result = json.loads(done.stdout.splitlines()[-1])
                seconds[side] += result["seconds"]
                tokens[side] = np.array(result["tokens"])
    rates = {side: BATCH * NEW_TOKENS / statistics.median(seconds[side]) for side in SIDES}
    equal = float((tokens["ours"] == tokens["transformers"]).mean())
    return rates | {"ratio": rates["ours"] / rates["transformers"], "equal_tokens": equal}


def main() -> None:
    """Prints the comparison, or runs one side for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--calls", type=int, default=3, help="timed calls in each process")
    parser.add_argument("--side", choices=SIDES, help="run one side only, for the parent process")
    parser.add_argument("--folder", type=Path, help="the model, with --side")
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.folder, options.calls)
        return
    result = compare(options.rounds, options.calls)
    print(f"ours          {result['ours']:9.1f} tokens/s")
    print(f"transformers  {result['transformers']:9.1f} tokens/s")
    print(f"ratio         {result['ratio']:9.2f}   (equal tokens: {result['equal_tokens']:.1%})")


if __name__ == "__main__":
    main()

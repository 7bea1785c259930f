"""How long a start takes: process start to first optimizer step of `models/test_1m.gin`, compiled programs at hand.

    python experiments/benchmarks/startup.py

Generates a small JSONL, tokenizes it with 2048 ids through the command line, and starts `apertus pretrain` in fresh
run folders: once to fill a compilation cache of its own, then as often as `--repetitions` says. The first step counts
as done when its loss stands on the progress line, which needs the step's result on the host.
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
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

TARGET_SECONDS = 10.0
VOCAB_SIZE = 2048
NUM_DOCUMENTS, WORDS_PER_DOCUMENT, NUM_WORDS = 600, 200, 4000
COMMAND = [sys.executable, "-m", "apertus_jax"]
# What is waited for, and the words on a line of the log that show it has come.
MARKS = {
    "imports, configuration, store": "starting from random parameters",
    "state, program from the cache": "compiled the step",
    "first step": "step 1/",
}
EXPERIMENT = """
include 'models/test_1m.gin'
pretrain.model = @ModelConfig()
pretrain.objective = @Objective()
Objective.loss_masks = [@goldfish(), @not_after_eod()]
not_after_eod.eod_id = 2
pretrain.optimizer = @ademamix
RunSchedule.learning_rate = 1e-3
pretrain.mixture = @Mixture()
Mixture.stages = [@MixtureStage()]
MixtureStage.rates = {'words': 1.0}
RunSchedule.batch_schedule = @BatchSchedule()
BatchSchedule.initial = 8
pretrain.training = @TrainingConfig()
TrainingConfig.sequence_length = 256
TrainingConfig.log_every = 1
"""


def write_documents(path: Path) -> None:
    """Writes documents of made-up words, frequent and rare ones as in a language."""
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnoprstuvwyz"))
    words = np.array(["".join(generator.choice(letters, length)) for length in generator.integers(2, 10, NUM_WORDS)])
    ranks = np.minimum(generator.zipf(1.3, (NUM_DOCUMENTS, WORDS_PER_DOCUMENT)), NUM_WORDS) - 1
    rows = ({"text": " ".join(words[row]), "source": "words"} for row in ranks)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_store(folder: Path, environment: dict[str, str]) -> Path:
    """Tokenizes generated documents through the command line and returns the token store."""
    documents, store = folder / "words.jsonl", folder / "store"
    write_documents(documents)
    arguments = ["tokenize", f"--input={documents}", f"--output={store}", f"--gin.tokenize.vocab_size={VOCAB_SIZE}"]
    subprocess.run(COMMAND + arguments, env=environment, check=True, capture_output=True)
    return store


def start(store: Path, output: Path, experiment: Path, environment: dict[str, str]) -> dict[str, float]:
    """Trains one step in a process of its own → seconds from its start until each mark of `MARKS`, and to its end."""
    arguments = ["pretrain", f"--gin_file={experiment}", f"--input={store}", f"--output={output}", "--steps=1"]
    began = time.perf_counter()
    seconds, lines = {}, []
    with subprocess.Popen(
        COMMAND + arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stderr:
            lines.append(line)
            for name, words in MARKS.items():
                if words in line:
                    seconds.setdefault(name, time.perf_counter() - began)
    if process.returncode or len(seconds) < len(MARKS):
        raise SystemExit("the run did not make its step:\n" + "".join(lines[-20:]))
    return seconds | {"end of the process": time.perf_counter() - began}


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="starts with a warm compilation cache")
    parser.add_argument("--json", type=Path, help="write every number there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        experiment = folder / "experiment.gin"
        experiment.write_text(EXPERIMENT)
        store = make_store(folder, environment)
        cold = start(store, folder / "cold", experiment, environment)
        loads, warm = [], []
        for repetition in range(arguments.repetitions):
            loads.append(os.getloadavg()[0])
            warm.append(start(store, folder / f"warm-{repetition}", experiment, environment))
    medians = {name: statistics.median(run[name] for run in warm) for name in cold}
    table = Table(title=f"Seconds from process start, {len(warm)} starts, load {min(loads):.1f} to {max(loads):.1f}")
    for column in ("until", "cold cache", "warm cache, median", "best"):
        table.add_column(column, justify="left" if column == "until" else "right")
    for name, seconds in cold.items():
        best = min(run[name] for run in warm)
        table.add_row(name, f"{seconds:.2f}", f"{medians[name]:.2f}", f"{best:.2f}")
    console = Console()
    console.print(table)
    console.print(f"first step after {medians['first step']:.2f} s (target: at most {TARGET_SECONDS:.0f} s)")
    if arguments.json:
        arguments.json.write_text(json.dumps({"cold": cold, "warm": warm, "load": loads}, indent=1))


if __name__ == "__main__":
    main()

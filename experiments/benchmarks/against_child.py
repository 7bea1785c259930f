"""One measurement of one revision, as a child of against.py; the last line of its output is JSON.

    python experiments/benchmarks/against_child.py loader
    python experiments/benchmarks/against_child.py snapshot FOLDER
    python experiments/benchmarks/against_child.py chain DOCUMENTS SNAPSHOT
    python experiments/benchmarks/against_child.py step

A revision that has this file runs its own, so that it may follow the code; an older one is given that of the newer.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What the compiler writes about the source text: paths and lines of Python, which move without the program moving.
HLO_SOURCE = re.compile(r", metadata=\{[^}]*\}")
HLO_TABLES = re.compile(r"^(FileNames|FunctionNames|FileLocations|StackFrames)\n(?:.+\n)*", re.MULTILINE)
SHAPES = {
    "tiny": {"model": (512, 32, 64, 2, 4, 2), "batch": 8, "accumulation": 2, "length": 64},
    "cpu-60m": {"model": (32_000, 512, 2688, 8, 8, 2), "batch": 4, "accumulation": 1, "length": 512},
}


def loader() -> dict[str, float]:
    """Returns the median seconds of one batch of 32 x 1024 tokens, made in this thread, over windows."""
    import loader as benchmark

    try:
        from apertus_jax.data.loader.batch_loader import BatchLoader, ReadAhead
        from apertus_jax.data.sample_order.sample_stream import build_stream
    except ModuleNotFoundError:  # revisions from before data/ had packages
        from apertus_jax.data.sample_stream import build_stream

        from apertus_jax.data.loader import BatchLoader, ReadAhead

    with tempfile.TemporaryDirectory() as folder:
        sources = {
            name: benchmark.write_source(Path(folder), name, 3_000_000, n) for n, name in enumerate(("web", "books"))
        }
        mixture = benchmark.Mixture((benchmark.MixtureStage(rates={"web": 0.7, "books": 0.3}),))
        stream = build_stream(sources, mixture, benchmark.BatchSchedule(32), 1024, 0)
        batches = BatchLoader(stream, benchmark.VOCAB_SIZE, benchmark.EOD_ID)
        seconds = []
        with batches.iterate(0, 160, ReadAhead(0, 0)) as made:
            next(made)
            for _ in range(150):
                started = time.process_time()
                next(made)
                seconds.append(time.process_time() - started)
    return {"seconds": statistics.median(seconds)}


def snapshot(folder: str) -> dict[str, str]:
    """Builds the robots snapshot that `chain` asks, in this revision's format, and returns its path."""
    import corpus_chain_ours
    from corpus_robots import FILES

    from apertus_jax.corpus.robots_snapshot import build_robots_snapshot

    build_robots_snapshot(FILES, folder, corpus_chain_ours.DAY, progress=False)
    return {"path": folder}


def chain(documents: str, snapshot: str) -> dict[str, float]:
    """Returns the processor seconds of `prepare` over DOCUMENTS in one worker, the start of Python left out."""
    script = str(Path(__file__).parent / "corpus_chain_ours.py")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, script, documents, snapshot, f"{folder}/prepared", "pages"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": usage.ru_utime + usage.ru_stime}


def step() -> dict[str, str]:
    """Returns the digest of the optimised program of the train step, for each shape, without source positions."""
    from apertus_jax.model import ModelConfig
    from apertus_jax.objectives import goldfish, not_after_eod
    from apertus_jax.optimization import ademamix, optimizer_chain, weight_decay_mask, wsd_schedule
    from apertus_jax.sharding import MeshConfig
    from apertus_jax.training import Objective
    from apertus_jax.training.program import make_program

    digests = {}
    for name, shape in SHAPES.items():
        rate = wsd_schedule(1e-3, 64, 6400, 640)
        program = make_program(
            ModelConfig(*shape["model"]),
            optimizer_chain(ademamix(learning_rate=rate, mask=weight_decay_mask), 0.1),
            Objective([goldfish(k=50, h=50), not_after_eod(2)]),
            MeshConfig(),
            shape["accumulation"],
            shape["length"],
        )
        text = program.compile(shape["batch"]).as_text()
        digests[name] = hashlib.blake2b(
            HLO_TABLES.sub("", HLO_SOURCE.sub("", text)).encode(), digest_size=16
        ).hexdigest()
    return digests


def main() -> None:
    """Runs the measurement that the first argument names."""
    name, *arguments = sys.argv[1:]
    print(json.dumps({"loader": loader, "snapshot": snapshot, "chain": chain, "step": step}[name](*arguments)))


if __name__ == "__main__":
    main()

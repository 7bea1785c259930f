"""Every stage of the corpus beside its peers, one core, one run: documents or megabytes a second, and memory.

    python experiments/benchmarks/corpus.py --json corpus.json            about 15 minutes on a quiet core
    python experiments/benchmarks/corpus.py --rounds 1 --megabytes 4      a first look, about 3 minutes
    python experiments/benchmarks/corpus.py --stages memory               10^5 and 10^6 documents
    python experiments/benchmarks/corpus.py --stages memory --memory_documents 10000000        about an hour

Needs `pip install -r requirements-benchmarks.txt`, and apt for the Debian package gnome-user-docs (8 MB, fetched into
a temporary folder): 13,131 pages in 42 languages, 21.6 MB of text. Sides take turns (A B A B); medians are printed,
with the load average of the machine. Rates are per second of processor time, start of Python and imports included
where a side is a program of its own.

Stages:
- robots: verdicts of 15 agents on 4,231 real robots.txt files, documents grouped by host, beside Protego with parsed
  files kept. Ours says which rule refuses which agent; Protego answers yes or no.
- personal_data: e-mail and IP addresses beside datatrove's formatter; ours also knows IPv6 and checks boundaries.
- text: language and heuristics, and MinHash signatures, beside datatrove's blocks in one process.
- chain: `prepare` (score, aggregate, decide, select, apply, report; one worker process) beside datatrove's executor
  (one task, one worker); see corpus_chain_datatrove.py for what it does and what had to be given to it. Only ours:
  robots verdicts against a snapshot, exact duplicates by digest, repeated identities, a ledger row for each document
  with all scores, digests of everything written, the HTML report. Ours looks for copies within a language, datatrove
  among all documents.
- memory (only when named): the whole chain, the search for copies included, over tiny documents, a third of them
  copies; peak of the resident memory of all processes together, of the command and of its one worker.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus_chain_measurement as measurement
import corpus_chain_text as chain_text
import pyarrow.parquet
from corpus_robots import FILES
from rich.console import Console
from rich.table import Table

from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.robots import agent_set
from apertus_jax.corpus.robots_snapshot import build_robots_snapshot

STAGES = ("robots", "personal_data", "text", "chain")
MEMORY = "memory"
DAY = "2026-11-01"
# (limits, words) of datatrove's chain; see corpus_chain_datatrove.py.
PEER_CHAINS = (("own", "split"), ("all", "split"), ("own", "treebank"), ("all", "treebank"))
ROBOTS_TARGET, PERSONAL_DATA_TARGET, CHAIN_TARGET, CHAIN_RATE_TARGET = 5.0, 2.0, 2.0, 1.0

Row = dict[str, Any]


def main() -> None:
    """Runs the stages that were asked for and prints one table for each."""
    arguments = parse_arguments()
    measurement.use_one_core()
    console, figures = Console(), {}
    with tempfile.TemporaryDirectory(dir=arguments.work_folder) as name:
        folder = Path(name)
        pages = []
        if {"personal_data", "text", "chain"} & set(arguments.stages):
            help_folder = arguments.pages or chain_text.fetch_package(folder)
            pages = chain_text.read_pages(help_folder, arguments.megabytes)
        for stage in arguments.stages:
            rows = {
                "robots": lambda: robots(arguments.rounds),
                "personal_data": lambda: personal_data(pages, arguments.rounds),
                "text": lambda: text(pages, arguments.rounds),
                "chain": lambda: chain(pages, folder, arguments.rounds),
                MEMORY: lambda: [memory(int(size), folder) for size in arguments.memory_documents.split(",")],
            }[stage]()
            console.print(table_of(stage, rows))
            figures[stage] = {"load": os.getloadavg()[0], "rows": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Returns the arguments.

    Raises:
      SystemExit: a peer is missing, or an argument is not understood.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {', '.join((*STAGES, MEMORY))}")
    parser.add_argument("--rounds", type=int, default=5, help="how often every side is measured")
    parser.add_argument("--megabytes", type=float, help="an even choice of about so much of the pages")
    parser.add_argument("--pages", type=Path, help="usr/share/help of an unpacked gnome-user-docs, instead of apt")
    parser.add_argument("--memory", action="store_true", help="the stage memory, besides the others")
    parser.add_argument("--memory_documents", "--memory-documents", default="100000,1000000")
    parser.add_argument("--work_folder", help="where temporary files go")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    arguments.stages = arguments.stages.split(",") + [MEMORY] * arguments.memory
    if unknown := set(arguments.stages) - {*STAGES, MEMORY}:
        parser.error(f"stage {min(unknown)} does not exist; stages are {', '.join((*STAGES, MEMORY))}")
    for package in ("datatrove", "nltk"):
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f"{package} is missing: run pip install -r requirements-benchmarks.txt")
    if not FILES.is_dir():
        raise SystemExit(f"{FILES} is missing: run make install-dev")
    return arguments


def robots(rounds: int) -> list[Row]:
    """Returns documents a second of both sides, with files parsed before and from their bodies."""
    import corpus_robots

    agents = agent_set(chain_text.AGENTS).agents
    found = corpus_robots.measure(corpus_robots.read_hosts(20, 0), agents, rounds)
    ours, peer = found["apertus_jax"], found["protego"]
    kinds = {
        "documents/s, files kept": "documents_per_second_cached",
        "from the body": "documents_per_second_from_body",
    }
    return [compared(what, [ours[key]], "protego", [peer[key]], ROBOTS_TARGET) for what, key in kinds.items()]


def personal_data(pages: list[chain_text.Page], rounds: int) -> list[Row]:
    """Returns megabytes a second of both sides on the pages, and on the bundled text with planted values."""
    import corpus_personal_data
    from datatrove.pipeline.formatters import PIIFormatter

    from apertus_jax.corpus.personal_data import rewrite

    peer, policy = PIIFormatter(), corpus_personal_data.POLICIES["e-mail and IP"]
    rows = []
    planted, _ = corpus_personal_data.planted_documents(10, 200, 0)
    for name, texts in (("pages", [page.text for page in pages]), ("bundled texts, planted values", planted)):
        size = chain_text.megabytes_of(texts)
        sides = {
            "ours": lambda texts=texts: corpus_personal_data.seconds(lambda text: rewrite(text, policy), texts),
            "datatrove": lambda texts=texts: corpus_personal_data.seconds(peer.format, texts),
        }
        times = in_turns(sides, rounds)
        rates = {side: [size / each for each in times[side]] for side in times}
        rows.append(compared(f"MB/s, {name}", rates["ours"], "datatrove", rates["datatrove"], PERSONAL_DATA_TARGET))
    return rows


def text(pages: list[chain_text.Page], rounds: int) -> list[Row]:
    """Returns megabytes a second of language, heuristics and signatures in one process, without files."""
    import corpus_duplicates
    import corpus_quality

    from apertus_jax.corpus.language import LanguageScoring
    from apertus_jax.corpus.quality import QualityScoring

    texts = [page.text for page in pages]
    size = chain_text.megabytes_of(texts)
    documents = [RawDocument("0" * 32, each, "pages", "pages", row) for row, each in enumerate(texts)]
    language, quality = LanguageScoring().build(), QualityScoring().build()
    peer_language = corpus_quality.peer_language()
    everything = [block.filter for block in corpus_quality.peer_filters(stops_early=False)]
    early = [block.filter for block in corpus_quality.peer_filters(stops_early=True)]
    pairs = [
        ("language", [language], [peer_language], "split"),
        ("heuristics, all measures, split", [quality], everything, "split"),
        ("heuristics, all measures, treebank", [quality], everything, "treebank"),
        ("heuristics, peer stops early, split", [quality], early, "split"),
    ]
    rows = []
    for name, scorers, blocks, words in pairs:
        corpus_quality.ours(scorers, documents[:50])  # tables and models that a process loads once
        corpus_quality.theirs(blocks, documents[:50], words)
        sides = {
            "ours": lambda s=scorers: corpus_quality.seconds(lambda: corpus_quality.ours(s, documents)),
            "datatrove": lambda b=blocks, w=words: corpus_quality.seconds(
                lambda: corpus_quality.theirs(b, documents, w)
            ),
        }
        rates = {side: [size / each for each in times] for side, times in in_turns(sides, rounds).items()}
        rows.append(compared(f"MB/s, {name}", rates["ours"], "datatrove", rates["datatrove"]))
    runs = {"ours": corpus_duplicates.our_run(texts), "datatrove": corpus_duplicates.datatrove_run(texts)}
    sides = {side: lambda run=run: _seconds_in_folder(run) for side, run in runs.items()}
    rates = {side: [size / each for each in times] for side, times in in_turns(sides, rounds).items()}
    rows.append(compared("MB/s, MinHash signatures, split", rates["ours"], "datatrove", rates["datatrove"]))
    return rows


def _seconds_in_folder(run: Callable[[str], None]) -> float:
    """Returns the processor time of a run that writes into a folder."""
    import corpus_quality

    with tempfile.TemporaryDirectory() as folder:
        return corpus_quality.seconds(lambda: run(folder))


def chain(pages: list[chain_text.Page], folder: Path, rounds: int) -> list[Row]:
    """Returns megabytes a second of the whole chain: processor time of all processes, imports and start included."""
    documents, snapshot = folder / "input" / "pages.parquet", folder / "snapshot"
    documents.parent.mkdir()
    chain_text.write_pages(pages, documents)
    build_robots_snapshot(FILES, snapshot, DAY, progress=False)
    kept: dict[str, int] = {}
    runs: dict[str, list[measurement.Run]] = {}

    def side(name: str, script: str, *tail: str) -> Callable[[], measurement.Run]:
        def run() -> measurement.Run:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                output = Path(scratch) / "output"
                given = (documents, snapshot, output) if script == "corpus_chain_ours.py" else (documents, output)
                found = measurement.run_script(script, (*given, *tail), folder / "log")
                Console(stderr=True).print(f"{name}: {found.processor:.1f} s of processor, load {found.load:.1f}")
                files = output.glob("documents/*.parquet") if tail[0] != "pages" else _our_documents(output)
                kept[name] = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
                return found

        return run

    sides = {"ours": side("ours", "corpus_chain_ours.py", "pages")}
    for limits, words in PEER_CHAINS:
        name = f"MB/s, {limits} limits, {words}"
        sides[name] = side(name, "corpus_chain_datatrove.py", limits, words)
    runs = in_turns(sides, rounds)
    size = chain_text.megabytes_of(page.text for page in pages)
    rates = {name: [size / run.processor for run in of_side] for name, of_side in runs.items()}
    rows = []
    for name in list(sides)[1:]:
        row = compared(name, rates["ours"], "datatrove", rates[name], CHAIN_TARGET)
        rows.append(row | {"kept": f"{kept['ours']:,} / {kept[name]:,}", "load": _loads(runs, name)})
        for key, which in (("ours", "ours"), ("peer", name)):
            rows[-1][f"{key}_runs"] = [vars(run) for run in runs[which]]
    return rows


def _our_documents(output: Path) -> list[Path]:
    return [Path(part) / "documents.parquet" for part in parts_of(output)]


def _loads(runs: dict[str, list[measurement.Run]], name: str) -> str:
    """Returns the medians of the load averages that both sides met."""
    return " / ".join(f"{statistics.median(run.load for run in runs[side]):.1f}" for side in ("ours", name))


def memory(documents: int, folder: Path) -> Row:
    """Returns peak memory and time of the whole chain over so many tiny documents."""
    place = folder / f"tiny{documents}"
    (place / "input").mkdir(parents=True)
    path, snapshot = place / "input" / "tiny.parquet", place / "snapshot"
    chain_text.write_tiny(documents, path)
    build_robots_snapshot(FILES, snapshot, DAY, progress=False)
    output = place / "output"
    run = measurement.run_script("corpus_chain_ours.py", (path, snapshot, output, "tiny"), place / "log")
    funnel = json.loads((output / "funnel.json").read_text())
    parts = parts_of(output)
    kept = sum(pyarrow.parquet.read_metadata(part / "documents.parquet").num_rows for part in parts)
    return {
        "documents": documents,
        "units": len(parts),
        "kept": kept,
        "copies": sum(count for *_, decision, count in _decisions(funnel) if decision.endswith("duplicate")),
        "input_mb": path.stat().st_size / 1e6,
        "peak_mb": run.peak_mb,
        "parent_mb": run.parent_mb,
        "worker_mb": run.worker_mb,
        "documents_per_second": documents / run.processor,
        "seconds": run.wall,
        "load": run.load,
    }


def _decisions(funnel: dict[str, Any]) -> list[tuple[str, int]]:
    """Returns (decision, documents) of a funnel's rows."""
    return [(decision, documents) for _, _, decision, documents, *_ in funnel["counts"]]


def in_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Returns what every side returned in every round; the sides take turns."""
    results: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            results[name].append(run())
    return results


def compared(what: str, ours: list[float], peer: str, theirs: list[float], target: float | None = None) -> Row:
    """Returns a row of medians of rates and the median of their ratios by round."""
    ratio = statistics.median(own / other for own, other in zip(ours, theirs, strict=True))
    return {
        "what": what,
        "ours": statistics.median(ours),
        "peer": peer,
        "theirs": statistics.median(theirs),
        "ratio": ratio,
        "target": target,
    }


def table_of(stage: str, rows: list[Row]) -> Table:
    """Returns the table of a stage."""
    table = Table(title=f"{stage}: medians, sides in turns, one core (load average {os.getloadavg()[0]:.1f})")
    if stage == MEMORY:
        for column in (
            "documents",
            "units",
            "copies",
            "kept",
            "peak MB",
            "command",
            "worker",
            "documents/s",
            "wall s",
            "load",
        ):
            table.add_column(column, justify="right")
        for row in rows:
            counts = (f"{row[name]:,}" for name in ("documents", "units", "copies", "kept"))
            sizes = ("peak_mb", "parent_mb", "worker_mb", "documents_per_second", "seconds")
            table.add_row(*counts, *(f"{row[name]:,.0f}" for name in sizes), f"{row['load']:.1f}")
        return table
    columns = ["what", "ours", "peer", "its rate", "ratio", "target"]
    columns += ["kept, ours / its", "load"] if stage == "chain" else []
    for column in columns:
        table.add_column(column, justify="left" if column in ("what", "peer") else "right")
    for row in rows:
        digits = 0 if row["ours"] > 1000 else 2
        cells = [row["what"], f"{row['ours']:,.{digits}f}", row["peer"], f"{row['theirs']:,.{digits}f}"]
        cells += [f"{row['ratio']:.2f} x", f"{row['target']:g} x" if row["target"] else ""]
        table.add_row(*cells, *((row["kept"], row["load"]) if stage == "chain" else ()))
    if stage == "chain":
        table.caption = f"Target of our own rate: {CHAIN_RATE_TARGET:g} MB/s per core"
    return table


if __name__ == "__main__":
    main()

"""This checkout beside an earlier commit: is the loader or the corpus chain slower, is the train step the same program?

    python experiments/benchmarks/against.py 97609ab
    python experiments/benchmarks/against.py HEAD~1 --measure loader --alternations 20 --json against.json

REVISION is checked out into a temporary git worktree. Both sides run the same measurement in processes of their own, on
one core, in alternating order (A B, B A, …). Each pair gives one ratio of processor time, this checkout over REVISION;
what counts is the geometric mean of the ratios and its 95 % interval (Student's t over the logarithms of the pairs), so
that drift of a shared machine, which both of a pair feel, cancels. The whole interval has to lie below 1.05.

- loader: one batch of 32 x 1024 tokens (median of 150 batches in each process).
- chain: `prepare` over Debian's gnome-user-docs (fetched with apt, or --pages), one worker process, ledger included.
- step: no timing; the optimised HLO of the train step has to be the same text, source positions left out.

Exits with 1 when a limit is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus_chain_measurement import use_one_core
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path("experiments", "benchmarks", "against_child.py")
LIMIT = 1.05
# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom; the normal quantile beyond.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
STUDENT += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Returns the geometric mean of paired ratios and the ends of its 95 % interval."""
    logarithms = [math.log(ratio) for ratio in ratios]
    degrees = len(logarithms) - 1
    quantile = STUDENT[degrees - 1] if degrees <= len(STUDENT) else 1.96
    mean, half = statistics.mean(logarithms), quantile * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Yields a temporary worktree of `revision`, removed at the end.

    Raises:
      SystemExit: git knows no such revision.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "before")
        added = subprocess.run(
            ["git", "worktree", "add", "--detach", "-q", str(tree), revision], cwd=ROOT, capture_output=True, text=True
        )
        if added.returncode:
            raise SystemExit(f"git cannot check out {revision!r}: {added.stderr.strip()}")
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False)


def measure(tree: Path, *arguments: str) -> dict[str, Any]:
    """Runs one measurement with the code of `tree` in a process of its own."""
    script = tree / CHILD
    if not script.exists():  # an older revision: its own folder of benchmarks stays importable beside our script
        script.write_bytes((ROOT / CHILD).read_bytes())
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    done = subprocess.run([sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{tree}: {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def alternate(before: Path, name: str, arguments: dict[str, list[str]], pairs: int, console: Console) -> dict[str, Any]:
    """Measures both sides in turn, each with its own arguments → seconds, paired ratios, their mean and interval."""
    seconds: dict[str, list[float]] = {"before": [], "now": []}
    for number in range(pairs):
        sides = [("before", before), ("now", ROOT)]
        for side, tree in sides if number % 2 == 0 else reversed(sides):
            seconds[side].append(measure(tree, name, *arguments[side])["seconds"])
        ratio = seconds["now"][-1] / seconds["before"][-1]
        console.print(f"[dim]{name}: pair {number + 1} of {pairs}, ratio {ratio:.3f}[/dim]", highlight=False)
    ratios = [now / old for now, old in zip(seconds["now"], seconds["before"], strict=True)]
    mean, low, high = ratio_interval(ratios)
    return {**seconds, "ratios": ratios, "ratio": mean, "interval": [low, high], "holds": high < LIMIT}


def same_step(before: Path) -> dict[str, Any]:
    """Compares the optimised programs of both sides."""
    programs = {"before": measure(before, "step"), "now": measure(ROOT, "step")}
    return {**programs, "holds": programs["before"] == programs["now"]}


def chain_documents(folder: Path, pages: Path | None) -> Path:
    """Writes the documents of the chain and returns their path."""
    import corpus_chain_text

    texts = corpus_chain_text.read_pages(pages or corpus_chain_text.fetch_package(folder))
    documents = folder / "pages.parquet"
    corpus_chain_text.write_pages(texts, documents)
    return documents


def table_of(revision: str, figures: dict[str, Any]) -> Table:
    """Returns one row for each measurement."""
    table = Table(title=f"This checkout against {revision}")
    for column in ("measurement", "before, s", "now, s", "ratio", "95 % interval", "holds"):
        table.add_column(column, justify="left" if column == "measurement" else "right")
    for name, found in figures.items():
        verdict = "yes" if found["holds"] else "NO"
        if name == "step":
            table.add_row("step (HLO)", "", "", "same text" if found["holds"] else "differs", "", verdict)
            continue
        middle = [f"{statistics.median(found[side]):.4g}" for side in ("before", "now")]
        low, high = found["interval"]
        table.add_row(name, *middle, f"{found['ratio']:.3f}", f"{low:.3f} to {high:.3f}", verdict)
    return table


def main() -> int:
    """Measures what was asked for, prints the table, and returns 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", metavar="REVISION", help="the commit to compare with")
    parser.add_argument("--measure", choices=("step", "loader", "chain"), action="append", help="repeatable; all")
    parser.add_argument("--alternations", type=int, default=10, help="pairs of processes for each timed measurement")
    parser.add_argument("--pages", type=Path, help="unpacked usr/share/help of gnome-user-docs")
    parser.add_argument("--json", type=Path, help="write every number there")
    arguments = parser.parse_args()
    if arguments.alternations < 3:
        parser.error("an interval needs at least 3 alternations")
    use_one_core()
    console, figures = Console(), {}
    with checkout(arguments.revision) as before, tempfile.TemporaryDirectory() as folder:
        for name in arguments.measure or ("step", "loader", "chain"):
            if name == "step":
                figures[name] = same_step(before)
                continue
            given: dict[str, list[str]] = {"before": [], "now": []}
            if name == "chain":
                documents = str(chain_documents(Path(folder), arguments.pages))
                for side, tree in (("before", before), ("now", ROOT)):  # the table's format may have changed
                    given[side] = [documents, measure(tree, "snapshot", f"{folder}/{side}")["path"]]
            figures[name] = alternate(before, name, given, arguments.alternations, console)
    console.print(table_of(arguments.revision, figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(found["holds"] for found in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""AdEMAMix against AdamW, and WSD against cosine, at equal tokens: the whole study, from the texts to the comparison.

    python experiments/optimizer_study.py --output=runs/optimizer_study

Makes the quickstart's token store, trains the runs of gin_configs/ablations/optimizer_study.gin as one sweep, and
compares them. Start the same command again after an interruption: finished stages and runs are skipped, the one at work
goes on from its newest checkpoint. `--store=FOLDER` takes a store that is there already. Further flags (--steps,
--gin.NAME=VALUE) go to the sweep.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from apertus_jax.cli import main as apertus

GIN_FILE = "ablations/optimizer_study.gin"
STAGES = ["overlay", "robots-snapshot", "remove", "train-classifier", "prepare", "tokenize"]


def run_study(output: Path, store: Path | None, further: list[str]) -> int:
    """Runs the commands of the study in order; returns the exit status of the first that fails, or 0."""
    if store is None:
        store = output / "corpus" / "store"
        stages = f"--gin.run.stages={STAGES!r}"
        status = apertus(["run", "--gin_file=quickstart.gin", stages, f"--output={output / 'corpus'}"])
        if status:
            return status
    runs = output / "sweep"
    trained = apertus(["sweep", f"--gin_file={GIN_FILE}", f"--store={store}", f"--output={runs}", *further])
    # A run that failed, such as one whose learning rate is too high, does not keep the others from being compared.
    comparison = ["--best_of=PEAK", "--baseline=adamw_cosine", f"--output={output / 'comparison'}"]
    return apertus(["compare", str(runs), *comparison]) or trained


def main() -> int:
    """Reads the command line and runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--store", type=Path, help="token store; without it the quickstart's is made")
    arguments, further = parser.parse_known_args()
    return run_study(arguments.output, arguments.store, further)


if __name__ == "__main__":
    sys.exit(main())

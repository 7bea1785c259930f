"""Does the Goldfish mask keep a model from reciting, and what does it cost? Twins that differ in the mask alone.

    python experiments/goldfish_ablation.py --gin_file=ablations/goldfish_small.gin --output=runs/goldfish_small

With ablations/goldfish_test.gin it takes less than a minute and shows nothing but that it works, goldfish_small.gin
takes about half an hour on two quiet cores, goldfish_medium.gin wants an accelerator.

Every arm (no mask, the published mask, ours by document, ours by content and cluster) reads the same rows in the same
order from the same initial weights; one more has no mask and other weights, to show what chance does. Among ordinary
text lie probes, read exactly 0, 1, 2, 4, … 128 times, and clusters of near-duplicate copies. Afterwards each twin
continues the first tokens of every probe greedily. A finished arm is not trained again: start the same command after
an interruption. The output holds arms/ARM-SEED/, results.json, report.html.
`--gin.NAME=VALUE` binds one more value, for example --gin.GoldfishAblation.seeds='[0]'.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apertus_jax.cli import prepare_jax

sys.path.insert(0, str(Path(__file__).resolve().parent))
if __name__ == "__main__":
    prepare_jax()  # jax reads the environment when it is imported

import gin  # noqa: E402
import numpy as np  # noqa: E402
from goldfish_ablation_data import Planted, Texts, plant, prepare_texts  # noqa: E402
from goldfish_ablation_report import print_summary, write_report  # noqa: E402
from goldfish_ablation_settings import Arm, GoldfishAblation, parse_arm  # noqa: E402
from goldfish_ablation_summary import summarize  # noqa: E402
from goldfish_ablation_twins import Twins, measure  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import Progress  # noqa: E402

from apertus_jax import configuration  # noqa: E402
from apertus_jax.cli import split_gin_flags  # noqa: E402
from apertus_jax.errors import UserError  # noqa: E402
from apertus_jax.storage import artifacts

KIND = "goldfish_ablation_arm"
SETTINGS = "goldfish_ablation_settings:GoldfishAblation"


def read_settings(gin_files: list[str], bindings: list[str]) -> GoldfishAblation:
    """Builds the settings from gin files and bindings; raises UserError for what cannot be read."""
    configuration.register([SETTINGS])
    configuration.parse(gin_files, bindings)
    return gin.get_configurable("GoldfishAblation")()


def run(settings: GoldfishAblation, output: str, progress: bool = True) -> dict[str, Any]:
    """Trains every arm with every seed that is not finished yet, writes results and report, returns the summary."""
    folder = Path(output)
    texts = prepare_texts(settings)
    arms = [parse_arm(name) for name in settings.arms]
    results: list[dict[str, Any]] = []
    material: dict[int, Planted] = {}
    twins: Twins | None = None
    console = Console(stderr=True)
    with Progress(console=console, disable=not (progress and console.is_terminal)) as bars:
        for seed in settings.seeds:
            material[seed] = plant(settings, texts, seed)
            twins = twins or Twins(settings, texts, len(material[seed].rows))
            for arm in arms:
                steps = len(material[seed].rows) // settings.batch_size
                task = bars.add_task(f"{arm.name}, seed {seed}", total=steps)
                advance = functools.partial(bars.advance, task)
                results.append(finished_arm(folder, settings, arm, seed, texts, material[seed], twins, advance))
                bars.remove_task(task)
    summary = json.loads(json.dumps(summarize(settings, results, texts.refused), allow_nan=False))
    artifacts.write_atomically(folder / "results.json", json.dumps(summary, indent=2) + "\n")
    write_report(folder / "report.html", settings, summary, results, continuations(folder, settings), material, texts)
    if progress:
        print_summary(settings, summary)
    return summary


def finished_arm(
    folder: Path,
    settings: GoldfishAblation,
    arm: Arm,
    seed: int,
    texts: Texts,
    planted: Planted,
    twins: Twins,
    progress: Callable[[int], object],
) -> dict[str, Any]:
    """Returns the figures of one arm and seed, from its folder when it was finished before."""
    # Which other arms and seeds there are, and the margin of the report, change nothing in this arm.
    shared = {
        name: value for name, value in dataclasses.asdict(settings).items() if name not in ("arms", "seeds", "margin")
    }
    identity = {
        "settings": json.loads(json.dumps(shared)),
        "arm": arm.name,
        "seed": seed,
        "data": planted.digest,
        "tokenizer": texts.tokenizer.digest,
    }
    place = arm_folder(folder, arm.name, seed)
    if not artifacts.already_built(place, KIND, identity):
        place.parent.mkdir(parents=True, exist_ok=True)
        with artifacts.build(place, KIND, identity) as build:
            figures, arrays = measure(twins, arm, seed, texts, planted, progress)
            (build.path / "figures.json").write_text(json.dumps(figures) + "\n")
            np.savez(build.path / "continuations.npz", **arrays)
    return json.loads((place / "figures.json").read_text())


def arm_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where one arm and seed lie."""
    return folder / "arms" / f"{arm.replace(':', '-')}-seed{seed}"


def continuations(folder: Path, settings: GoldfishAblation) -> dict[tuple[str, int], np.ndarray]:
    """What each arm and seed generated, int32[probes and clusters, suffix]."""
    return {
        (arm, seed): np.load(arm_folder(folder, arm, seed) / "continuations.npz")["generated"]
        for arm in settings.arms
        for seed in settings.seeds
    }


def main() -> None:
    plain, bindings = split_gin_flags(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin_file", action="append", required=True, help="settings (repeatable)")
    parser.add_argument("--output", required=True, help="folder of the results")
    arguments = parser.parse_args(plain)
    run(read_settings(arguments.gin_file, bindings), arguments.output)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

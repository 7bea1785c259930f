"""Results of the optimizer study, written into docs/optimizer_study.md from the comparison of its runs.

    python experiments/optimizer_study_page.py --comparison=runs/optimizer_study/comparison

Keeps what it needs in notebooks/pictures/optimizer_study.json (committed: every final figure, commit and versions) and
writes the part of the page between its marks. Without --comparison it writes the part again from that record.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.storage.artifacts import write_atomically
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.sweeps.comparison.seed_statistics import (
    Contrast,
    contrast_over_blocks,
    mean_over_seeds,
    smallest_visible_difference,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))
from readme_figures import ROOT, provenance_of  # noqa: E402

PAGE, RECORD = Path("docs") / "optimizer_study.md", Path("notebooks") / "pictures" / "optimizer_study.json"
BEGIN = f"<!-- optimizer study: written by experiments/optimizer_study_page.py from {RECORD} -->"
END = "<!-- end of optimizer study -->"
METRIC = "held_out/loss"
PEAK = "PEAK"
ARMS = {
    "adamw_cosine": "AdamW, cosine",
    "adamw_wsd": "AdamW, WSD",
    "ademamix_cosine": "AdEMAMix, cosine",
    "ademamix_wsd": "AdEMAMix, WSD (the recipe)",
    "ademamix_wsd_65": "the recipe on 65 % of the tokens",
}
CONTRASTS: dict[str, dict[str, float]] = {
    "AdEMAMix instead of AdamW, under WSD": {"ademamix_wsd": 1, "adamw_wsd": -1},
    "AdEMAMix instead of AdamW, under cosine": {"ademamix_cosine": 1, "adamw_cosine": -1},
    "AdEMAMix instead of AdamW, mean of both": {
        **{"ademamix_wsd": 0.5, "ademamix_cosine": 0.5},
        **{"adamw_wsd": -0.5, "adamw_cosine": -0.5},
    },
    "WSD instead of cosine, with AdamW": {"adamw_wsd": 1, "adamw_cosine": -1},
    "WSD instead of cosine, with AdEMAMix": {"ademamix_wsd": 1, "ademamix_cosine": -1},
    "WSD instead of cosine, mean of both": {
        **{"adamw_wsd": 0.5, "ademamix_wsd": 0.5},
        **{"adamw_cosine": -0.5, "ademamix_cosine": -0.5},
    },
    "the recipe instead of AdamW with cosine": {"ademamix_wsd": 1, "adamw_cosine": -1},
    "the recipe on 65 % of the tokens instead of AdamW with cosine on all": {"ademamix_wsd_65": 1, "adamw_cosine": -1},
    "65 % of the tokens instead of all, with the recipe": {"ademamix_wsd_65": 1, "ademamix_wsd": -1},
}


def record_of(comparison: Path) -> dict[str, Any]:
    """Returns what the page is written from: the held-out loss of every arm, learning rate and seed.

    Raises:
      UserError: the comparison lacks an arm, or a run of the arms that are compared has not finished.
    """
    results = read_json_object(comparison / "results.json", allow_nan=True)
    found: dict[str, dict[str, dict[str, float]]] = {}
    tokens: dict[str, int] = {}
    for arm in results["arms"]:
        name = arm["name"].partition(",")[0]
        runs = {run["over"]: run["figures"].get(METRIC) for run in arm["runs"] if run["finished"]}
        found.setdefault(name, {})[arm["settings"][PEAK]] = runs
        tokens[name] = max(run["tokens"] for run in arm["runs"])
    if missing := sorted(ARMS.keys() - found.keys()):
        raise UserError(f"{comparison} has no arm {missing[0]}; compare the runs of ablations/optimizer_study.gin")
    command = "python experiments/optimizer_study.py --output=runs/optimizer_study; python " + " ".join(
        ("experiments/optimizer_study_page.py", "--comparison=runs/optimizer_study/comparison")
    )
    record = {**provenance_of(command), "losses": {name: found[name] for name in ARMS}, "tokens": tokens}
    best_rates(record)  # refuses what is not whole
    return record


def best_rates(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns arm → the learning rate with the lowest mean loss over seeds.

    Raises:
      UserError: the arms do not have the same two or more seeds there.
    """
    best = {}
    for arm, rates in record["losses"].items():
        whole = {rate: list(runs.values()) for rate, runs in rates.items() if runs and None not in runs.values()}
        if not whole:
            raise UserError(f"no run of arm {arm} has finished; start the study again")
        most = max(map(len, whole.values()))
        best[arm] = min((rate for rate in whole if len(whole[rate]) == most), key=lambda rate: np.mean(whole[rate]))
    seeds = [sorted(record["losses"][arm][rate]) for arm, rate in best.items()]
    if len(seeds[0]) < 2 or any(each != seeds[0] for each in seeds):
        raise UserError("the arms have not finished the same seeds at their best learning rates; start the study again")
    return best


def contrasts_of(record: Mapping[str, Any]) -> dict[str, Contrast]:
    """Returns question → its contrast, all arms at their best learning rates, seeds as blocks."""
    best = best_rates(record)
    arms = list(best)
    rows = [record["losses"][arm][best[arm]] for arm in arms]
    table = np.array([[row[seed] for seed in sorted(row)] for row in rows])
    return {
        question: contrast_over_blocks(table, [weights.get(arm, 0.0) for arm in arms])
        for question, weights in CONTRASTS.items()
    }


def part(record: Mapping[str, Any] | None) -> str:
    """Returns the part of the page; without a record it says so and shows no figure."""
    if record is None:
        return "Not measured yet: `python experiments/optimizer_study_page.py --comparison=FOLDER` writes this part."
    best, contrasts = best_rates(record), contrasts_of(record)
    return "\n\n".join(
        [
            *_power(record, best, contrasts),
            "## Results",
            _table(("question", "difference, nats per token", "answer"), map(_answer, contrasts, contrasts.values())),
            _table(
                ("arm", "tokens", *(f"peak {rate}" for rate in next(iter(record["losses"].values())))),
                [
                    (
                        ARMS[arm],
                        f"{record['tokens'][arm]:,}",
                        *(_cell(runs, best[arm] == rate) for rate, runs in rates.items()),
                    )
                    for arm, rates in record["losses"].items()
                ],
            ),
            f"Held-out loss, nats per token: mean over seeds ± half of its 95 % interval; **bold**: the arm's best. "
            f"Compared at commit `{record['commit'][:7]}`.",
            *_edges(record, best),
        ]
    )


def _power(record: Mapping[str, Any], best: Mapping[str, str], contrasts: Mapping[str, Contrast]) -> list[str]:
    """Returns the paragraphs that say which difference this size can show."""
    one = next(iter(contrasts.values()))
    seeds = len(record["losses"]["adamw_cosine"][best["adamw_cosine"]])
    visible = smallest_visible_difference(one.deviation * math.sqrt(2), seeds, one.freedom)
    loss = np.mean(list(record["losses"]["adamw_cosine"][best["adamw_cosine"]].values()))
    tokens = contrasts["65 % of the tokens instead of all, with the recipe"].difference
    if tokens > visible:
        judged = "a saving of a third of the tokens is well within what can be seen"
    else:
        judged = "a saving of a third of the tokens is at the edge of what can be seen, or below it"
    return [
        "## What this size can show",
        f"Once arm and seed are taken away, a run's held-out loss scatters by {one.deviation:.4f} nats per token "
        f"({one.freedom} degrees of freedom). With {seeds} seeds a true difference of {visible:.4f} nats between two "
        f"arms ({100 * visible / loss:.2f} % of the loss) is seen in four of five such studies; smaller ones are "
        f"mostly missed. On 65 % of its tokens the recipe ends {tokens:+.4f} nats from where it ends on all of them: "
        f"{judged}.",
    ]


def _answer(question: str, contrast: Contrast) -> tuple[str, str, str]:
    shown = f"{contrast.difference:+.4f} [{contrast.lower:+.4f}, {contrast.upper:+.4f}]".replace("-", "−")
    if contrast.upper < 0:
        return question, shown, "lower loss"
    return question, shown, "higher loss" if contrast.lower > 0 else "cannot be told apart"


def _cell(runs: Mapping[str, float], is_best: bool) -> str:
    values = [value for value in runs.values() if value is not None]
    if not values:
        return "failed"
    mean = mean_over_seeds(values)
    shown = f"{mean.mean:.4f}" if math.isnan(mean.upper) else f"{mean.mean:.4f} ± {mean.upper - mean.mean:.4f}"
    return f"**{shown}**" if is_best else shown


def _edges(record: Mapping[str, Any], best: Mapping[str, str]) -> list[str]:
    """Returns a sentence on arms whose best learning rate is the lowest or highest tried, if there are any."""
    ends = {arm: sorted(map(float, rates)) for arm, rates in record["losses"].items()}
    at_edge = [ARMS[arm] for arm, rate in best.items() if float(rate) in (ends[arm][0], ends[arm][-1])]
    told = "the best learning rate is the lowest or highest of the three, so a better one may lie beyond"
    return [f"For these arms {told}: {'; '.join(at_edge)}."] if at_edge else []


def _table(columns: Sequence[str], rows: Any) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_part(page: str, record: Mapping[str, Any] | None) -> str:
    """Returns the text of the page with its marked part written. Raises UserError when the marks are missing."""
    before, found, rest = page.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise UserError(f"{PAGE} lacks the marks {BEGIN} and {END}; put them around the results")
    return f"{before}{BEGIN}\n\n{part(record)}\n\n{END}{after}"


def committed_record() -> dict[str, Any] | None:
    """Returns the committed record, None before the study was measured."""
    return read_json_object(ROOT / RECORD) if (ROOT / RECORD).exists() else None


def main() -> None:
    """Writes record and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparison", type=Path, help="folder that `apertus compare` wrote")
    arguments = parser.parse_args()
    if arguments.comparison:
        text = json.dumps(record_of(arguments.comparison), indent=1, ensure_ascii=False)
        write_atomically(ROOT / RECORD, text + "\n")
    write_atomically(ROOT / PAGE, with_part((ROOT / PAGE).read_text(), committed_record()))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

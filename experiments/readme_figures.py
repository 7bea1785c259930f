"""Figures and pictures of README and docs/, written by the command that measured them.

    make quickstart
    python experiments/readme_figures.py quickstart --run=runs/quickstart
    python experiments/readme_figures.py ablation --run=runs/goldfish_small

Reads the folder of a finished run and writes what is committed: notebooks/pictures/NAME.json (every figure, the commit,
the versions, the digest of the picture), the picture beside it, and the part of README.md (the ablation's is in
docs/goldfish_ablation.md) between the marks `<!-- NAME: … -->` and `<!-- end of NAME -->`. tests/test_readme_figures.py
holds the pages to that record. `python experiments/readme_figures.py write` writes the parts again from the committed
records.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"quickstart": Path("README.md"), "ablation": Path("docs") / "goldfish_ablation.md"}
PICTURES = Path("notebooks") / "pictures"
RECORDS = {"quickstart": PICTURES / "quickstart.json", "ablation": PICTURES / "goldfish_ablation.json"}
DRAWN = {"quickstart": PICTURES / "quickstart_run.svg", "ablation": PICTURES / "goldfish_ablation.svg"}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tokenizers", "gflanguages", "apertus_jax")
ARM_NAMES = {
    "none": "no mask",
    "none:restarted": "no mask, other initial weights (chance)",
    "megatron": "published hash",
    "megatron_v2": "hash of version 2",
    "document": "by document",
    "cluster": "by duplicate cluster and content",
}
ABLATION_COLUMNS = (
    *("twin", "Rouge-L at {highest} readings (unseen: {unseen})", "share of the excess without a mask"),
    *("Rouge-L of near copies", "holes that the copies reveal", "held-out loss"),
)
Record = Mapping[str, Any]


def provenance_of(command: str) -> dict[str, Any]:
    """Returns under which commit, versions and machine something was measured.

    Raises:
      UserError: this is no git checkout.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{ROOT} is no git checkout, so the commit of the figures is not known; run it in one")
        return done.stdout.rstrip("\n")

    changed = [line[3:] for line in git("status", "--porcelain", "--untracked-files=no").splitlines()]
    ours = {*map(str, PAGES.values()), *map(str, RECORDS.values()), *map(str, DRAWN.values())}
    return {
        "command": command,
        "commit": git("rev-parse", "HEAD"),
        "changed_files": sorted(set(changed) - ours),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }


def measure_quickstart(run: Path) -> dict[str, Any]:
    """Returns the record of a finished quickstart; its picture is written.

    Raises:
      UserError: a stage is missing or was changed after it was finished.
    """
    prepared = artifacts.read_manifest(run / "prepared", "prepared_corpus")
    evaluation = artifacts.verify(run / "evaluation", "evaluation")
    overlay = artifacts.read_manifest(run / "overlay", "overlay")
    train = RunFolder(run / "train")
    model = artifacts.read_manifest(train.final_model, "model")
    finished = read_json_object(train.finished, allow_nan=True)
    rows = [json.loads(line) for line in train.metrics.read_text().splitlines()]
    results = read_json_object(run / "evaluation" / "results.json", allow_nan=True)
    steps = [row for row in rows if "gradient_norm" in row]
    if not steps or not finished.get("finished"):
        raise UserError(f"{run} has not finished training; start the same command again")
    last = steps[-1]
    kept = ("step", "loss", "gradient_norm", "learning_rate", "tokens_per_second", "model_flops_per_second")
    picture = DRAWN["quickstart"]
    draw_run(ROOT / picture, steps, results)
    return {
        **provenance_of("make quickstart; python experiments/readme_figures.py quickstart --run=runs/quickstart"),
        "digests": {"model": model["digest"], "prepared": prepared["digest"], "evaluation": evaluation["digest"]},
        "figures": {
            "documents": prepared["summary"]["documents"] + prepared["summary"].get("quarantined", 0),
            "overlay_documents": overlay["inputs"]["documents"],
            "parameters": finished["parameters"],
            "languages": finished["languages"],
            "tokens": finished["tokens"],
            "not_english": finished["non_english_share"],
            "unknown_language": finished.get("unknown_language_share", 0.0),
            "last_step": {name: last[name] for name in kept},
            "pooled": results["pooled"],
            "overlap": results["overlap"],
        },
        "pictures": {str(picture): digest_of(ROOT / picture)},
    }


def draw_run(path: Path, steps: Sequence[Mapping[str, float]], results: Mapping[str, Any]) -> None:
    """Draws loss and gradient norm of a run over its tokens, with what was measured on held-out text."""
    from apertus_jax.reports.axes import Axis
    from apertus_jax.reports.chart import write_svg
    from apertus_jax.reports.line_chart import Line, line_chart
    from apertus_jax.reports.units import COUNT

    tokens, pooled = Axis("trained tokens", COUNT, low=0.0), results["pooled"]
    levels = {
        "unigram model on held-out text": pooled["unigram_nats_per_token"],
        "held-out text's own unigram entropy": pooled["own_unigram_entropy"],
        "held-out loss": pooled["nats_per_token"],
    }

    def curve(name: str, key: str) -> list[Line]:
        return [Line(name, [row["tokens"] for row in steps], [row[key] for row in steps])]

    loss = line_chart(
        "Loss", curve("training loss", "loss"), tokens, Axis("nats per token"), levels=levels, smooth=True
    )
    norm = Axis("norm", scale="log")
    norms = line_chart("Gradient norm before clipping", curve("norm", "gradient_norm"), tokens, norm, smooth=True)
    write_svg(path, [loss, norms], width=960, columns=2)


def quickstart_text(record: Record) -> str:
    """Returns the README's part about the quickstart."""
    found = record["figures"]
    last, pooled = found["last_step"], found["pooled"]
    unknown = f", {100 * found['unknown_language']:.0f} % of unknown language" if found["unknown_language"] else ""
    (picture,) = record["pictures"]
    return f"""`make quickstart` installs into `.venv` and runs one gin file: prepare → data-summary → tokenize → pretrain → evaluate
→ export → generate. It decides {found["documents"]:,} documents (of which {found["overlay_documents"]} are a made-up crawl with known answers, to show that
the funnel of `runs/quickstart/prepared/report.html` tells the truth), trains a {found["parameters"] / 1e6:.1f} M parameter Apertus on texts in {found["languages"]}
languages and public-domain books that pip brings, and prints (`{record["commit"][:7]}`, {record["machine"]}):

```text
step {last["step"]}/{last["step"]}  loss {last["loss"]:.4f}  grad {last["gradient_norm"]:.3f}  lr {last["learning_rate"]:.2e}  {last["tokens_per_second"]:,.0f} tok/s  {last["model_flops_per_second"] / 1e9:,.1f} GFLOP/s  eta 0s
finished: {found["tokens"]} tokens in {found["languages"]} languages, {100 * found["not_english"]:.0f} % not English{unknown}; open …/runs/quickstart/train/report.html
pooled loss is {pooled["ratio_to_unigram"]:.3f} × the training text's unigram cross-entropy and {pooled["ratio_to_own_unigram_entropy"]:.3f} × the held-out text's own unigram entropy
overlap with training text: {found["overlap"]}
```

![Loss and gradient norm of the quickstart]({picture})"""  # noqa: E501


def measure_ablation(run: Path) -> dict[str, Any]:
    """Returns the record of a finished Goldfish ablation; its picture is written.

    Raises:
      UserError: there are no results.
    """
    results = read_json_object(run / "results.json")
    exposures = [str(each) for each in results["settings"]["exposures"]]
    highest = max(exposures, key=int)
    unseen = [arm["recall"]["0"]["rouge_l"]["value"] for arm in results["arms"].values()]
    picture = DRAWN["ablation"]
    recall = recall_of(results)
    draw_recall(ROOT / picture, recall)
    columns = [each.format(highest=highest, unseen=f"{min(unseen):.2f}–{max(unseen):.2f}") for each in ABLATION_COLUMNS]
    return {
        **provenance_of(f"python experiments/readme_figures.py ablation --run={run}"),
        "minutes": results["minutes_of_all_trainings"],
        "parameters": results["parameters"],
        "columns": columns,
        "rows": [ablation_row(name, arm, highest) for name, arm in results["arms"].items()],
        "recall": recall,
        "claims": [{name: each[name] for name in ("claim", "verdict", "reason")} for each in results["claims"]],
        "pictures": {str(picture): digest_of(ROOT / picture)},
    }


def ablation_row(name: str, arm: Mapping[str, Any], highest: str) -> list[str]:
    """Returns the cells of one twin."""
    copies, loss = arm["copies"], arm["held_out"]["all"]
    return [
        shown_name(name),
        f"{arm['recall'][highest]['rouge_l']['value']:.3f}",
        "1" if name == "none" else _with_interval(arm["excess_over_standard"], "value", "{:.2f}"),
        "–" if copies is None else f"{copies['rouge_l']['value']:.2f}",
        "–"
        if copies is None or copies["holes_revealed"] is None
        else f"{copies['holes_revealed']:.0%}".replace("%", " %"),
        "0" if name == "none" else _with_interval(loss, "difference", "{:+.1f} %", 100, "{:.1f}"),
    ]


def shown_name(name: str) -> str:
    """Returns what a twin is called on the page."""
    strategy, _, rest = name.partition(":")
    return ARM_NAMES.get(name) or f"{ARM_NAMES.get(strategy, strategy)}, k = {rest.partition(':')[0]}"


def _with_interval(
    found: Mapping[str, float | None], name: str, form: str, factor: float = 1, ends: str | None = None
) -> str:
    if found[name] is None:
        return "cannot be judged"
    shown = form.format(factor * found[name])
    if found["lower"] is None or found["upper"] is None:
        return f"{shown} (no interval)"
    lower, upper = ((ends or form).format(factor * found[end]) for end in ("lower", "upper"))
    return f"{shown} [{lower}, {upper}]".replace("-", "−")


def recall_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns Rouge-L of every twin at every exposure, with its interval, as it is recorded."""
    exposures = [str(each) for each in results["settings"]["exposures"]]
    ends = ("value", "lower", "upper")
    return {
        "exposures": exposures,
        "arms": {
            name: [{end: arm["recall"][each]["rouge_l"][end] for end in ends} for each in exposures]
            for name, arm in results["arms"].items()
        },
    }


def draw_recall(path: Path, recall: Mapping[str, Any]) -> None:
    """Draws recall against exposure of every twin, from a record."""
    from goldfish_ablation_report import exposure_chart

    from apertus_jax.reports.chart import write_svg

    shown = {name: shown_name(name) for name in recall["arms"]}
    chart = exposure_chart("Recall against exposure", recall["exposures"], recall["arms"], "Rouge-L", shown)
    write_svg(path, [chart], width=760)


def ablation_text(record: Record) -> str:
    """Returns the table of the ablation."""
    lines = [record["columns"], ["---"] * len(record["columns"]), *record["rows"]]
    table = "\n".join(f"| {' | '.join(cells)} |" if cells[0] != "---" else "|" + "---|" * len(cells) for cells in lines)
    return f"{table}\n\nMeasured at commit `{record['commit'][:7]}`."


def digest_of(path: Path) -> str:
    """Returns the SHA-256 digest of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


PARTS: dict[str, Callable[[Record], str]] = {"quickstart": quickstart_text, "ablation": ablation_text}
MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {"quickstart": measure_quickstart, "ablation": measure_ablation}


def marks(name: str) -> tuple[str, str]:
    """Returns what stands before and after a part of a page that is written here."""
    return f"<!-- {name}: written by experiments/readme_figures.py from {RECORDS[name]} -->", f"<!-- end of {name} -->"


def part(name: str, records: Mapping[str, Record]) -> str:
    """Returns the text of a part; one that has no record says so, and shows no figure."""
    if name in records:
        return PARTS[name](records[name])
    return f"Not measured yet: `python experiments/readme_figures.py {name} --run=RUN` writes this part."


def with_part(page: str, name: str, records: Mapping[str, Record]) -> str:
    """Returns the text of a page with its marked part written from the record.

    Raises:
      UserError: the marks of the part are missing.
    """
    begin, end = marks(name)
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{PAGES[name]} lacks the marks {begin} and {end}; put them around the part about {name}")
    return f"{before}{begin}\n{part(name, records)}\n{end}{after}"


def committed_records() -> dict[str, Record]:
    """Returns the records that are committed, by name."""
    return {name: read_json_object(ROOT / path) for name, path in RECORDS.items() if (ROOT / path).exists()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*MEASURES, "write"])
    parser.add_argument("--run", type=Path, help="folder of the finished run")
    arguments = parser.parse_args()
    if arguments.what != "write":
        if arguments.run is None:
            raise UserError(f"--run is missing; give the folder of the finished {arguments.what}")
        record = MEASURES[arguments.what](arguments.run)
        artifacts.write_atomically(
            ROOT / RECORDS[arguments.what], json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        )
    for name, page in PAGES.items():
        artifacts.write_atomically(ROOT / page, with_part((ROOT / page).read_text(), name, committed_records()))
    print(f"written: {', '.join(str(path) for path in (*PAGES.values(), *RECORDS.values()))}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

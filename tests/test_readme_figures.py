"""README and docs/ show the figures and pictures of the committed records, and nothing else; no training here."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "experiments"))
import readme_figures  # noqa: E402

from apertus_jax.errors import UserError  # noqa: E402

RECORDS = readme_figures.committed_records()
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / path).read_text() for name, path in readme_figures.PAGES.items()}


def part_of(name):
    """What stands between the marks of a part."""
    begin, end = readme_figures.marks(name)
    return PAGES[name].partition(begin)[2].partition(end)[0].strip("\n")


@pytest.mark.parametrize("name", readme_figures.PARTS)
def test_page_shows_what_the_record_says(name):
    assert part_of(name) == readme_figures.part(name, RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_names_commit_versions_and_command(name):
    record = RECORDS[name]
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"]) and record["command"]
    if record["versions"] is None:  # measured before records were kept
        assert record["note"]
    else:
        assert record["versions"].keys() >= {"python", "jax", "flax", "optax", "apertus_jax"} and record["machine"]


@pytest.mark.parametrize("name", RECORDS)
def test_pictures_are_those_of_the_record(name):
    for path, digest in RECORDS[name]["pictures"].items():
        assert readme_figures.digest_of(ROOT / path) == digest and path in PAGES[name]


def test_picture_of_the_ablation_is_drawn_from_its_record(tmp_path):
    recall = RECORDS["ablation"]["recall"]
    readme_figures.draw_recall(tmp_path / "drawn.svg", recall)
    assert (tmp_path / "drawn.svg").read_bytes() == (ROOT / readme_figures.DRAWN["ablation"]).read_bytes()
    # Of the twins that have a row of their own, the row says the same in three digits.
    rows = {row[0]: float(row[1]) for row in RECORDS["ablation"]["rows"] if re.fullmatch(r"[0-9.]+", row[1])}
    ends = {readme_figures.shown_name(name): values[-1]["value"] for name, values in recall["arms"].items()}
    assert len(rows) == 5 and {name: ends[name] for name in rows} == pytest.approx(rows, abs=0.0051)


def test_no_picture_is_without_a_record():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    linked = [(page.parent / path) for page in pages for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())]
    shown = [path.resolve().relative_to(ROOT).as_posix() for path in linked]
    recorded = {path for record in RECORDS.values() for path in record["pictures"]}
    assert shown and set(shown) <= recorded
    pictures = {str(path.relative_to(ROOT)) for path in (ROOT / readme_figures.PICTURES).glob("*.[ps][nv]g")}
    assert pictures == recorded


@pytest.mark.parametrize("sign", ["tok/s", "× the training text's unigram", "tokens in"])
def test_figures_of_the_quickstart_stand_in_its_part_alone(sign):
    assert sign not in README.replace(part_of("quickstart"), "")


RECORD = {
    "commit": "0123456789abcdef" * 2 + "01234567",
    "machine": "Linux x86_64, 2 processors",
    "figures": {
        "documents": 5432,
        "overlay_documents": 600,
        "parameters": 1_934_728,
        "languages": 738,
        "tokens": 1_228_800,
        "not_english": 0.67,
        "unknown_language": 0.0,
        "last_step": {
            "step": 600,
            "loss": 4.61843,
            "gradient_norm": 0.4081,
            "learning_rate": 4.08e-4,
            "tokens_per_second": 10_545.4,
            "model_flops_per_second": 106.4e9,
        },
        "pooled": {"ratio_to_unigram": 0.6141, "ratio_to_own_unigram_entropy": 0.6794},
        "overlap": "no 13-gram is shared",
    },
    "pictures": {"notebooks/pictures/quickstart_run.png": "00"},
}


def test_a_new_record_replaces_the_part_and_nothing_else():
    written = readme_figures.with_part(README, "quickstart", {**RECORDS, "quickstart": RECORD})
    begin, end = readme_figures.marks("quickstart")
    assert written.partition(begin)[0] == README.partition(begin)[0]
    assert written.partition(end)[2] == README.partition(end)[2]
    for figure in ("5,432 documents", "1.9 M parameter", "loss 4.6184", "grad 0.408", "0.614 ×", "0.679 ×", "0123456"):
        assert figure in written
    assert readme_figures.with_part(written, "quickstart", RECORDS) == README


@pytest.mark.parametrize("name", readme_figures.PARTS)
def test_page_without_marks_is_refused(name):
    with pytest.raises(UserError, match=f"{readme_figures.PAGES[name]} lacks the marks"):
        readme_figures.with_part("# apertus_jax\n", name, {"quickstart": RECORD})


def test_the_table_of_an_ablation_says_what_cannot_be_judged():
    interval = {"value": 0.2, "lower": 0.1, "upper": 0.3}
    arm = {
        "recall": {"8": {"rouge_l": interval}, "0": {"rouge_l": interval}},
        "excess_over_standard": {"value": None, "lower": None, "upper": None},
        "copies": None,
        "held_out": {"all": {"difference": -0.002, "lower": -0.006, "upper": 0.002}},
    }
    assert readme_figures.ablation_row("cluster:50:13", arm, "8") == [
        *("by duplicate cluster and content, k = 50", "0.200", "cannot be judged", "–", "–", "−0.2 % [−0.6, 0.2]"),
    ]
    json.dumps(arm, allow_nan=False)

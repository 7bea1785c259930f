"""The strict recipe of docs/corpus.md and of --help, run as printed: decides as planted, `why` names the line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from apertus_jax import cli
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.reasons import CONSENT_REASONS, Reason
from tests.corpus.prepare import recipe_inputs

ROOT = Path(__file__).parents[3]
SHELL = f'set -e\napertus() {{ "{sys.executable}" -m apertus_jax "$@"; }}\n'
HELP = ("robots-snapshot", "remove", "prepare")


def commands_of_page() -> str:
    """Returns the first commands of docs/corpus.md, as printed, to the question why."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "docs" / "corpus.md").read_text(), re.DOTALL)[1]
    return block[: block.index("\n", block.index("apertus why ")) + 1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with everything that the commands name, and what they printed there."""
    root = tmp_path_factory.mktemp("recipe")
    planted, pages = recipe_inputs.write_world(root)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "240"}
    ended = subprocess.run(
        ["bash", "-c", SHELL + commands_of_page()], cwd=root, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return root, planted, pages, ended


def ledger_of(prepared: Path) -> list[dict]:
    return [row for part in parts_of(prepared)
            for row in pyarrow.parquet.read_table(str(part / "ledger.parquet")).to_pylist()]  # fmt: skip


def expected(planted: str, row: dict, thresholds: dict[str, float]) -> str:
    """Returns the reason for a row of the overlay under this policy, which asks less than the quickstart's, and more.

    It does not trust what sources declare: whose language is less certain than most of this corpus goes for that.
    """
    closed_by_file = row["authority"] == recipe_inputs.hosts.TDM_FILE.name and planted == Reason.OPT_OUT_SIGNAL
    reason = "" if planted in recipe_inputs.NOT_ASKED_OF_THE_OVERLAY or closed_by_file else planted
    asked_before = (*CONSENT_REASONS, Reason.DUPLICATE_ID)
    if reason not in asked_before and row["language_score"] < thresholds.get(row["language_label"], 0.3):
        return Reason.LANGUAGE_UNCERTAIN
    return reason


def test_the_strict_recipe_decides_as_planted(world):
    root, planted, _, _ = world
    prepared = root / "runs/mine/prepared"
    thresholds = json.loads((prepared / "statistics.json").read_text())["language"]["thresholds"]
    rows = {(row["file"], row["row"]): row for row in ledger_of(prepared)}
    assert rows.keys() == planted.keys()
    wrong = [
        (planted[place], row["reason"], row["detail"], row["url"])
        for place, row in rows.items()
        if expected(planted[place], row, thresholds) != row["reason"]
    ]
    assert wrong == []
    uncertain = [row for row in rows.values() if row["reason"] == Reason.LANGUAGE_UNCERTAIN]
    assert len(uncertain) < 0.03 * len(rows)


def test_recipe_says_what_it_did_not_ask_and_why_names_the_line(world):
    _, _, _, ended = world
    last = ended.stderr.strip().splitlines()[-1]
    assert "documents kept under policy strict; NOT ASKED: contamination (switched off by the owner" in last
    assert "dropped: opt_out_signal" in ended.stdout
    assert "robots.txt of example.org, line 1: content_signal, ai-train=no" in ended.stdout


def test_why_names_what_kept_each_planted_page_out(world, capsys, monkeypatch):
    root, _, pages, _ = world
    monkeypatch.setenv("COLUMNS", "400")
    assert len(recipe_inputs.LICENCES) >= 40
    for page in pages:
        assert cli.main(["why", page.url, f"--input={root / 'runs/mine/prepared'}"]) == 0
        told = capsys.readouterr().out
        assert (f"dropped: {page.reason}" if page.reason else "kept") in told and page.words in told, page


def test_the_examples_of_help_run_as_printed(world):
    root, planted, _, _ = world
    examples = []
    for name in HELP:
        printed = subprocess.run(
            [sys.executable, "-m", "apertus_jax", name, "--help"], capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout  # fmt: skip
        examples.append(printed.partition("Example:\n")[2])
    (root / "help").mkdir()
    for name in ("my.jsonl", "requests.jsonl", "robots_warcs"):
        (root / "help" / name).symlink_to(root / name)
    ended = subprocess.run(
        ["bash", "-c", SHELL + "\n".join(examples)], cwd=root / "help", capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "NOT ASKED: contamination" in ended.stderr.strip().splitlines()[-1]
    for row in ledger_of(root / "help/runs/mine/prepared"):
        assert row["reason"] == planted["planted.jsonl", row["row"]]

"""Closing line: every command that writes a folder says last what lies there and what to open."""

import ast
import json
from pathlib import Path

import pytest

from apertus_jax import cli
from apertus_jax.command_line.closing_line import HELD, TELL_THEMSELVES, closing_line
from apertus_jax.storage import artifacts

PACKAGE = Path(cli.__file__).parent
# Folders that no command is asked for by itself.
INTERMEDIATE = {"prepare_plan", "prepare_selection", "checkpoint", "prepared_part"}


def kinds_of_the_package():
    """The values of the constants KIND of all modules."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "KIND":
                value = getattr(node.value, "value", None)
                if isinstance(value, str):
                    yield value


def test_every_kind_of_folder_has_a_closing_line():
    assert set(kinds_of_the_package()) <= HELD.keys() | set(TELL_THEMSELVES) | INTERMEDIATE


@pytest.fixture(scope="module")
def plan(workshop, tmp_path_factory):
    return tmp_path_factory.mktemp("plan") / "out", workshop / "experiment.gin"


def test_command_ends_with_what_it_did_and_the_report(plan, capsys):
    output, gin_file = plan
    arguments = ["plan", f"--gin_file={gin_file}", "--devices=1", "--device=h100", "--json"]
    for _ in range(2):  # the second time it is there already
        assert cli.main([*arguments, f"--output={output}"]) == 0
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"plan: planned; one device has the memory: True; open {output}/report.html"
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "plan: nothing was written; --output=FOLDER keeps it"
    assert cli.main([*arguments[:-1], "--print_config", f"--output={output}"]) == 0
    assert capsys.readouterr().err == ""


def test_tokenize_ends_with_its_counts(workshop, tmp_path, capsys):
    arguments = ["tokenize", f"--input={workshop / 'text.jsonl'}", f"--output={tmp_path / 'store'}"]
    assert cli.main([*arguments, "--gin.tokenize.vocab_size=340"]) == 0
    summary = json.loads((tmp_path / "store" / "COMMITTED.json").read_text())["summary"]
    expected = f"tokenize: {summary['num_documents']:,} documents, {summary['num_tokens']:,} tokens"
    assert capsys.readouterr().err.splitlines()[-1] == f"{expected}; in {tmp_path / 'store'}"


def test_run_ends_with_its_step_and_page_or_says_that_it_goes_on(run_copy):
    tokens = json.loads((run_copy / "finished.json").read_text())["tokens"]
    told = f"pretrain: finished at step 4, {tokens:,} tokens; open {run_copy}/report.html"
    assert closing_line("pretrain", str(run_copy)) == told
    (run_copy / "finished.json").unlink()
    assert closing_line("pretrain", str(run_copy)) == f"pretrain: not finished, the same command goes on; in {run_copy}"


def test_folder_of_several_stages_names_its_reports(tmp_path):
    for name, file in (("train", "report.html"), ("data_summary", "public_summary.html"), ("store", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("")
    told = f"run: done; open in {tmp_path}: data_summary/public_summary.html, train/report.html"
    assert closing_line("run", str(tmp_path)) == told


def test_folder_of_another_version_has_a_line_too(tmp_path):
    with artifacts.build(tmp_path / "out", "token_store", {}) as build:
        (build.path / "file").write_text("")
    assert closing_line("tokenize", str(tmp_path / "out")) == f"tokenize: token store written; in {tmp_path / 'out'}"

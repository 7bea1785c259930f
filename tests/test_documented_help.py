"""Every example of `--help` runs as it is printed; nothing of a command is changed.

The folder in which they run: documented_workspace.py.
"""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from apertus_jax import cli
from tests.documented_workspace import Documented, copy_of_the_workspace, run_all

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "experiments"))
import readme_figures  # noqa: E402

# Examples that are not run here, by their command.
HELP_NOT_RUN = {
    "run": "the quickstart itself: minutes of training",
    "reproduce": "tests/pipeline/test_reproduce.py runs a chain again",
}
# `prepare` reads what these write; the other commands stand in the table in the order of the data.
BEFORE_ALL_OTHERS = ("remove", "robots-snapshot")


def documented():
    """The examples of `--help`, in the order of the table of commands."""
    found = []
    for name in sorted(cli.COMMANDS, key=lambda name: name not in BEFORE_ALL_OTHERS):
        command = cli.COMMANDS[name]
        if name not in HELP_NOT_RUN:
            found += [Documented(each.example, f"{name} --help") for each in (command, *command.variants.values())]
    return found


RUN = documented()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder like that of a reader of `--help`."""
    return copy_of_the_workspace(tmp_path_factory)


@pytest.fixture(scope="module")
def outcomes(workspace):
    """{what is run: (exit code, output)}."""
    return run_all(RUN, workspace)


@pytest.mark.parametrize("command", RUN, ids=str)
def test_example_of_help_runs_as_it_is_printed(outcomes, command):
    code, said = outcomes[command]
    assert code == 0, f"{command.text}\n{said[-3000:]}"


def test_every_command_is_run():
    names = {each.words()[1] for each in RUN}
    assert names == cli.COMMANDS.keys() - HELP_NOT_RUN
    assert HELP_NOT_RUN.keys() <= cli.COMMANDS.keys()


def test_figures_of_a_finished_quickstart_become_a_record(workspace, monkeypatch, tmp_path):
    """What `experiments/readme_figures.py quickstart` reads is what the quickstart writes."""
    monkeypatch.setattr(readme_figures, "provenance_of", lambda command: {"commit": "0" * 40, "machine": "this one"})
    monkeypatch.setattr(readme_figures, "ROOT", tmp_path)
    (tmp_path / readme_figures.PICTURES).mkdir(parents=True)
    record = readme_figures.measure_quickstart(workspace / "runs" / "quickstart")
    shown = readme_figures.quickstart_text(json.loads(json.dumps(record)))
    results = json.loads((workspace / "runs" / "quickstart" / "evaluation" / "results.json").read_text())
    assert f"{results['pooled']['ratio_to_unigram']:.3f} ×" in shown and results["overlap"] in shown
    assert "step 401/401  loss" in shown and "400 are a made-up crawl" in shown
    (picture,) = record["pictures"]
    assert ElementTree.fromstring((tmp_path / picture).read_bytes()).tag.endswith("svg")

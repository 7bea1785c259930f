"""The run folder: one owner of its names, and one line for a model that it does not have."""

import ast
import re
from pathlib import Path

import pytest

from apertus_jax.commands import COMMANDS
from apertus_jax.errors import UserError
from apertus_jax.storage import run_folder
from apertus_jax.storage.run_folder import RunFolder, step_folder, step_of_folder

PACKAGE = Path(__file__).resolve().parent.parent / "apertus_jax"
# Words that name other things too: a kind of folder, a page of any command.
SHARED = {"profile", "model", "tokenizer", "report.html", "tensorboard", "save", "exit", "LEASE.json"}


def texts_in(path: Path) -> set[str]:
    """Returns every text constant of a module."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def commit(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "COMMITTED.json").write_text("{}")


def test_names_of_a_run_folder_stand_in_one_module():
    names = run_folder.OWN_NAMES - SHARED
    assert names == {
        "run.json",
        "mixture.json",
        "metrics.jsonl",
        "tracked.json",
        "finished.json",
        "config.gin",
        "checkpoints",
        "starts.jsonl",
        "profiles",
    }
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "storage" / "run_folder.py":
            assert not texts_in(path) & names, path


def test_every_name_of_a_run_folder_is_drawn():
    for name in run_folder.OWN_NAMES:
        assert re.search(rf"/{re.escape(name)}\b", run_folder.__doc__), name


def test_every_command_that_reads_a_model_takes_a_step():
    commands = [each for command in COMMANDS.values() for each in (command, *command.variants.values())]
    readers = [each for each in commands if {"run", "model"} & set(each.flags.values())]
    # Its question is about the order of the data, not about a model.
    readers = [each for each in readers if each.function != "provenance"]
    assert {each.function for each in readers} > {"evaluate", "evaluate_tasks", "generate", "export", "memorization"}
    for each in readers:
        assert each.flags.get("step") == "step", each.function


def test_missing_step_names_the_committed_steps(tmp_path):
    run = RunFolder(tmp_path)
    for step in (200, 400):
        commit(Path(step_folder(run.checkpoints, step)))
    step_folder(run.checkpoints, 600).mkdir()
    assert run.model(200) == step_folder(run.checkpoints, 200)
    with pytest.raises(UserError, match=r"no checkpoint of step 600; give one .* with --step: 200, 400$"):
        run.model(600)
    with pytest.raises(UserError, match=r"has not finished; give one .* with --step: 200, 400$"):
        run.model()


def test_run_without_a_checkpoint_says_to_wait(tmp_path):
    with pytest.raises(UserError, match="no committed checkpoint yet, wait for the first"):
        RunFolder(tmp_path).model()


def test_many_steps_are_counted_rather_than_listed(tmp_path):
    run = RunFolder(tmp_path)
    for step in range(1, 31):
        commit(Path(step_folder(run.checkpoints, step)))
    with pytest.raises(UserError, match=r": 11, 12, .*, 30 and 10 earlier ones$"):
        run.model(99)


def test_finished_run_gives_its_final_model(tmp_path):
    commit(tmp_path / "model")
    assert RunFolder(tmp_path).model() == RunFolder(tmp_path).final_model


@pytest.mark.parametrize("name", ["step_7", "step_00000000070", "step_abcdefghij", "7"])
def test_folder_of_another_name_is_no_step(name):
    assert step_of_folder(name) is None

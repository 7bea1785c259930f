"""docs/plugins.md: its module, gin lines and commands as printed; a kill and a resume; the flag is asked for again."""

import json
import shlex

import gin
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax import cli, configuration
from apertus_jax.configuration import registry
from apertus_jax.training.records.recorder import Recorder
from tests.configuration.conftest import own_folder
from tests.documented_blocks import blocks_of
from tests.tiny_experiment import TINY_CHAIN, TINY_MODEL, write_documents

MODULE, SETTINGS, COMMANDS, ANEW, WANDB = (block.text for block in blocks_of("docs/plugins.md"))


def called(line):
    """Runs one printed command line in this process; returns the status."""
    return cli.main(shlex.split(line)[1:])


class Lab:
    """The folder of the page after its commands: what each of them returned, by name of the command."""

    def __init__(self, folder):
        self.folder = folder
        self.lines = {line.split()[1]: line for line in COMMANDS.splitlines()}
        self.status = {}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A lab in which the page was followed; `pretrain` was killed at step 3 and typed again."""
    with own_folder(tmp_path_factory.mktemp("plugins")) as folder:
        (folder / "my_lab.py").write_text(MODULE)
        (folder / "my_lab.gin").write_text(SETTINGS)
        settings = [line for line in TINY_CHAIN.format(root=folder).splitlines() if "optimizer" not in line]
        (folder / "my.gin").write_text(
            TINY_MODEL + "\n".join(settings) + "\nTrainingConfig.log_every = 1\nTrainingConfig.checkpoint_every = 2\n"
        )
        write_documents(folder / "my.jsonl", 150, seed=5)
        lab = Lab(folder)
        for name, line in lab.lines.items():
            if name == "pretrain":
                lab.status["killed"] = killed_at_step_3(line)
                lab.figures_of_killed = (folder / "runs/lab/train/tracker_figures.csv").read_text()
            lab.status[name] = called(line)
        yield lab


def killed_at_step_3(line):
    """Runs `pretrain` until it is about to write the row of step 4."""
    original = Recorder.write_row

    def kill(self, step):
        if step == 4:
            raise KeyboardInterrupt
        original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "write_row", kill)
        return called(line)


def test_every_command_of_the_page_succeeds(page):
    assert page.status.pop("killed") == 130
    assert page.status == dict.fromkeys(("help", "prepare", "tokenize", "pretrain", "generate"), 0)


def test_rule_of_the_page_decides(page):
    summary = json.loads((page.folder / "runs/lab/prepared/COMMITTED.json").read_text())["summary"]
    short = sum(len(json.loads(line)["text"]) < 60 for line in (page.folder / "my.jsonl").open())
    assert 0 < short < 150 and summary["kept"] <= 150 - short
    assert summary["documents"] - summary["kept"] >= short


def test_mask_and_optimizer_of_the_page_were_trained(page):
    record = json.loads((page.folder / "runs/lab/train/run.json").read_text())
    assert record["config"]["pretrain.optimizer"] == "@lion" and record["config"]["lion.b2"] == "0.98"
    assert "version 1.0" in record["config"]["# imported: my_lab"]
    rows = [json.loads(line) for line in (page.folder / "runs/lab/train/metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(0.8 < row["kept_fraction"] < 0.97 for row in rows), "one pair in ten"


def test_tracker_of_the_page_has_each_point_once(page):
    def points(text):
        return [tuple(line.split(",")[:2]) for line in text.splitlines()]

    ended = points((page.folder / "runs/lab/train/tracker_figures.csv").read_text())
    assert len(ended) == len(set(ended)) and {step for step, _ in ended} == {"1", "2", "3", "4"}
    assert {step for step, _ in points(page.figures_of_killed)} == {"1", "2", "3"}


def without_flag(line):
    """Runs a command line as another process would, to which nobody gave the module."""
    imported = dict(registry.imported)
    registry.imported.clear()
    try:
        return called(line.replace(" --import=my_lab", ""))
    finally:
        registry.imported.update(imported)


@pytest.mark.parametrize("command", ["generate", "export", "evaluate", "memorization", "pretrain"])
def test_run_of_the_page_asks_for_its_module(page, capsys, command):
    other = f"apertus {command} --input=runs/lab/train --output=runs/lab/{command}"
    assert without_flag(page.lines.get(command, other)) == 2
    line = capsys.readouterr().err
    assert "made with the module my_lab, which this command line does not give" in line
    assert "add --import=my_lab" in line and line.count("\n") == 1


def test_model_folder_alone_asks_for_its_module(page, capsys, tmp_path):
    (page.folder / "runs/lab/train/model").rename(tmp_path / "moved")
    try:
        assert without_flag(f"apertus generate --input={tmp_path / 'moved'} --output=x --prompt=sun") == 2
        assert "add --import=my_lab" in capsys.readouterr().err
    finally:
        (tmp_path / "moved").rename(page.folder / "runs/lab/train/model")


def test_export_of_the_page_says_what_cannot_be_exported(page, capsys):
    assert called("apertus export --import=my_lab --input=runs/lab/train --output=runs/lab/huggingface") == 2
    line = capsys.readouterr().err
    assert "cannot be exported to Hugging Face: its feedforward 'SwiGLU' has no format" in line
    assert not (page.folder / "runs/lab/huggingface").exists()


def test_altered_module_is_told_at_the_resume(page, capsys):
    imported = registry.imported["my_lab"]
    registry.imported["my_lab"] = registry.ImportedModule("my_lab", "0" * 64, "1.1")
    try:
        assert called(page.lines["pretrain"]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "the code of my_lab has changed: give the files it was started with" in line
        assert "pretrain.allow_config_change = True" in line
        assert called(f"{page.lines['generate']}2") == 2
        assert "made with another my_lab" in capsys.readouterr().err
    finally:
        registry.imported["my_lab"] = imported


def test_altered_rule_is_asked_again(page, capsys):
    assert called(page.lines["prepare"]) == 0
    source = page.folder / "my_lab.py"
    try:
        source.write_text(MODULE.replace("< self.characters", "<= self.characters"))
        assert called(page.lines["prepare"]) == 2
        assert "choose another output folder" in capsys.readouterr().err
    finally:
        source.write_text(MODULE)


def test_mask_of_the_page_that_draws_anew_draws_its_share():
    names = {}
    exec(ANEW, names)
    batch = {"tokens": jnp.zeros((8, 129), jnp.int32)}
    first, second, again = (
        np.asarray(names["drop_anew"](0.2)(batch | {"samples_consumed": jnp.asarray([0, low], jnp.uint32)}))
        for low in (8, 16, 8)
    )
    assert 0.15 < 1 - first.mean() < 0.25 and (first == again).all() and (first != second).any()


def test_gin_lines_of_the_page_for_wandb_are_read(lab):
    (lab / "wandb.gin").write_text(WANDB)
    configuration.parse(["wandb.gin"], [])
    assert gin.query_parameter("WandbTracker.mode") == "offline"

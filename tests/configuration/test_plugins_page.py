"""docs/plugins.md: its module, gin lines and commands as printed; a kill and a resume; the flag is asked for again."""

import json

import gin
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax import configuration
from apertus_jax.configuration import registry
from tests.configuration.conftest import called, called_without_import, killed_at_step_3, own_folder
from tests.documented_blocks import blocks_of
from tests.tiny_experiment import TINY_CHAIN, TINY_MODEL, write_documents

MODULE, SETTINGS, COMMANDS, ANEW, WANDB = (block.text for block in blocks_of("docs/plugins.md"))


class Lab:
    """The folder of the page after its commands: what each of them returned, by name of the command."""

    def __init__(self, folder):
        self.folder = folder
        self.lines = {line.split()[1]: line for line in COMMANDS.replace("\\\n", "").splitlines()}
        self.status = {}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A lab in which the page was followed; `pretrain` and the sweep's second run were killed at step 3 of 4, and typed
    again."""
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
            if name == "sweep":
                lab.status["killed sweep"] = killed_at_step_3(line, time=2)
                lab.runs_of_killed = [path.parent.name for path in folder.glob("runs/lab/sweep/*/finished.json")]
            lab.status[name] = called(line)
        yield lab


def test_every_command_of_the_page_succeeds(page):
    killed = dict.fromkeys(("killed", "killed sweep"), 130)
    commands = ("help", "prepare", "tokenize", "pretrain", "generate", "sweep", "compare")
    assert page.status == dict.fromkeys(commands, 0) | killed


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


def test_sweep_of_the_page_goes_on_and_is_compared(page):
    def weights(run):
        marker = json.loads((page.folder / run / "model/COMMITTED.json").read_text())
        return marker["files"]["parameters.safetensors"]

    assert page.runs_of_killed == ["k=5"]
    # The run that was killed in the sweep is the one that `pretrain` made, which was killed as well.
    assert weights("runs/lab/sweep/k=10") == weights("runs/lab/train") != weights("runs/lab/sweep/k=5")
    arms = json.loads((page.folder / "runs/lab/comparison/results.json").read_text())["arms"]
    assert [arm["settings"] for arm in arms] == [{"drop_pairs.k": "5"}, {"drop_pairs.k": "10"}]
    assert len({arm["figures"]["train/loss"]["mean"] for arm in arms}) == 2
    metrics = [(page.folder / f"runs/lab/sweep/k={k}/metrics.jsonl").read_text() for k in (5, 10)]
    kept = [json.loads(text.splitlines()[-1])["kept_fraction"] for text in metrics]
    assert kept[0] < 0.85 < kept[1]


@pytest.mark.parametrize("command", ["generate", "export", "evaluate", "memorization", "pretrain"])
def test_run_of_the_page_asks_for_its_module(page, capsys, command):
    other = f"apertus {command} --input=runs/lab/train --output=runs/lab/{command}"
    assert called_without_import(page.lines.get(command, other)) == 2
    line = capsys.readouterr().err
    assert "made with the module my_lab, which this command line does not give" in line
    assert "add --import=my_lab" in line and line.count("\n") == 1


def test_model_folder_alone_asks_for_its_module(page, capsys, tmp_path):
    (page.folder / "runs/lab/train/model").rename(tmp_path / "moved")
    try:
        assert called_without_import(f"apertus generate --input={tmp_path / 'moved'} --output=x --prompt=sun") == 2
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

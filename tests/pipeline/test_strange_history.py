"""`reproduce` of a stranger's run: the history of its changes says neither where to write nor what else to run."""

import json
import shutil

import pytest

from apertus_jax.cli import main

CHANGE = {"step": 1, "sample": 8, "date": "2026-01-01T00:00:00Z", "binding": "", "old": "", "new": "1"}


@pytest.fixture(scope="module")
def short_chain(gin_file, tmp_path_factory):
    """A copy of the chain with nothing in it but what the first two stages wrote."""
    folder = tmp_path_factory.mktemp("stranger") / "chain"
    for name in ("store", "train"):
        shutil.copytree(gin_file.parent / "chain" / name, folder / name)
    shutil.copy(gin_file.parent / "chain" / "operative_config.gin", folder)
    return folder


@pytest.mark.parametrize(
    ("binding", "old"),
    [
        ("pretrain.output", "'{victim}'"),
        ("pretrain.store", "'{victim}'"),
        ("tokenize.output", "'{victim}'"),
        ("evaluate_tasks.allow_code", "True"),
        ("prepare.beam_options", "['--runner=other']"),
        ("RunSchedule.stop_step", "1"),
        ("RunSchedule.learning_rate", "@tokenize()"),
    ],
)
def test_history_says_neither_places_nor_code(short_chain, tmp_path, capsys, binding, old):
    victim = tmp_path / "victim"
    victim.mkdir()
    record = json.loads((short_chain / "train" / "run.json").read_text())
    record["history"] = [{**CHANGE, "binding": binding, "old": old.format(victim=victim)}]
    stranger = shutil.copytree(short_chain, tmp_path / "chain")
    (stranger / "train" / "run.json").write_text(json.dumps(record))
    flags = ["--gin.reproduce.stages=['tokenize','pretrain']", f"--output={tmp_path / 'again'}"]
    assert main(["reproduce", f"--input={stranger}", *flags]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("apertus: ") and (binding in line or old in line)
    assert not list(victim.iterdir()) and not list((tmp_path / "again" / "train").glob("checkpoints/step_*"))

"""Where runs may be: their own folders. Whatever is something else is refused and stays as it was."""

import json
import logging
import os
import shutil

import pytest

from apertus_jax.cli import main
from tests.command_line.conftest import content


def tree(folder):
    """Returns every path below a folder, its bytes, and when it was written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def make(kind, place, workshop, finished_run):
    """Makes a folder that is something else, and returns where a run is to go."""
    if kind == "a token store":
        shutil.copytree(workshop / "store", place)
    elif kind == "inside a token store":
        shutil.copytree(workshop / "store", place)
        return place / "run"
    elif kind == "a model":
        shutil.copytree(finished_run / "model", place)
    elif kind == "half a corpus":
        place.mkdir()
        (place / "BUILDING.json").write_text('{"kind": "prepared_corpus"}')
    elif kind == "somebody's folder":
        place.mkdir()
        (place / "thesis.txt").write_text("three years")
    elif kind == "somebody's run.json":
        place.mkdir()
        (place / "run.json").write_text('{"exit_code": 0}')
    elif kind == "a run.json cut short":
        shutil.copytree(finished_run, place)
        (place / "run.json").write_bytes((place / "run.json").read_bytes()[:100])
    elif kind == "a file":
        place.write_text("text")
    return place


KINDS = (
    "a token store",
    "inside a token store",
    "a model",
    "half a corpus",
    "somebody's folder",
    "somebody's run.json",
    "a run.json cut short",
    "a file",
)


@pytest.mark.parametrize("kind", KINDS)
def test_pretrain_refuses_what_is_no_run_folder(pretrain, workshop, finished_run, tmp_path, kind):
    output = make(kind, tmp_path / "place", workshop, finished_run)
    before = tree(tmp_path)
    complaint = pretrain(output).complaint
    assert str(tmp_path / "place") in complaint
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", [*KINDS[:5], "a file", "a run"])
def test_run_refuses_what_is_no_chain(workshop, finished_run, tmp_path, capsys, kind):
    if kind == "a run":
        output = shutil.copytree(finished_run, tmp_path / "place")
    else:
        output = make(kind, tmp_path / "place", workshop, finished_run)
    before = tree(tmp_path)
    assert main(["run", f"--gin_file={workshop / 'experiment.gin'}", f"--output={output}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("apertus: ") and "--output" in line
    assert tree(tmp_path) == before


def test_a_run_killed_before_its_record_may_start_again(pretrain, tmp_path):
    output = tmp_path / "run"
    (output / "checkpoints").mkdir(parents=True)
    for name in ("LEASE.json", ".config.gin.partial", "save"):
        (output / name).touch()
    assert pretrain(output).status == 0


def test_a_run_that_came_further_says_what_is_saved(pretrain, run_copy):
    before = content(run_copy)
    complaint = pretrain(run_copy, "--steps=3").complaint
    assert f"{run_copy} has saved step 4, beyond --steps=3; give at least 4" in complaint
    assert content(run_copy) == before


@pytest.mark.parametrize("steps", ["-5", "0", "1.5", "many"])
def test_impossible_numbers_of_steps_leave_no_folder(pretrain, tmp_path, steps):
    assert steps in pretrain(tmp_path / "run", f"--steps={steps}").complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("run.json", b'{"identity": ' + b"[" * 100_000),
        ("run.json", b'{"identity": {}, "config": {}}'),
        ("mixture.json", b'{"seed": 1'),
        ("mixture.json", b'{"seed": ' + b"9" * 5000 + b"}"),
        ("mixture.json", b'{"from_step": "first"}'),
        ("mixture.json", b"{}"),
        ("mixture.json", b'{"earlier": 3}'),
        ("mixture.json", b'{"earlier": [3]}'),
        ("mixture.json", b'{"batch_schedule": {"first": 1}, "sequence_length": 32}'),
        ("mixture.json", b'{"batch_schedule": {"initial": 8}, "sequence_length": true}'),
        ("finished.json", b'"done"'),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_records_that_are_damaged_are_named(pretrain, run_copy, name, damage):
    (run_copy / name).write_bytes(damage)
    before = content(run_copy)
    complaint = pretrain(run_copy, "--steps=5").complaint
    assert name in complaint and len(complaint) < 500
    assert content(run_copy) == before


def test_a_history_that_is_damaged_is_named(pretrain, run_copy):
    record = json.loads((run_copy / "run.json").read_text())
    for history in (
        [{"step": 2}],
        [3],
        {"step": 2},
        [{"step": "2", "sample": 1, "date": "", "binding": "a", "old": None, "new": None}],
    ):
        (run_copy / "run.json").write_text(json.dumps(record | {"history": history}))
        assert "history in run.json is damaged" in pretrain(run_copy, "--steps=5").complaint


def test_steps_beyond_the_schedule_are_told_before_the_first(pretrain, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    wsd = ("RunSchedule.learning_rate=@wsd_schedule()", "wsd_schedule.peak=1e-3", "wsd_schedule.warmup_samples=8")
    bindings = [f"--gin.{each}" for each in (*wsd, "wsd_schedule.decay_samples=8", "wsd_schedule.total_samples=20")]
    assert pretrain(tmp_path / "run", *bindings).status == 0
    [line] = [record.getMessage() for record in caplog.records if "learning-rate schedule" in record.getMessage()]
    assert "ends after 20 samples and the run after 32: steps 3 to 3 train on at its final rate" in line
    assert "--steps=3" in line
    messages = [record.getMessage() for record in caplog.records]
    assert messages.index(line) < next(i for i, text in enumerate(messages) if "compiled the step" in text)


def test_a_schedule_in_fractions_follows_the_run(pretrain, tmp_path, caplog):
    bindings = [
        f"--gin.{each}"
        for each in (
            "RunSchedule.learning_rate=@wsd_schedule()",
            "wsd_schedule.peak=1e-3",
            "wsd_schedule.warmup_fraction=0.25",
            "wsd_schedule.decay_fraction=0.5",
            "TrainingConfig.log_every=1",
        )
    ]
    run = tmp_path / "run"
    assert pretrain(run, *bindings).status == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [1e-3 * rate for rate in (0.1, 1.0, 1.0, 0.1 + 0.9 * (1 - 0.5**0.5))]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)
    assert "schedule" not in caplog.text
    # Longer, it would have another learning rate from here on: a change of the configuration like any other.
    complaint = pretrain(run, *bindings, "--steps=6").complaint
    assert "SAMPLES_OF_RUN: 32 -> 48" in complaint and "allow_config_change" in complaint
    assert pretrain(run, *bindings, "--steps=6", "--gin.pretrain.allow_config_change=True").status == 0
    [change, steps] = json.loads((run / "run.json").read_text())["history"]
    assert (change["binding"], change["step"], change["old"], change["new"]) == ("SAMPLES_OF_RUN", 4, "32", "48")
    assert (steps["binding"], steps["old"], steps["new"]) == ("RunSchedule.total_steps", "4", "6")


def test_a_link_to_nothing_is_no_folder(pretrain, tmp_path):
    os.symlink(tmp_path / "nowhere", tmp_path / "run")
    complaint = pretrain(tmp_path / "run").complaint
    assert str(tmp_path / "run") in complaint and not (tmp_path / "nowhere").exists()

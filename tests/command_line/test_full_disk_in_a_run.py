"""A disk that fills up during `apertus pretrain`: one line, and a run that goes on bit for bit once there is space."""

import json
import sys
import types
from pathlib import Path

import pytest

from apertus_jax.checkpoints import Checkpointer
from tests.checkpoints.crash_points import CrashPoints
from tests.command_line.conftest import Ended

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def crash_points(tmp_path_factory):
    """The compiled interposer; skips where it cannot be built."""
    return CrashPoints.build(tmp_path_factory.mktemp("crash_points"))


@pytest.fixture
def filled(crash_points, workshop):
    """Returns a function that runs the tiny experiment in a process whose disk fills up."""

    def call(output, place, operation) -> Ended:
        command = [sys.executable, str(HERE / "filling_pretrain.py"), str(place), str(operation), "pretrain"]
        arguments = [f"--gin_file={workshop / 'experiment.gin'}", f"--input={workshop / 'store'}", f"--output={output}"]
        done = crash_points.run(
            [*command, *arguments], output, environment={"PYTHONPATH": str(HERE.parents[1])}, timeout=120
        )
        return Ended(done.returncode, done.stderr)

    return call


def trained(run_folder):
    """Returns the digests of the final model and the logged numbers that do not depend on the clock."""
    manifest = json.loads((run_folder / "model" / "COMMITTED.json").read_text())
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "samples", "loss", "gradient_norm", "kept_fraction", "learning_rate")
    return manifest["files"], [[row[name] for name in kept] for row in rows]


@pytest.mark.parametrize("operation", [1, 12])
def test_full_disk_while_saving_ends_with_the_same_bits(filled, pretrain, finished_run, tmp_path, operation):
    run = tmp_path / "run"
    complaint = filled(run, 4, operation).complaint
    assert "saving step 4" in complaint and "the disk is full" in complaint and str(run) in complaint
    assert "the last good checkpoint is step 2" in complaint and "free space and resume" in complaint
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_0000000002"]
    with Checkpointer(run / "checkpoints") as checkpoints:
        assert checkpoints.valid_steps() == [2]
    assert not (run / "model").exists() and not (run / "finished.json").exists()
    assert pretrain(run).status == 0
    assert trained(run) == trained(finished_run)


def test_full_disk_before_any_checkpoint_lets_the_run_restart(filled, pretrain, finished_run, tmp_path):
    run = tmp_path / "run"
    assert "the disk is full; free space and run the same command again" in filled(run, "start", 4).complaint
    assert pretrain(run).status == 0
    assert trained(run) == trained(finished_run)


def test_only_the_late_callbacks_of_a_failed_save_are_silenced(monkeypatch, apertus):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(str(unraisable.exc_value)))
    apertus("pretrian")
    apertus("pretrian")
    for error in (RuntimeError("Event loop is closed"), RuntimeError("other"), ValueError("Event loop is closed")):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert reported == ["other", "Event loop is closed"]

"""Trackers over several starts of a run: each point once, whoever keeps what; Weights & Biases without its service."""

import json
import types

import pytest

from apertus_jax.errors import UserError
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.training import TrainingConfig
from apertus_jax.training.records.run_record import config_differences
from apertus_jax.training.records.telemetry import MetricsLog, read_rows
from apertus_jax.training.records.tracking import Tracking
from apertus_jax.training.trackers import TensorBoardTracker
from apertus_jax.training.wandb_tracker import WandbTracker


class ServiceTracker:
    """Keeps what it was told, whatever becomes of the process."""

    name = "service"
    keeps_points = True

    def __init__(self):
        self.told = []

    def open(self, run):
        self.run = run

    def write(self, step, figures):
        self.told += [(step, tag) for tag in figures]

    def close(self):
        pass


class FileTracker(ServiceTracker):
    """Begins anew at each start."""

    name = "file"
    keeps_points = False

    def open(self, run):
        self.told = [(point.step, tag) for point in run.points for tag in point.figures]


def start(folder, trackers, first_step, last_step, ends=False):
    """One start of a run at `first_step`: a row at each step, an evaluation at every second; killed after the last."""
    run = types.SimpleNamespace(
        folder=RunFolder(folder),
        name="a run",
        training=types.SimpleNamespace(trackers=trackers),
        schedule=types.SimpleNamespace(total_steps=9),
        bindings={"ModelConfig.hidden_size": "32"},
    )
    rows = read_rows(run.folder.metrics)
    folder.mkdir(exist_ok=True)
    metrics, tracking = MetricsLog(folder, first_step), Tracking(run, first_step, rows)
    for step in range(first_step + 1, last_step + 1):
        for row in ({"step": step, "loss": 1.0}, {"step": step, "evaluator": "e", "metrics": {"m": float(step)}}):
            if "loss" in row or step % 2 == 0:
                metrics.write(row)
                tracking.write(row)
    metrics.close()
    if ends:
        tracking.close()


def expected(last):
    points = [[(step, "train/loss")] + [(step, "evaluation/e/m")] * (step % 2 == 0) for step in range(1, last + 1)]
    return [point for each in points for point in each]


def test_every_tracker_has_each_point_once(tmp_path):
    service, file = ServiceTracker(), FileTracker()
    for first, last in ((0, 7), (5, 6), (5, 8), (2, 3), (2, 9)):
        start(tmp_path, (TensorBoardTracker(), service, file), first, last)
        assert file.told == expected(last)
    assert service.told == expected(9)
    assert service.run.bindings == {"ModelConfig.hidden_size": "32"} and service.run.first_step == 2


def test_points_of_one_step_are_told_apart(tmp_path):
    """Killed between the row of step 4 and its evaluation, which the next start makes up for."""
    service = ServiceTracker()
    start(tmp_path, (service,), 0, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.0}\n')
    service.told.append((4, "train/loss"))
    start(tmp_path, (service,), 2, 6)
    assert sorted(service.told) == sorted(expected(6))


def test_tracker_bound_later_is_told_what_came_before(tmp_path):
    service, other = ServiceTracker(), ServiceTracker()
    other.name = "other"
    start(tmp_path, (), 0, 4)
    start(tmp_path, (service,), 3, 6)
    start(tmp_path, (other,), 5, 7)  # the first is left out for a while
    start(tmp_path, (service, other), 6, 9)
    assert service.told == expected(9) and other.told == expected(9)


def test_identifier_of_a_run_stays(tmp_path):
    service = ServiceTracker()
    identifiers = []
    for folder in ("one", "one", "two"):
        start(tmp_path / folder, (service,), 0, 1)
        identifiers.append(service.run.identifier)
    assert identifiers[0] == identifiers[1] != identifiers[2] and len(identifiers[0]) == 16


def test_run_with_tensorboard_alone_records_no_marks(tmp_path):
    start(tmp_path, TrainingConfig().trackers, 0, 3, ends=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


@pytest.mark.parametrize("method", ["open", "write"])
def test_tracker_that_fails_is_one_line(tmp_path, monkeypatch, method):
    def fail(self, *arguments):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(ServiceTracker, method, fail)
    with pytest.raises(UserError, match=r"tracker service cannot .*\(ConnectionError: no route\); mend it") as caught:
        start(tmp_path, (ServiceTracker(),), 0, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"identifier": "a", "trackers": {"service": {"open": true}}}'])
def test_damaged_record_of_trackers_is_one_line(tmp_path, content):
    start(tmp_path, (ServiceTracker(),), 0, 2)
    (tmp_path / "tracked.json").write_text(content)
    with pytest.raises(UserError, match="tracked.json is damaged .* restore it, or remove it"):
        start(tmp_path, (ServiceTracker(),), 1, 2)


@pytest.mark.parametrize(
    ("trackers", "told"),
    [
        ([ServiceTracker(), ServiceTracker()], "two of TrainingConfig.trackers are called 'service'"),
        ([ServiceTracker], r"ServiceTracker in TrainingConfig.trackers is a class; write @ServiceTracker\(\)"),
        ([print], "lacks name, keeps_points, open, write, close"),
        ("wandb", "TrainingConfig.trackers = 'wandb' must be a list"),
    ],
)
def test_what_is_no_tracker_is_refused(trackers, told):
    with pytest.raises(UserError, match=told):
        TrainingConfig(trackers=trackers)


def test_trackers_may_change_between_starts():
    old = {"TrainingConfig.trackers": "[]", "WandbTracker.project": "'a'"}
    assert config_differences(old, {"TrainingConfig.trackers": "[@WandbTracker()]"}) == []


def offline_points(folder):
    """Returns (identifier, [(step, tag)]) of every offline run of Weights & Biases in a folder, from its own files."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    wandb.teardown()  # its own process writes the files, and has ended after this
    found = []
    for path in sorted(folder.glob("tracker_wandb/wandb/offline-run-*/*.wandb")):
        store, points = DataStore(), []
        store.open_for_scan(str(path))
        while (content := store.scan_data()) is not None:
            record = Record.FromString(content)
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            points += [(row["step"], tag) for tag in row if tag != "step" and not tag.startswith("_")]
        found.append((path.stem.removeprefix("run-"), points))
    return found


def test_offline_wandb_has_each_point_once_after_a_resume(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed; it is in requirements-dev.txt")
    tracker = WandbTracker(mode="offline")
    start(tmp_path, (tracker,), 0, 4, ends=True)
    ((first, points),) = offline_points(tmp_path)
    assert sorted(points) == sorted(expected(4))
    start(tmp_path, (tracker,), 2, 5, ends=True)
    assert [(name, sorted(points)) for name, points in offline_points(tmp_path)] == [(first, sorted(expected(5)))]


def test_wandb_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr("apertus_jax.training.wandb_tracker.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"WandbTracker needs the package wandb; run pip install 'apertus_jax\[wandb\]'"
    ):
        TrainingConfig(trackers=[WandbTracker()])

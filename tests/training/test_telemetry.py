"""Metrics on disk: rows survive kills, TensorBoard reads the events."""

import json

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from apertus_jax.training.telemetry import MetricsLog, TensorBoardLog, format_seconds, read_metrics


def test_rows_after_the_restored_step_are_cut_off(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.write({"step": step, "loss": 1.0 / step})
    log.close()
    MetricsLog(tmp_path, 20).close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write({"step": 1, "loss": float("nan")})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": "nan"}


def test_tensorboard_reads_what_was_written(tmp_path):
    log = TensorBoardLog(tmp_path, 0)
    log.write(10, {"train/loss": 2.5})
    log.write(20, {"train/loss": 1.5})
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = []
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            found.append((event.step, value.tag, value.tensor.float_val[0]))
    assert found == [(10, "train/loss", 2.5), (20, "train/loss", 1.5)]


@pytest.mark.parametrize(("seconds", "spelled"), [(41.6, "42s"), (187, "3m07s"), (7500, "2h05m")])
def test_durations_are_spelled_for_people(seconds, spelled):
    assert format_seconds(seconds) == spelled

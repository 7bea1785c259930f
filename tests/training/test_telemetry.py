"""Metrics on disk: rows survive kills, TensorBoard reads the events."""

import json

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from apertus_jax.training.records.telemetry import (
    MetricsLog,
    TensorBoardLog,
    format_seconds,
    read_metrics,
    scalars_of_row,
)


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


def points(folder):
    """Returns every scalar in the event files as a reader that knows nothing of restarts finds them."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            found += [(event.step, value.tag, value.tensor.float_val[0]) for value in event.summary.value]
    return found


def write_points(folder, steps, first_step, rows=True):
    """Writes a point and an evaluation for each step, as a start of a run at `first_step` does."""
    metrics, log = MetricsLog(folder, first_step), TensorBoardLog(folder, first_step)
    for step in steps:
        for row in (
            {"step": step, "loss": 1.0 / step},
            {"step": step, "evaluator": "e", "metrics": {"m": float(step)}},
        ):
            if rows:
                metrics.write(row)
            log.write(step, scalars_of_row(row))
    metrics.close()
    log.close()


def expected(steps):
    return sorted(
        [(step, "train/loss", pytest.approx(1.0 / step)) for step in steps]
        + [(step, "evaluation/e/m", float(step)) for step in steps],
        key=lambda point: (point[0], point[1] != "train/loss"),
    )


@pytest.mark.parametrize("rows", [True, False], ids=["with metrics", "alone"])
def test_a_run_that_goes_on_has_every_point_once(tmp_path, rows):
    write_points(tmp_path, range(1, 6), 0, rows)
    write_points(tmp_path, range(6, 8), 5, rows)
    assert points(tmp_path) == expected(range(1, 8))
    write_points(tmp_path, range(5, 10), 4, rows)  # from an earlier checkpoint
    assert points(tmp_path) == expected(range(1, 10))


def test_points_that_a_kill_took_come_from_the_metrics(tmp_path):
    write_points(tmp_path, range(1, 6), 0)
    [path] = (tmp_path / "tensorboard").iterdir()
    for size in (len(path.read_bytes()) // 2, 11, 0):
        path.write_bytes(path.read_bytes()[:size])
        TensorBoardLog(tmp_path, 5).close()
        assert points(tmp_path) == expected(range(1, 6))
        [path] = (found for found in (tmp_path / "tensorboard").iterdir() if "_to_" in found.name)


def test_an_open_tensorboard_is_told_to_forget(tmp_path):
    write_points(tmp_path, range(1, 6), 0)
    write_points(tmp_path, range(6, 8), 5)
    first = min((tmp_path / "tensorboard").iterdir())
    events = list(EventFileLoader(str(first)).Load())
    assert events[1].session_log.status == 1 and events[1].step == 0


def test_a_row_that_was_written_twice_counts_once(tmp_path):
    row = '{"step": 5, "loss": 2.0}\n'
    (tmp_path / "metrics.jsonl").write_text(row + row + '{"step": 5, "evaluator": "e", "metrics": {}}\n')
    MetricsLog(tmp_path, 5).close()
    assert len(read_metrics(tmp_path)) == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2

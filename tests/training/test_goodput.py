"""Goodput over the starts of a run, from times written by hand."""

import json

import pytest

from apertus_jax.training.records.goodput import goodput_of, read_goodput


def start(began, time, step):
    return {"event": "start", "began": began, "time": time, "step": step}


def reached(time, step):
    return {"event": "reached", "time": time, "step": step}


# 10 s of starting, 40 s for 20 steps; killed there and found after 30 s; 10 s of starting again from step 15.
EVENTS = [start(0.0, 10.0, 0), reached(30.0, 10), reached(50.0, 20), start(80.0, 90.0, 15), reached(110.0, 25)]


def test_steps_done_again_and_pauses_do_not_count():
    found = goodput_of(EVENTS)
    assert (found.starts, found.whole, found.starting, found.between) == (2, 110.0, 20.0, 30.0)
    assert found.kept == pytest.approx(30.0 + 20.0) and found.again == pytest.approx(10.0)
    assert found.kept + found.again + found.starting + found.between == pytest.approx(found.whole)
    assert found.share == pytest.approx(50 / 110) and "45.5 % of 110 s in 2 starts" in found.told()


def test_a_start_that_did_no_step_counts_as_starting():
    found = goodput_of([*EVENTS[:3], start(60.0, 70.0, 20), start(75.0, 80.0, 20), reached(90.0, 25)])
    assert (found.starts, found.kept, found.again) == (3, 50.0, 0.0)
    assert found.starting == 25.0 and found.between == pytest.approx(10.0 + 5.0)


def test_goodput_passes_over_damaged_lines(tmp_path):
    assert read_goodput(tmp_path) is None
    lines = [json.dumps(event) for event in EVENTS]
    (tmp_path / "starts.jsonl").write_text("\n".join([*lines[:2], '{"event": "rea', *lines[2:], "7"]))
    assert read_goodput(tmp_path) == goodput_of(EVENTS)
    assert goodput_of([]) is None


def test_report_of_a_run_tells_its_goodput(finished_run):
    assert " in 1 starts (" in (finished_run / "report.html").read_text()
    assert 0 < read_goodput(finished_run).share < 1

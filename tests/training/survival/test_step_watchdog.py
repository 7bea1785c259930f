"""A step that takes too long is told with the stacks of all threads; what is no step is not taken for one."""

import pytest

from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.step_watchdog import StepWatchdog


class Result:
    """An array that is there or not."""

    def __init__(self, ready=False):
        self.ready = ready

    def is_ready(self):
        return self.ready


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def watch(tmp_path):
    """Returns a function that makes a watchdog on a clock of its own, with the lines it would have ended with."""
    files = []

    def make(**limits):
        clock, lines = Clock(), []
        stacks = (tmp_path / "stacks").open("w+")
        files.append(stacks)
        end = lambda line, checkpoints: lines.append(line)  # noqa: E731
        watchdog = StepWatchdog(JobLimits(**limits), tmp_path, end, stacks, clock, first_step=6)
        return watchdog, clock, lines, tmp_path / "stacks"

    yield make
    for file in files:
        file.close()


def test_a_stuck_step_dumps_stacks_and_says_which(watch, capsys):
    watchdog, clock, lines, stacks = watch(step_seconds=10.0)
    done, stuck = Result(True), Result()
    watchdog.begun(7, done)
    watchdog.begun(8, stuck)
    watchdog.look()
    clock.now += 10
    watchdog.look()
    assert stacks.read_text() == ""
    clock.now += 1
    watchdog.look()
    watchdog.look()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "apertus: step 8 takes 11.0 s, JobLimits.step_seconds = 10" in told
    assert "test_a_stuck_step_dumps_stacks_and_says_which" in stacks.read_text() and not lines
    stuck.ready = True
    watchdog.look()
    clock.now += 11
    watchdog.look()
    assert "step 9 takes 11.0 s" in capsys.readouterr().err, "the next one is told again"


def test_a_stuck_step_ends_the_process_where_that_is_set(watch):
    watchdog, clock, lines, stacks = watch(step_seconds=1.0, on_stuck="end")
    clock.now += 2
    watchdog.look()
    assert lines == ["step 7 takes 2.0 s, JobLimits.step_seconds = 1; the stacks of its threads stand above"]
    assert "Thread" in stacks.read_text() or "File" in stacks.read_text()


def test_evaluations_and_compiling_are_no_stuck_steps(watch, capsys):
    watchdog, clock, lines, _ = watch(step_seconds=1.0, on_stuck="end")
    with watchdog.paused():
        clock.now += 100
        watchdog.look()
    watchdog.look()
    assert not lines and not capsys.readouterr().err


def test_a_save_beyond_its_bound_ends_the_process(watch):
    watchdog, clock, lines, _ = watch(save_seconds=30.0)
    with watchdog.bounded("saving step 7", 30.0):
        clock.now += 30
        watchdog.look()
        assert not lines
        clock.now += 1
        watchdog.look()
    assert lines == ["saving step 7 took longer than 30 s"]
    clock.now += 100
    watchdog.look()
    assert len(lines) == 1


def test_watching_thread_ends_with_its_block(watch):
    watchdog, *_ = watch(step_seconds=1000.0)
    with watchdog:
        assert watchdog._thread.is_alive()
    assert not watchdog._thread.is_alive()
    idle, *_ = watch()
    with idle:
        assert not idle._thread.is_alive(), "nothing to watch"

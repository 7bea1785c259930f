"""Who is lost, who is told, and where all stop, among processes that are threads here."""

import contextlib
import threading
import time

import jax
import pytest

from apertus_jax.errors import TemporaryFailure, UserError
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.job_monitor import JobMonitor, Silence
from apertus_jax.training.survival.stop_agreement import StopAgreement

LIMITS = JobLimits(lost_seconds=5.0)


class SharedTexts:
    """A job's key-value store in this process; `channel(i)` is how process i sees it."""

    def __init__(self, count):
        self.count, self.texts = count, {}

    def channel(self, index):
        return Channel(self, index)


class Channel:
    def __init__(self, shared, index):
        self._shared, self.index, self.count = shared, index, shared.count
        self.has_left = False

    def put(self, name, text):
        self._shared.texts[name] = text

    def read(self, folder):
        items = list(self._shared.texts.items())
        return {name.rpartition("/")[2]: text for name, text in items if name.startswith(f"{folder}/")}

    def leave(self):
        self.has_left = True


class Ended(SystemExit):
    """In place of the end of a process."""


@pytest.fixture
def job():
    """Three monitors whose threads do not run, the texts, and what each would have printed at its end."""
    shared, lines = SharedTexts(3), {}

    def monitor(index):
        def end(line, checkpoints):
            lines[index] = line
            raise Ended

        return JobMonitor(LIMITS, "/nowhere", shared.channel(index), end)

    return [monitor(index) for index in range(3)], shared, lines


def test_the_longest_silence_is_that_of_who_stopped_beating():
    silence = Silence(3, now=0.0)
    for now in range(1, 9):
        silence.hear({"0": str(now), "1": str(min(now, 4)), "2": str(now)}, float(now))
    assert silence.longest(8.0) == (1, 4.0)
    silence.hear({"0": "9", "1": "ended", "2": "9"}, 9.0)
    assert silence.longest(20.0)[0] != 1, "who is done is not lost"


def test_every_process_names_the_one_that_fell_silent(job, monkeypatch):
    monitors, _, lines = job
    now = time.monotonic()
    clock = iter(now + 0.25 * tick for tick in range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for monitor in monitors:
        monitor.tick()
    for _ in range(60):
        for monitor in (monitors[1], monitors[0]):
            with contextlib.suppress(Ended):
                monitor.tick()
        if len(lines) == 2:
            break
    assert set(lines) == {0, 1} and lines[0] == lines[1]
    assert lines[0].startswith("process 2 of 3 died or stalled: it is silent for ")


def test_an_error_of_one_process_is_told_to_the_others(job):
    monitors, shared, lines = job

    def neighbour():
        while not shared.texts.get("lost/first"):
            time.sleep(0.01)
        with pytest.raises(Ended):
            monitors[1].tick()
        with pytest.raises(Ended):
            monitors[2].tick()

    thread = threading.Thread(target=neighbour)
    thread.start()
    with pytest.raises(UserError, match="disk"), monitors[0]:
        raise UserError("the disk of this host is full")
    thread.join()
    assert lines[1] == lines[2] == "process 0 of 3 ended with UserError: the disk of this host is full"
    assert monitors[0]._channel.has_left


def test_an_error_of_all_processes_ends_each_with_its_own(job):
    monitors, shared, lines = job
    for index in (1, 2):
        shared.texts[f"failed/{index}"] = "UserError: the same"
    with pytest.raises(UserError, match="the same"), monitors[0]:
        raise UserError("the same")
    assert not lines and "lost/first" not in shared.texts and not monitors[0]._channel.has_left


@pytest.mark.parametrize("asked", [0, 2])
def test_all_processes_stop_after_the_same_step(asked):
    """Loops that run ahead of each other by up to two steps, as loops before asynchronous devices do."""
    shared = SharedTexts(3)
    agreements = [StopAgreement(shared.channel(index)) for index in range(3)]
    steps, stopped = [0, 0, 0], {}
    ended = threading.Event()

    def loop(index):
        while index not in stopped:
            if steps[index] > min(steps) + 1:
                time.sleep(0.001)
                continue
            steps[index] += 1
            wish = "SIGTERM" if index == asked and steps[index] >= 5 else None
            if reason := agreements[index].reached(steps[index], wish):
                stopped[index] = (steps[index], reason)

    def listen(index):
        while not ended.wait(0.01):
            agreements[index].listen()

    loops = [threading.Thread(target=loop, args=(index,)) for index in range(3)]
    listeners = [threading.Thread(target=listen, args=(index,)) for index in range(3)]
    for thread in loops + listeners:
        thread.start()
    for thread in loops:
        thread.join(timeout=200)
    ended.set()
    for thread in listeners:
        thread.join(timeout=200)
    assert len(stopped) == 3 and len(set(stopped.values())) == 1
    assert stopped[0][0] >= 6 and stopped[0][1] == "SIGTERM"


def test_limits_that_no_job_can_keep_are_refused():
    with pytest.raises(UserError, match="JobLimits.lost_seconds"):
        JobLimits(lost_seconds=1.0)
    with pytest.raises(UserError, match="JobLimits.step_seconds"):
        JobLimits(step_seconds=0.0)
    with pytest.raises(UserError, match="JobLimits.on_stuck"):
        JobLimits(on_stuck="wait")


def fail_in_a_collective(monitor):
    """Ends the watch of a process whose collective failed, and returns what came of it."""
    error = jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: connection closed by peer")
    with pytest.raises(TemporaryFailure, match="every process of the job still answers"):
        monitor.__exit__(type(error), error, None)


def test_all_are_told_of_a_collective_that_failed_here(job, monkeypatch):
    """One that waits in the same collective would wait for ever."""
    monitors, shared, lines = job
    monkeypatch.setattr(monitors[1]._closed, "wait", lambda seconds: time.sleep(0.001))
    thread = threading.Thread(target=fail_in_a_collective, args=(monitors[1],))
    thread.start()
    while thread.is_alive() and "lost/first" not in shared.texts:
        for other in (2, 0):
            monitors[other].tick()
        time.sleep(0.01)
    for other in (2, 0):
        with pytest.raises(Ended):
            monitors[other].tick()
        assert lines[other].startswith("process 1 of 3 ended with JaxRuntimeError: UNKNOWN: Gloo AllGather")
    thread.join()
    assert monitors[1]._channel.has_left


def test_the_lost_one_is_named_not_whose_collective_failed(job, monkeypatch):
    """However late process 0 looks: here it first looks after the process that failed has asked a hundred times."""
    monitors, shared, lines = job
    asked = []
    monkeypatch.setattr(monitors[1]._closed, "wait", lambda seconds: asked.append(time.sleep(0.001)))
    shared.texts["alive/2"] = "7"
    thread = threading.Thread(target=fail_in_a_collective, args=(monitors[1],))
    thread.start()
    while thread.is_alive() and len(asked) < 100:
        for other in (1, 0):
            monitors[other].tick()
        time.sleep(0.005)
    assert thread.is_alive() and "lost/first" not in shared.texts
    with monkeypatch.context() as later:
        now = time.monotonic() + LIMITS.lost_seconds
        later.setattr(time, "monotonic", lambda: now)
        monitors[1].tick()
        shared.texts["alive/0"] = "later"
        monitors[0]._judge()
    with pytest.raises(Ended):
        monitors[1].tick()
    assert lines[1].startswith("process 2 of 3 died or stalled: it is silent for ")
    for beat in "89":  # so that the thread, whose process has ended, ends too
        shared.texts["alive/2"] = beat
        asked.clear()
        while thread.is_alive() and len(asked) < 2:
            time.sleep(0.001)
    thread.join()
    assert shared.texts["lost/first"].startswith("process 2 of 3"), "the first word stands"

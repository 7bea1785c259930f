"""The sweep: shared programs, ordinary runs, failures passed over, and the same end after a kill."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apertus_jax.configuration.modules import import_modules
from apertus_jax.storage.artifacts import read_any
from apertus_jax.sweeps import local_runs
from apertus_jax.training.program import Program
from tests.configuration.conftest import own_folder
from tests.sweeps.conftest import VARIED, run_apertus

ROOT = Path(__file__).parents[2]
SEEDS = ("--vary=goldfish.k=3", "--vary=TrainingConfig.seed=1,2")  # the first two of
RUNS = ["k=3,seed=1", "k=3,seed=2", "k=10,seed=1", "k=10,seed=2"]


def weights(sweep):
    """Returns run name → digests of the files of its final model."""
    models = sorted(sweep.glob("*/model/COMMITTED.json"))
    return {marker.parents[1].name: read_any(marker.parent)["files"] for marker in models}


def test_sweep_trains_every_combination(finished_sweep):
    folder, out = finished_sweep
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(RUNS)
    assert len({json.dumps(files["parameters.safetensors"]) for files in weights(folder).values()}) == 4
    assert "4 of 4 runs finished" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_other_seed_compiles_nothing(finished_sweep):
    # One program that draws the parameters, for all; one step for each k.
    assert "3 programs compiled, 5 times one was there already" in finished_sweep[1]


def test_run_of_a_sweep_equals_the_listed_command(finished_sweep, sweep_line, tmp_path):
    status, out, _ = run_apertus(*sweep_line(tmp_path / "sweep", "--list"))
    commands = [shlex.split(line) for line in out.splitlines()]
    assert status == 0 and [words[:2] for words in commands] == [["apertus", "pretrain"]] * 4
    assert not (tmp_path / "sweep").exists()
    assert run_apertus(*commands[3][1:])[0] == 0
    assert weights(tmp_path / "sweep")[RUNS[3]] == weights(finished_sweep[0])[RUNS[3]]
    # What is finished is not listed any more.
    assert len(run_apertus(*sweep_line(tmp_path / "sweep", "--list"))[1].splitlines()) == 3


def test_runs_of_a_sweep_are_ordinary_runs(finished_sweep, tmp_path):
    folder = finished_sweep[0]
    run = folder / RUNS[0]
    assert run_apertus("export", f"--input={run}", f"--output={tmp_path / 'export'}")[0] == 0
    status, out, _ = run_apertus("verify", folder)
    assert status == 0 and "4 runs" in out and RUNS[3] in out.replace("\n", "")


def test_chosen_name_is_that_of_report_and_comparison(bench, tmp_path):
    words = [f"--gin_file={bench / 'experiment.gin'}", f"--store={bench / 'store'}", f"--output={tmp_path / 'run'}"]
    assert run_apertus("pretrain", *words, "--gin.goldfish.k=3", "--steps=1", "--name=first <try>")[0] == 0
    assert "Run first &lt;try&gt;" in (tmp_path / "run" / "report.html").read_text()
    assert run_apertus("compare", tmp_path / "run", f"--output={tmp_path / 'out'}")[0] == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["arms"][0]["name"] == "first <try>"
    # Another name is no other run.
    assert run_apertus("pretrain", *words, "--gin.goldfish.k=3", "--steps=1", "--name=second")[0] == 0
    status, _, err = run_apertus("pretrain", *words, "--gin.goldfish.k=3", "--name=" + "x" * 101)
    assert status == 2 and "must be one line" in err.splitlines()[-1]


LAB_MASK = """
__all__ = ["drop_odd"]


def drop_odd(offset: int = 0):
    '''Gives odd tokens no weight.'''

    def mask(batch):
        return (batch["tokens"][:, 1:] + offset) % 2 == 0

    return mask
"""


def test_mask_of_a_lab_is_swept_and_compared(sweep_line, tmp_path):
    (tmp_path / "lab_of_sweeps.py").write_text(LAB_MASK)
    words = ["--import=lab_of_sweeps", "--gin.Objective.loss_masks=[@drop_odd()]", "--steps=1"]
    line = sweep_line("sweep", *words, varied=("--vary=drop_odd.offset=0,1",))
    with own_folder(tmp_path):
        listed = run_apertus(*line, "--list")[1].splitlines()
        assert len(listed) == 2 and all("--import=lab_of_sweeps" in command for command in listed)
        status, out, err = run_apertus(*line)
        assert status == 0 and "2 of 2 runs finished" in out, err
        assert run_apertus("compare", "sweep", "--output=out")[0] == 0
    arms = json.loads((tmp_path / "out" / "results.json").read_text())["arms"]
    assert [arm["settings"] for arm in arms] == [{"drop_odd.offset": "0"}, {"drop_odd.offset": "1"}]
    assert len({arm["figures"]["train/loss"]["mean"] for arm in arms}) == 2


def test_error_in_the_code_of_a_lab_names_its_module(tmp_path):
    (tmp_path / "lab_of_errors.py").write_text("__all__ = ['broken']\ndef broken():\n    return [][0]\n")
    with own_folder(tmp_path):
        import_modules(["lab_of_errors"])
        try:
            sys.modules["lab_of_errors"].broken()
        except IndexError as error:
            told = local_runs._told(error, "k=3")
    assert told == "--import=lab_of_errors: its code fails with IndexError: list index out of range"


def test_damaged_plan_is_one_line(finished_sweep, sweep_line, tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text("{")
    for words in (sweep_line(folder), ["verify", folder]):
        status, _, err = run_apertus(*words)
        assert status == 2 and "sweep.json is damaged" in err.splitlines()[-1]


def test_failed_run_does_not_stop_the_others(finished_sweep, sweep_line, tmp_path):
    # The first run finds its folder taken by something else.
    (tmp_path / RUNS[0]).mkdir(parents=True)
    (tmp_path / "sweep.json").write_text('{"runs": {}}')
    (tmp_path / RUNS[0] / "thesis.txt").write_text("mine")
    status, out, err = run_apertus(*sweep_line(tmp_path, varied=SEEDS))
    last = err.splitlines()[-1]
    assert status == 2 and "1 of 2 runs of" in last and f"failed, first {RUNS[0]}" in last and "thesis.txt" in last
    assert "1 of 2 runs finished" in out
    assert "thesis.txt" in json.loads((tmp_path / "failures" / f"{RUNS[0]}.json").read_text())["error"]
    (tmp_path / RUNS[0] / "thesis.txt").unlink()
    assert run_apertus(*sweep_line(tmp_path, varied=SEEDS))[0] == 0
    assert not list((tmp_path / "failures").iterdir())
    assert weights(tmp_path) == {name: weights(finished_sweep[0])[name] for name in RUNS[:2]}


def test_bug_in_one_run_does_not_stop_the_others(sweep_line, tmp_path, monkeypatch):
    configured, calls = local_runs.PlannedRun.configure, []

    def configure(run):
        calls.append(run.name)
        if len(calls) == 3:  # the first two are checks of the plan
            raise ZeroDivisionError("a bug")
        configured(run)

    monkeypatch.setattr(local_runs.PlannedRun, "configure", configure)

    status, out, err = run_apertus(*sweep_line(tmp_path / "sweep", "--steps=1", varied=SEEDS))
    assert status == 2 and "internal error: ZeroDivisionError: a bug" in err.splitlines()[-1]
    assert "1 of 2 runs finished" in out


def check_goes_on(folder, sweep_line, expected, varied):
    """Starts an interrupted sweep again and compares every model with those of a sweep that was never interrupted."""
    before = weights(folder)
    assert RUNS[0] in before and len(before) < len(expected)
    status, out, err = run_apertus(*sweep_line(folder, varied=varied))
    assert status == 0, err
    assert weights(folder) == expected and f"{len(expected)} of {len(expected)} runs finished" in out
    assert "finished before" in out and "nothing was written" not in err


def test_interrupted_sweep_ends_with_the_same_bytes(finished_sweep, sweep_line, tmp_path, monkeypatch):
    step, steps = Program.step, []

    def interrupted(program, *arguments):
        steps.append(1)
        if len(steps) == 4 + 3:  # the third step of the second run
            raise KeyboardInterrupt
        return step(program, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Program, "step", interrupted)
        assert run_apertus(*sweep_line(tmp_path / "sweep", varied=SEEDS))[0] == 130
    assert not (tmp_path / "sweep" / "failures").exists()
    expected = weights(finished_sweep[0])
    check_goes_on(tmp_path / "sweep", sweep_line, {name: expected[name] for name in RUNS[:2]}, SEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_sweep_ends_with_the_same_bytes(finished_sweep, sweep_line, tmp_path, number):
    folder = tmp_path / "sweep"
    words = [sys.executable, "-m", "apertus_jax", *sweep_line(folder)]
    second = folder / RUNS[1] / "checkpoints"
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while not (second.is_dir() and list(second.iterdir())) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(timeout=120)
    check_goes_on(folder, sweep_line, weights(finished_sweep[0]), VARIED)


def test_stopped_run_stops_the_sweep(finished_sweep, sweep_line, tmp_path):
    folder = tmp_path / "sweep"
    first = folder / RUNS[0]
    first.mkdir(parents=True)
    (folder / "sweep.json").write_text('{"runs": {}}')
    (first / "exit").touch()
    status, out, _ = run_apertus(*sweep_line(folder))
    assert status == 0 and "0 of 4 runs finished" in out and "again to go on" in out
    assert not (folder / RUNS[1]).exists()


def test_runs_that_stop_where_they_are_to_stop_do_not_stop_it(sweep_line, tmp_path):
    words = sweep_line(tmp_path / "sweep", "--gin.RunSchedule.stop_step=1", varied=SEEDS)
    status, out, _ = run_apertus(*words)
    assert status == 0 and all((tmp_path / "sweep" / name / "run.json").exists() for name in RUNS[:2])
    assert "again to go on" in out


def test_tasks_divide_the_runs_into_neighbours(sweep_line, tmp_path):
    shares = [
        run_apertus(*sweep_line(tmp_path / "sweep", "--list", f"--task={task}/3"))[1].splitlines() for task in range(3)
    ]
    assert [len(share) for share in shares] == [1, 1, 2]
    (whole,) = [run_apertus(*sweep_line(tmp_path / "sweep", "--list"))[1].splitlines()]
    assert [line for share in shares for line in share] == whole


def test_changed_configuration_fails_the_runs_that_began(finished_sweep, sweep_line, tmp_path):
    folder = Path(shutil.copytree(finished_sweep[0], tmp_path / "sweep"))
    status, _, err = run_apertus(*sweep_line(folder, "--gin.goldfish.h=4"))
    assert status == 2 and "4 of 4 runs" in err.splitlines()[-1] and "goldfish.h: 8 -> 4" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("varied", "told"),
    [
        ("goldfish.q=1", "goldfish has no parameter 'q'"),
        ("goldfish.k=3,1", "run k=1: goldfish.k = 1 must be"),
        ("goldfish.k=3,'a'", "run k=a: goldfish.k = 'a'"),
        ("wsd_schedule.peak=1,2", "nothing in these runs uses it"),
        ("pretrain.output='a','b'", "the sweep itself decides"),
        ("adamw.b2=2", "run b2=2: adamw.b2"),
        ("pretrain.store='none'", "none"),
        ("ModelConfig.vocab_size=16", "ModelConfig.vocab_size is 16"),
        ("name=sweep.json; goldfish.k=3", "cannot be called"),
    ],
)
def test_wrong_value_is_told_before_anything_starts(sweep_line, tmp_path, varied, told):
    status, _, err = run_apertus(*sweep_line(tmp_path / "sweep", varied=(f"--vary={varied}",)))
    assert status == 2 and told in err.splitlines()[-1]
    assert not (tmp_path / "sweep").exists()


def test_sweep_into_a_folder_of_something_else_is_refused(bench, sweep_line, finished_sweep, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for place, told in {tmp_path: "thesis.txt", bench / "store": "", finished_sweep[0] / RUNS[0]: "single"}.items():
        status, _, err = run_apertus(*sweep_line(place))
        assert status == 2 and told in err.splitlines()[-1]

"""Evaluators in the loop: they see every result and change no bit of the run."""

import json
import time

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from apertus_jax.errors import UserError
from apertus_jax.evaluation.in_training import HeldOutEvaluator
from apertus_jax.training.evaluators import EvaluationSchedule
from apertus_jax.training.program import Program
from apertus_jax.training.records.run_record import check_record, config_digest, write_record
from apertus_jax.training.records.telemetry import read_evaluations, read_metrics
from tests.training.small_run import small_run
from tests.training.test_resume import TIMING, assert_same_end

SECONDS_ASLEEP = 1e6  # by a clock that is put forward: nobody waits
SEQUENCE_LENGTH = 32  # of small_run; 8 samples a step, 16 from 64 samples on


class Clock:
    """The time of the loop and of the evaluators, which can be put forward."""

    ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead


CLOCK = Clock()


class NormEvaluator:
    """Computes one number from the parameters; may be killed at a call, or sleep in one."""

    def __init__(self, every_tokens=700, name="norm", killed_at=(), asleep_at=()):
        self.every_tokens, self.name, self.killed_at, self.asleep_at = every_tokens, name, killed_at, asleep_at
        self.prepared = 0
        self.calls = []

    def prepare(self, view):
        self.prepared += 1

    def __call__(self, view, consumed):
        if consumed in self.killed_at:
            raise KeyboardInterrupt
        CLOCK.ahead += SECONDS_ASLEEP * (consumed in self.asleep_at)
        self.calls.append(consumed)
        return {"norm": float(jnp.sum(jnp.square(view.params["lm_head"]["kernel"]))), "norm/part": 1.0}


def expected_tokens(every, steps=12):
    """Tokens after each step at which another multiple of `every` is reached, and after the last."""
    after = np.cumsum([0] + [8 if step < 8 else 16 for step in range(steps)]) * SEQUENCE_LENGTH
    return [int(b) for a, b in zip(after[:-1], after[1:], strict=True) if b // every > a // every or b == after[-1]]


@pytest.fixture(scope="module")
def evaluated_run(store, tmp_path_factory):
    """Folder of the same run as `finished_run`, with two evaluators, and how often its step was compiled."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    compiled = []
    original = Program.compile

    def counting(program, batch_size):
        if batch_size not in program._executables:
            compiled.append(batch_size)
        return original(program, batch_size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "compile", counting)
        for module in ("records.recorder", "evaluators"):
            patch.setattr(f"apertus_jax.training.{module}.time", CLOCK)
        norm = NormEvaluator(asleep_at=expected_tokens(700)[-2:-1])  # at step 11, in the row of step 12
        held_out = HeldOutEvaluator(1500, max_tokens=600, sequence_length=64, batch_tokens=512)
        assert small_run(store, folder, training={"keep_last": 9}, evaluators=[norm, held_out])["finished"]
    return folder, compiled, norm


def rows_without_evaluations(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in lines if "evaluator" not in row]


def test_run_with_evaluators_has_the_same_bits_and_one_compile(evaluated_run, finished_run, monkeypatch):
    folder, compiled, _ = evaluated_run
    monkeypatch.setattr("tests.training.test_resume.logged", lambda run: _untimed(rows_without_evaluations(run)))
    assert_same_end(finished_run, folder)
    assert sorted(compiled) == [8, 16], "once per batch size"


def _untimed(rows):
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def test_evaluators_run_at_multiples_of_their_tokens_and_the_end(evaluated_run):
    folder, _, norm = evaluated_run
    assert norm.calls == expected_tokens(700) and norm.prepared == 1
    rows = read_evaluations(folder)
    assert [row["tokens"] for row in rows if row["evaluator"] == "norm"] == expected_tokens(700)
    assert [row["tokens"] for row in rows if row["evaluator"] == "held_out"] == expected_tokens(1500)


def test_results_are_in_metrics_tensorboard_and_report(evaluated_run):
    folder, *_ = evaluated_run
    rows = [row for row in read_evaluations(folder) if row["evaluator"] == "held_out"]
    assert rows[-1]["metrics"].keys() == {"loss", "bits_per_byte", "loss/Latn", "bits_per_byte/Latn"}
    assert rows[-1]["metrics"]["loss"] < rows[0]["metrics"]["loss"] < 1.1 * np.log(512), "it learns"
    assert all(set(row) >= {"loss", "tokens_per_second"} for row in read_metrics(folder))
    events = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                events[event.step, value.tag] = value.tensor.float_val[0]
    for row in rows:
        for name, value in row["metrics"].items():
            assert events[row["step"], f"evaluation/held_out/{name}"] == pytest.approx(value, rel=1e-6)
    page = (folder / "report.html").read_text()
    assert "Evaluation: held_out" in page and "Evaluation: norm" in page and "bits_per_byte" in page


def test_killed_run_goes_on_and_writes_no_evaluation_twice(store, evaluated_run, tmp_path):
    reference, *_ = evaluated_run
    tokens = expected_tokens(700)
    killed = NormEvaluator(killed_at=tokens[3:])  # at step 10, when the newest checkpoint is that of step 5
    with pytest.raises(KeyboardInterrupt):
        small_run(store, tmp_path / "run", evaluators=[killed])
    resumed = NormEvaluator()
    small_run(store, tmp_path / "run", evaluators=[resumed])
    wanted = [row for row in read_evaluations(reference) if row["evaluator"] == "norm"]
    found = read_evaluations(tmp_path / "run")
    assert [(row["step"], row["metrics"]) for row in found] == [(row["step"], row["metrics"]) for row in wanted]
    assert killed.calls == tokens[:3] and resumed.calls == tokens[1:], "steps up to 5 are done"


def test_evaluation_prevented_by_a_stop_is_made_up_for_once(store, tmp_path):
    (tmp_path / "run").mkdir()
    every_step = 8 * SEQUENCE_LENGTH
    stopped = NormEvaluator(every_step)
    (tmp_path / "run" / "exit").touch()
    assert small_run(store, tmp_path / "run", evaluators=[stopped], total_steps=3) == {"step": 1, "finished": False}
    assert stopped.calls == [], "an orderly stop does not wait for evaluators"
    resumed = NormEvaluator(every_step)
    small_run(store, tmp_path / "run", evaluators=[resumed], total_steps=3)
    assert resumed.calls == [every_step, 2 * every_step, 3 * every_step]
    longer = NormEvaluator(every_step)
    small_run(store, tmp_path / "run", evaluators=[longer], total_steps=4)
    assert longer.calls == [4 * every_step]
    assert [row["step"] for row in read_evaluations(tmp_path / "run")] == [1, 2, 3, 4]


def test_evaluators_of_one_name_or_empty_cadence_are_refused(store, tmp_path):
    with pytest.raises(UserError, match="two of pretrain.evaluators are called 'norm'"):
        small_run(store, tmp_path / "run", evaluators=[NormEvaluator(), NormEvaluator()])
    with pytest.raises(UserError, match="every_tokens=0 of 'norm' must be at least 1"):
        small_run(store, tmp_path / "run", evaluators=[NormEvaluator(0)])
    assert not (tmp_path / "run").exists()


def test_what_is_bound_to_evaluators_may_change_between_starts(tmp_path):
    identity = {"store": "a", "tokenizer": "b"}
    before = {"ModelConfig.num_layers": "2", "pretrain.evaluators": "()"}
    after = {
        "ModelConfig.num_layers": "2",
        "pretrain.evaluators": "[@HeldOutEvaluator()]",
        "HeldOutEvaluator.every_tokens": "5",
        "english/HeldOutEvaluator.seed": "5",
    }
    write_record(tmp_path, identity, before, None)
    check_record(tmp_path, identity, after, allow_change=False)
    assert config_digest(before) == config_digest(after)
    with pytest.raises(UserError, match="num_layers: 2 -> 3"):
        check_record(tmp_path, identity, after | {"ModelConfig.num_layers": "3"}, allow_change=False)


def test_the_time_of_evaluators_is_not_the_time_of_the_steps(evaluated_run):
    folder, *_ = evaluated_run
    before, last = read_metrics(folder)[-2:]
    assert read_evaluations(folder)[-3]["seconds"] >= SECONDS_ASLEEP
    assert (last["tokens"] - before["tokens"]) / last["tokens_per_second"] < SECONDS_ASLEEP / 2


@pytest.mark.parametrize("found", [None, 3.0, {"norm": "high"}])
def test_evaluator_that_gives_no_numbers_is_one_line(found):
    evaluations = EvaluationSchedule([], None, None, None)
    evaluations.tokens_after, evaluations._view = (lambda step: 8), (lambda params: None)
    odd = type("Odd", (), {"name": "odd", "__call__": lambda self, view, consumed: found})()
    with pytest.raises(UserError, match="the evaluator 'odd' gives .*; it must give numbers by name"):
        evaluations.run(odd, {}, 1)

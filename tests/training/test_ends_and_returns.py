"""Where a run ends and where it comes back to: its outputs say what its state says, and nothing of what was undone."""

import json
import math

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from apertus_jax.data import BatchSchedule
from apertus_jax.data.provenance.recorded_stream import steps_done
from apertus_jax.errors import UserError
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.line_chart import Line, line_chart
from apertus_jax.sharding import MeshConfig
from apertus_jax.training.records.recorder import Recorder
from apertus_jax.training.records.telemetry import MetricsLog, read_metrics
from tests.training.small_run import small_run

TRAINING = {"keep_last": 99, "log_every": 2, "checkpoint_every": 3}
RUN = {"batch_schedule": BatchSchedule(8), "learning_rate": 1e-3, "training": TRAINING}


class CountingEvaluator:
    """Tells how many tokens it was called after."""

    name, every_tokens = "counting", 10**6

    def prepare(self, view):
        pass

    def __call__(self, view, consumed):
        return {"tokens": float(consumed)}


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row.get("evaluator")) for row in rows]


def points_of(folder, tag):
    events = [e for path in sorted((folder / "tensorboard").iterdir()) for e in EventFileLoader(str(path)).Load()]
    return [(e.step, v.tensor.float_val[0]) for e in events for v in e.summary.value if v.tag == tag]


@pytest.fixture(scope="module")
def killed_run(store, tmp_path_factory):
    """Folder of a run of 8 samples a step that was killed after the row of step 4, saved at step 3."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    original = Recorder.write_row

    def kill(recorder, step):
        original(recorder, step)
        if step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "write_row", kill)
        with pytest.raises(KeyboardInterrupt):
            small_run(store, folder, total_steps=9, **RUN)
    assert rows_of(folder) == [(2, None), (4, None)]
    return folder


def test_a_run_ended_at_its_checkpoint_forgets_later_rows(store, killed_run):
    summary = small_run(store, killed_run, total_steps=3, evaluators=[CountingEvaluator()], **RUN)
    assert (summary["step"], summary["samples"], summary["tokens"]) == (3, 24, 768)
    assert rows_of(killed_run) == [(2, None), (3, None), (3, "counting")]
    assert points_of(killed_run, "train/samples") == [(2, 16), (3, 24)]
    assert points_of(killed_run, "evaluation/counting/tokens") == [(3, 768)]
    last = read_metrics(killed_run)[-1]
    assert summary["loss"] == last["loss"] and "learning_rate" not in last, "another start did the step"
    # Made longer, step 3 is in no row twice; ended earlier than it stands, it is refused.
    small_run(store, killed_run, total_steps=4, **RUN)
    assert [row["skipped"] for row in read_metrics(killed_run)] == [0, 0, 0]
    assert rows_of(killed_run) == [(2, None), (3, None), (3, "counting"), (4, None)]
    assert [step for step, _ in points_of(killed_run, "train/learning_rate")] == [2, 4]
    with pytest.raises(UserError, match="has saved step 4, beyond RunSchedule.total_steps = 3"):
        small_run(store, killed_run, total_steps=3, **RUN)


def test_an_undone_change_leaves_record_and_end(store, tmp_path):
    folder = tmp_path / "run"
    small_run(store, folder, total_steps=2, **RUN)
    mesh = MeshConfig(data=4, tensor=2)
    small_run(store, folder, total_steps=4, mesh=mesh, **RUN | {"batch_schedule": BatchSchedule(16)})
    assert steps_done(folder) == 4 and json.loads((folder / "run.json").read_text())["history"]
    for saved in ("step_0000000003", "step_0000000004"):
        for path in (folder / "checkpoints" / saved).rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:-1] + b"?")
    summary = small_run(store, folder, total_steps=5, stop_step=3, **RUN)
    assert summary == {"step": 3, "finished": False}
    assert not (folder / "finished.json").exists(), "its steps 3 and 4 are done again"
    assert "history" not in json.loads((folder / "run.json").read_text())
    assert json.loads((folder / "mixture.json").read_text())["earlier"] == []
    assert steps_done(folder) == 2, "as far as it is logged"


def test_samples_that_an_older_version_lost_are_told(store, finished_run, tmp_path):
    import shutil

    folder = shutil.copytree(finished_run, tmp_path / "run")
    record = json.loads((folder / "mixture.json").read_text())
    record["batch_schedule"] = {"initial": 16, "final": None, "ramp_samples": 0}
    (folder / "mixture.json").write_text(json.dumps(record))
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match="12 steps took samples up to 191 and the checkpoint counts 128") as raised:
        small_run(store, folder, total_steps=14)
    assert "\n" not in str(raised.value) and "pretrain.allow_config_change" in str(raised.value)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_rows_that_are_not_finite_are_numbers_again(tmp_path):
    log = MetricsLog(tmp_path, 0)
    rows = [{"step": step, "loss": loss} for step, loss in enumerate((math.inf, -math.inf, math.nan, 2.0), 1)]
    for row in rows:
        log.write(row)
    log.close()
    MetricsLog(tmp_path, 9).close()
    assert "Infinity" not in (tmp_path / "metrics.jsonl").read_text()
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert losses[:2] == [math.inf, -math.inf] and math.isnan(losses[2]) and losses[3] == 2.0
    report = HtmlReport("Run", "")
    for values in (losses, [math.inf, math.inf], [math.nan]):
        for scale in ("log", "linear"):
            line = Line("loss", range(len(values)), values)
            report.figure(line_chart("Loss", [line], Axis("x"), Axis("y", scale=scale), smooth=True))
    report.write(tmp_path / "report.html")


def test_a_damaged_row_takes_no_other_with_it(tmp_path):
    lines = [json.dumps({"step": step}) for step in range(1, 6)]
    lines[2] = lines[2][:-1] + "\x00"
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 6')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 4, 5]

"""A run that changed on its way, by the command line: one count of samples, and `reproduce` ends with the same bits."""

import json

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

from apertus_jax.cli import main
from apertus_jax.data.loader.batch_loader import BatchLoader

# 8 fake devices, of which 2 split a batch.
COMMON = (
    "--gin.run.stages=['tokenize', 'pretrain']",
    "--gin.pretrain.mesh=@MeshConfig()",
    "--gin.MeshConfig.data=2",
    "--gin.MeshConfig.tensor=2",
    "--gin.MeshConfig.context=2",
    "--gin.ModelConfig.num_layers=1",
    "--gin.TrainingConfig.log_every=1",
    "--gin.TrainingConfig.checkpoint_every=4",
)
STARTS = (
    ("--gin.BatchSchedule.initial=4", "--gin.RunSchedule.total_steps=10"),
    ("--gin.BatchSchedule.initial=8", "--gin.RunSchedule.total_steps=13", "--gin.pretrain.allow_config_change=True"),
    (
        "--gin.BatchSchedule.initial=2",
        "--gin.RunSchedule.total_steps=18",
        "--gin.pretrain.allow_config_change=True",
        "--gin.RunSchedule.learning_rate=@constant_schedule()",
        "--gin.constant_schedule.peak=5e-4",
    ),
)
SIZES = [4] * 10 + [8] * 3 + [2] * 5
NO_REPORT = (
    "apertus_jax.training.records.finish.write_run_report",
    lambda *_, **__: None,
)  # figures take most of a short run


def events_of(path):
    """Yields the events of a file as TensorBoard's own reader finds them, without TensorFlow."""
    reader = PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except Exception as error:
            assert type(error).__name__ == "OutOfRangeError"
            return
        yield event_pb2.Event.FromString(reader.record())


@pytest.fixture(scope="module")
def changed_chain(planned_chain, tmp_path_factory):
    """(Folder of a chain that went on twice under another configuration, samples that its loaders read by step).

    The second start is killed once, after a step and before its checkpoint.
    """
    folder = tmp_path_factory.mktemp("changed") / "chain"
    read = {}
    original = BatchLoader.batch

    def recording(loader, step):
        read[step] = (batch := original(loader, step))["sample_ids"]
        return batch

    def kill(recorder, step):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchLoader, "batch", recording)
        for number, start in enumerate(STARTS):
            command = ["run", f"--gin_file={planned_chain}", f"--output={folder}", *COMMON, *start]
            with pytest.MonkeyPatch.context() as unfinished:
                if number + 1 < len(STARTS):
                    unfinished.setattr(*NO_REPORT)
                if number == 1:
                    with pytest.MonkeyPatch.context() as killing:
                        killing.setattr("apertus_jax.training.records.recorder.Recorder.write_row", kill)
                        assert main(command) != 0
                assert main(command) == 0
    return folder, read


def test_every_sample_is_read_once_and_every_count_is_one(changed_chain):
    folder, read = changed_chain
    assert [len(read[step]) for step in range(18)] == SIZES
    np.testing.assert_array_equal(np.concatenate([read[step] for step in range(18)]), np.arange(sum(SIZES)))
    after = np.cumsum(SIZES).tolist()
    train = folder / "train"
    rows = [json.loads(line) for line in (train / "metrics.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in rows] == after and [row["step"] for row in rows] == list(range(1, 19))
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-3] * 13 + [5e-4] * 5)
    shown = []
    for path in sorted((train / "tensorboard").iterdir()):
        for event in events_of(path):
            shown += [v.simple_value for v in event.summary.value if v.tag == "train/samples"]
    assert shown == after
    finished = json.loads((train / "finished.json").read_text())
    assert (finished["samples"], finished["tokens"]) == (after[-1], after[-1] * 32)
    assert f"{after[-1] * 32:,}" in (train / "report.html").read_text()


def test_the_record_lists_each_change_with_its_step(changed_chain):
    folder, _ = changed_chain
    history = json.loads((folder / "train" / "run.json").read_text())["history"]
    found = {(entry["step"], entry["sample"], entry["binding"]): (entry["old"], entry["new"]) for entry in history}
    assert found == {
        (10, 40, "BatchSchedule.initial"): ("4", "8"),
        (10, 40, "RunSchedule.total_steps"): ("10", "13"),
        (13, 64, "BatchSchedule.initial"): ("8", "2"),
        (13, 64, "RunSchedule.learning_rate"): ("0.001", "@constant_schedule()"),
        (13, 64, "constant_schedule.peak"): (None, "0.0005"),
        (13, 64, "constant_schedule.lr_init_frac"): (None, "0.1"),
        (13, 64, "constant_schedule.warmup_fraction"): (None, "None"),
        (13, 64, "constant_schedule.warmup_samples"): (None, "None"),
        (13, 64, "RunSchedule.total_steps"): ("13", "18"),
    }
    assert (folder / "train" / "config.gin").read_text().startswith("# The configuration changed at step 10, 13;")


def test_reproduce_repeats_the_changes_and_ends_in_the_same_bits(changed_chain, tmp_path, monkeypatch):
    folder, _ = changed_chain
    monkeypatch.setattr(*NO_REPORT)
    assert main(["reproduce", f"--input={folder}", f"--output={tmp_path / 'again'}"]) == 0
    for name in ("run.json", "mixture.json"):
        first, again = (json.loads((root / "train" / name).read_text()) for root in (folder, tmp_path / "again"))
        drop = lambda entries: [{k: v for k, v in entry.items() if k != "date"} for entry in entries]  # noqa: E731
        assert drop(first.get("history", [])) == drop(again.get("history", [])) and first.get("earlier") == again.get(
            "earlier"
        )
    # Started again, it finds everything done.
    assert main(["reproduce", f"--input={folder}", f"--output={tmp_path / 'again'}"]) == 0


def test_a_history_that_cannot_be_made_again_is_refused(changed_chain, tmp_path, capsys):
    import shutil

    folder = shutil.copytree(changed_chain[0], tmp_path / "copy")
    path = folder / "train" / "run.json"
    record = json.loads(path.read_text())
    for binding, old, message in (
        ("TOMBSTONES", "'a'", "went on under other tombstones at step 10"),
        ("BatchSchedule.initial", "4\nimport os", "BatchSchedule.initial"),
        ("batch_schedule", "{}", "was not started by the command line"),
        ("BatchSchedule.initial", 4, "damaged"),
    ):
        record["history"] = [{"step": 10, "sample": 40, "date": "", "binding": binding, "old": old, "new": "8"}]
        path.write_text(json.dumps(record))
        assert main(["reproduce", f"--input={folder}", f"--output={tmp_path / 'again'}"]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert message in line and line.startswith("apertus: ")

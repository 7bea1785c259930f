"""A run that goes on with other batches: one count of samples for data, state, log, TensorBoard and report."""

import json
import re

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.data import BatchSchedule, Mixture, MixtureStage, TokenStore
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.data.provenance.recorded_stream import recorded_streams
from apertus_jax.data.provenance.uses import uses_in_phases, uses_of_step
from apertus_jax.optimization import constant_schedule, sample_count_to_int, wsd_schedule
from apertus_jax.sharding import MeshConfig
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.program import Program, make_program
from apertus_jax.training.records.run_length import chain_of_run
from apertus_jax.training.run import RunSchedule
from tests.training.small_run import MODEL, OBJECTIVE, small_run

# 8 fake devices: batches of 8, then 16, then 8 with a ramp to 16 (the contract's 4, 8 and 2 run in tests/pipeline).
FIRST = {"batch_schedule": BatchSchedule(8), "total_steps": 10}
SECOND = {"batch_schedule": BatchSchedule(16), "total_steps": 14}
THIRD = {
    "batch_schedule": BatchSchedule(8, 16, 160),
    "total_steps": 20,
    "learning_rate": wsd_schedule(5e-3, 0, 200, 40),
}
SIZES = [8] * 10 + [16] * 4 + [8] * 2 + [16] * 4
LENGTH = 32
TRAINING = {"keep_last": 99, "log_every": 3, "checkpoint_every": 5}


@pytest.fixture(scope="module")
def read_batches():
    """Samples that loaders of a run really read, by step: the last reading of a step is the one that counts."""
    read = {}
    original = BatchLoader.batch

    def recording(loader, step):
        batch = original(loader, step)
        read[step] = batch["sample_ids"]
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchLoader, "batch", recording)
        yield read


@pytest.fixture(scope="module")
def changed_run(store, tmp_path_factory, read_batches):
    """Folder of a run that went on twice with other batches, the second time at another learning rate."""
    folder = tmp_path_factory.mktemp("changed") / "run"
    for settings in (FIRST, SECOND, THIRD):
        summary = small_run(store, folder, training=TRAINING, **settings)
    return folder, summary


def consumed(folder, step):
    """Returns the samples that the state of a checkpoint has consumed."""
    training = TrainingConfig(sequence_length=LENGTH)
    from apertus_jax.optimization import ademamix

    schedule = RunSchedule(BatchSchedule(8), constant_schedule(1.0), 1).from_start(LENGTH)
    program = make_program(MODEL, chain_of_run(ademamix, schedule, training), OBJECTIVE, MeshConfig(), 1, LENGTH)
    with Checkpointer(folder / "checkpoints") as checkpoints:
        state, _, _ = checkpoints.restore(program.abstract_state, step=step)
    return sample_count_to_int(state.samples_consumed)


def test_every_sample_is_read_once_and_none_is_left_out(changed_run, read_batches):
    assert [len(read_batches[step]) for step in range(20)] == SIZES
    np.testing.assert_array_equal(np.concatenate([read_batches[step] for step in range(20)]), np.arange(sum(SIZES)))


def test_state_log_tensorboard_and_report_have_one_count(changed_run):
    folder, summary = changed_run
    after = np.cumsum([0, *SIZES])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 9, 10, 12, 14, 15, 18, 20]
    assert [row["samples"] for row in rows] == [int(after[row["step"]]) for row in rows]
    assert [row["tokens"] for row in rows] == [int(after[row["step"]]) * LENGTH for row in rows]
    assert {step: consumed(folder, step) for step in (5, 10, 14, 15, 20)} == {
        step: int(after[step]) for step in (5, 10, 14, 15, 20)
    }
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/samples")]
    assert found == [(row["step"], row["samples"]) for row in rows]
    assert (summary["samples"], summary["tokens"]) == (sum(SIZES), sum(SIZES) * LENGTH)
    assert f"{sum(SIZES) * LENGTH:,}" in (folder / "report.html").read_text()


def test_the_logged_rate_is_the_applied_one(changed_run):
    folder, _ = changed_run
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    after = np.cumsum([0, *SIZES])
    for row in rows:
        schedule = wsd_schedule(1e-2, 16, 160, 40) if row["step"] <= 14 else THIRD["learning_rate"]
        assert row["learning_rate"] == float(schedule(int(after[row["step"] - 1])))


def test_provenance_says_what_the_loader_read(changed_run, read_batches, store):
    folder, _ = changed_run
    phases = recorded_streams(folder, TokenStore.open(store))
    assert [(phase.first_step, phase.stop_step) for phase in phases] == [(0, 10), (10, 14), (14, None)]
    by_document = {}
    for step in range(20):
        phase = next(phase for phase in phases if phase.stop_step is None or step < phase.stop_step)
        uses = uses_of_step(phase.stream, step)
        assert sorted({use.sample_id for use in uses}) == read_batches[step].tolist()
        assert {use.step for use in uses} == {step} and {use.row for use in uses} == set(range(SIZES[step]))
        for use in uses:
            by_document.setdefault((use.source, use.document), []).append(use)
    for (source, document), uses in list(by_document.items())[:40]:
        assert uses_in_phases(phases, source, document, 20) == sorted(uses, key=lambda use: (use.sample_id, use.offset))


def test_changes_are_dated_in_the_record_and_marked_in_plots(changed_run):
    folder, _ = changed_run
    history = json.loads((folder / "run.json").read_text())["history"]
    assert [(entry["step"], entry["sample"], entry["binding"]) for entry in history] == [
        (10, 80, "batch_schedule"),
        (14, 144, "batch_schedule"),
    ]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["date"]) for entry in history)
    assert '"initial": 8' in history[0]["old"] and '"initial": 16' in history[0]["new"]
    assert (folder / "config.gin").read_text().startswith("# The configuration changed at step 10, 14;")
    page = (folder / "report.html").read_text()
    assert "What changed on the way" in page
    for mark in (80 * LENGTH, 144 * LENGTH):
        assert page.count(f'"mark change_at_{mark}"') == 5, "in every curve"


def test_throughput_of_a_row_counts_the_batches_that_it_had(store, tmp_path, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            self.now += 1.0
            return self.now

    monkeypatch.setattr("apertus_jax.training.records.recorder.time", Clock())
    small_run(store, tmp_path / "run", batch_schedule=BatchSchedule(8, 16, 40), total_steps=8, training=TRAINING)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    tokens = np.diff([0, *(row["tokens"] for row in rows)])
    assert tokens.tolist() == [3 * 8 * LENGTH, (2 * 8 + 16) * LENGTH, 2 * 16 * LENGTH]
    seconds = tokens / [row["tokens_per_second"] for row in rows]
    np.testing.assert_allclose(seconds, np.round(seconds), err_msg="whole strokes of the clock")


def test_a_list_of_changes_resumes_bit_for_bit(store, tmp_path, monkeypatch):
    schedule = BatchSchedule(8, changes=[(24, 16), (50, 8), (80, 24)])
    sizes = [8] * 3 + [16] * 2 + [8] * 3 + [24] * 2
    compiled, original = [], Program.compile

    def compiling(program, size):
        compiled.append(size)
        return original(program, size)

    monkeypatch.setattr(Program, "compile", compiling)
    settings = {"batch_schedule": schedule, "total_steps": len(sizes), "training": TRAINING | {"log_every": 1}}
    small_run(store, tmp_path / "whole", **settings)
    assert compiled[:4] == [8, 16, 24, 8], "every size before the first step"
    for stop in (4, 7, None):  # within sizes, and before a change
        small_run(store, tmp_path / "parts", stop_step=stop, **settings)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for name in ("model/parameters.safetensors", "mixture.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    rows = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in rows] == np.cumsum(sizes).tolist()
    assert [row["loss"] for row in rows] == [
        json.loads(line)["loss"] for line in (whole / "metrics.jsonl").read_text().splitlines()
    ]


def test_another_length_counts_its_own_tokens(store, tmp_path):
    folder = tmp_path / "run"
    small_run(store, folder, batch_schedule=BatchSchedule(8), total_steps=4)
    summary = small_run(store, folder, batch_schedule=BatchSchedule(8), total_steps=6, training={"sequence_length": 64})
    assert (summary["samples"], summary["tokens"]) == (48, 32 * 32 + 16 * 64)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in rows] == [1024, 2048]
    first, second = recorded_streams(folder, TokenStore.open(store))
    epochs = {use.epoch for step in (4, 5) for use in uses_of_step(second.stream, step)}
    assert (first.stop_step, second.first_step, epochs) == (4, 4, {1}), "the epoch that was begun is not mixed up"


def test_another_mixture_goes_on_with_every_source(store, tmp_path, read_batches):
    folder = tmp_path / "run"
    mixtures = [
        Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})]),
        Mixture([MixtureStage(rates={"one": 1.0})]),
        Mixture([MixtureStage(rates={"one": 0.5, "two": 0.5})]),
    ]
    for number, mixture in enumerate(mixtures):
        schedule = BatchSchedule(8 * (1 + number % 2))
        settings = {"mixture": mixture, "batch_schedule": schedule, "total_steps": 3 * (number + 1)}
        if number == 1:  # begun under the new mixture, and ended before anything of it was saved

            def kill(*_, **__):
                raise KeyboardInterrupt

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("apertus_jax.training.records.recorder.Recorder.write_row", kill)
                with pytest.raises(KeyboardInterrupt):
                    small_run(store, folder, **settings)
        small_run(store, folder, **settings)
    phases = recorded_streams(folder, TokenStore.open(store))
    assert [phase.first_step for phase in phases] == [0, 3, 6]
    drawn = {"one": [], "two": []}
    for phase in phases:
        for step in range(phase.first_step, phase.first_step + 3):
            located = phase.stream.locate(read_batches[step])
            for entry, epoch, sample in zip(*(part.tolist() for part in located), strict=True):
                source = phase.stream.sources[entry]
                drawn[source.name].append((epoch, sample, source.order.num_samples))
    for name, draws in drawn.items():
        size = draws[0][2]
        assert len(set(draws)) == len(draws), f"{name} was read twice"
        epochs = [epoch for epoch, _, _ in draws]
        assert epochs == [number // size for number in range(len(draws))], f"a sample of {name} was left out"

"""Megatron's order in a run that goes on: every sample is read once where that can be, and nothing else goes unsaid."""

import logging

import numpy as np
import pytest

from apertus_jax.data import BatchSchedule, MegatronMixture, MegatronStage, Mixture, MixtureStage, TokenStore
from apertus_jax.data.provenance.recorded_stream import recorded_length
from apertus_jax.data.sample_order.batch_history import BatchSegment
from apertus_jax.data.sample_order.continued_order import continue_order, phases_of_run, samples_in_all
from apertus_jax.data.sample_order.sample_stream import stream_of_store
from apertus_jax.errors import UserError

LENGTH = 32
PLAIN = MegatronMixture((MegatronStage(seed=7),))
WEIGHTED = MegatronMixture((MegatronStage(seed=7, weights={"one": 3, "two": 1}),))
STAGED = MegatronMixture((MegatronStage(seed=7, weights={"one": 1, "two": 1}), MegatronStage(start=60, seed=8)))


class Run:
    """A run of batches that are only counted: each start takes up what the one before recorded."""

    def __init__(self, store, path):
        self.store, self.path = TokenStore.open(store), path
        self.record, self.step, self.sample = None, 0, 0
        self.read = []

    def start(self, mixture, batch, total_steps, allow_change=False, stop=None, length=LENGTH):
        schedule = BatchSchedule(batch)
        here = BatchSegment(self.step, self.sample, schedule, length)
        num_samples = samples_in_all(self.record, here, total_steps)
        stream = stream_of_store(self.store, mixture, schedule, length, 0, total_steps, num_samples=num_samples)
        order = continue_order(
            stream,
            self.store,
            mixture,
            total_steps,
            self.record,
            self.step,
            self.sample,
            self.path,
            allow_change,
        )
        self.record, self.order = order.record, order
        for step in range(self.step, total_steps if stop is None else stop):
            numbers = order.stream.samples_of_step(step)
            located = order.stream.locate(numbers)
            for entry, sample in zip(located.entry.tolist(), located.sample.tolist(), strict=True):
                source = order.stream.sources[entry]
                spans = source.index.spans(sample)
                self.read.append((source.name, *spans.document.tolist(), *spans.start.tolist()))
            self.step, self.sample = step + 1, int(numbers[-1]) + 1
        return order


@pytest.mark.parametrize("mixture", [PLAIN, WEIGHTED, STAGED], ids=["plain", "weighted", "staged"])
def test_samples_come_once_in_other_batches_and_longer_runs(store, tmp_path, mixture):
    run = Run(store, tmp_path / "mixture.json")
    run.start(mixture, 4, 20, stop=10)
    run.start(mixture, 8, 20, stop=13)
    run.start(mixture, 2, 30)
    run.start(mixture, 2, 40)
    assert run.sample == 40 + 24 + 27 * 2 == len(run.read)
    assert len(set(run.read)) == len(run.read)
    whole = Run(store, tmp_path / "mixture.json")
    whole.start(mixture, 2, 59)
    assert whole.read == run.read, "as if the run had known its length and its batches from the start"
    phases = phases_of_run(run.order, run.store, run.path)
    again = [
        phase.stream.locate(phase.stream.samples_of_step(step)).sample.tolist()
        for phase in phases
        for step in range(phase.first_step, phase.stop_step or run.step)
    ]
    located = run.order.stream.locate(np.arange(run.sample))
    assert [sample for step in again for sample in step] == located.sample.tolist()


@pytest.mark.parametrize(
    ("mixture", "batch", "length"),
    [
        (WEIGHTED, 400, LENGTH),  # sources repeat more often than the order on record was made for
        (MegatronMixture((MegatronStage(seed=8, weights={"one": 3, "two": 1}),)), 4, LENGTH),
        (MegatronMixture((MegatronStage(seed=7, weights={"one": 1, "two": 3}),)), 4, LENGTH),
        (WEIGHTED, 4, 2 * LENGTH),
        (PLAIN, 4, LENGTH),
    ],
    ids=["epochs", "seed", "weights", "length", "mixture"],
)
def test_an_order_that_begins_otherwise_needs_permission(store, tmp_path, caplog, mixture, batch, length):
    run = Run(store, tmp_path / "mixture.json")
    run.start(WEIGHTED, 4, 10)
    with pytest.raises(UserError, match="does not begin with the 40 samples of this run") as raised:
        run.start(mixture, batch, 14, length=length)
    assert "\n" not in str(raised.value) and "pretrain.allow_config_change = True" in str(raised.value)
    with caplog.at_level(logging.WARNING):
        order = run.start(mixture, batch, 14, allow_change=True, length=length)
    assert "some would come again" in caplog.text
    assert order.record["from_sample"] == 40 and len(order.record["earlier"]) == 1
    assert recorded_length(order.record) == order.history.first_sample(14)


def test_a_stage_added_at_the_end_goes_on_without_asking(store, tmp_path):
    run = Run(store, tmp_path / "mixture.json")
    run.start(WEIGHTED, 4, 10)
    more = MegatronMixture((*WEIGHTED.stages, MegatronStage(start=40, seed=9, weights={"two": 1})))
    run.start(more, 4, 14)
    assert {name for name, *_ in run.read[40:]} == {"two@40"}


def test_our_order_becomes_megatrons_only_with_permission(store, tmp_path):
    run = Run(store, tmp_path / "mixture.json")
    run.start(Mixture([MixtureStage()]), 4, 10)
    with pytest.raises(UserError, match="does not begin with the 40 samples"):
        run.start(WEIGHTED, 4, 14)
    run.start(WEIGHTED, 4, 14, allow_change=True)

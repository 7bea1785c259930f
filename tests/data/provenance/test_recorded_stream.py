"""The record of a run's data: the same order again, orders before a change kept, another store refused."""

import dataclasses
import json

import numpy as np
import pytest

from apertus_jax.data import BatchSchedule, MegatronMixture, MegatronStage, Mixture, MixtureStage, TokenStore, tokenize
from apertus_jax.data.provenance.recorded_stream import describe_data, extended_record, recorded_streams
from apertus_jax.data.sample_order.sample_stream import stream_of_store
from apertus_jax.errors import UserError

LENGTH, STEPS, SEED = 16, 30, 5
MIXTURES = {
    "rates": Mixture((MixtureStage(rates={"web": 5, "books": 2, "code": 3}),), 50),
    "stages": Mixture([MixtureStage(temperature=3.0), MixtureStage(101, sources=["web", "code"])], 64),
    "megatron": MegatronMixture([MegatronStage(weights={"web": 0.5, "code": 0.2, "books": 0.3})]),
    "megatron stages": MegatronMixture(
        (
            MegatronStage(0, 28, ("web", "code"), {"code": 1, "web": 3}),
            MegatronStage(90, 29, weights={"web": 1, "books": 1}),
        )
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a token store with three sources."""
    root = tmp_path_factory.mktemp("store")
    generator = np.random.default_rng(3)
    for name, count in (("web", 40), ("books", 25), ("code", 15)):
        with (root / f"{name}.jsonl").open("w") as file:
            for number in range(count):
                text = " ".join(generator.choice(["sun", "moon", "river", "stone"], generator.integers(5, 60)))
                file.write(json.dumps({"id": f"{name}-{number}", "text": text}) + "\n")
    tokenize({name: str(root / f"{name}.jsonl") for name in ("web", "books", "code")}, root / "store", vocab_size=384)
    return root / "store"


def described(store, mixture, sample_index="windows", total_steps=STEPS, schedule=None):
    """Returns (stream, what mixture.json says of it)."""
    schedule = schedule or BatchSchedule(4, 8, 40)
    if isinstance(mixture, Mixture):
        mixture = dataclasses.replace(mixture, sample_index=sample_index)
    stream = stream_of_store(store, mixture, schedule, LENGTH, SEED, total_steps)
    return stream, describe_data(stream, store, mixture, total_steps)


def write(run, record):
    run.mkdir(exist_ok=True)
    (run / "mixture.json").write_text(json.dumps(record, sort_keys=True))


@pytest.mark.parametrize("sample_index", ["windows", "best_fit", "one_document"])
@pytest.mark.parametrize("name", MIXTURES)
def test_the_order_is_made_again_from_the_run_folder_alone(folder, tmp_path, name, sample_index):
    store = TokenStore.open(folder)
    stream, description = described(store, MIXTURES[name], sample_index)
    write(tmp_path / "run", extended_record(None, description, 0))
    [phase] = recorded_streams(tmp_path / "run", TokenStore.open(folder))
    assert (phase.first_step, phase.stop_step) == (0, None)
    samples = np.arange(stream.schedule.first_sample(STEPS))
    for left, right in zip(stream.locate(samples), phase.stream.locate(samples), strict=True):
        np.testing.assert_array_equal(left, right)
    names = [[(source.name, source.source) for source in each.sources] for each in (stream, phase.stream)]
    assert names[0] == names[1]
    assert phase.stream.schedule == stream.schedule


def test_orders_before_a_change_are_kept_and_undone_ones_are_not(folder, tmp_path):
    store = TokenStore.open(folder)
    _, first = described(store, MIXTURES["rates"])
    _, second = described(store, MIXTURES["stages"])
    _, third = described(store, MIXTURES["megatron"])

    def starts(record):
        write(tmp_path / "run", record)
        return [(phase.first_step, phase.stop_step) for phase in recorded_streams(tmp_path / "run", store)]

    record = extended_record(None, first, 0)
    assert starts(extended_record(record, first, 7)) == [(0, None)]
    record = extended_record(record, second, 10)
    assert starts(record) == [(0, 10), (10, None)]
    record = extended_record(record, second, 15)  # resumed
    assert starts(record) == [(0, 10), (10, None)]
    assert starts(extended_record(record, third, 20)) == [(0, 10), (10, 20), (20, None)]
    assert starts(extended_record(record, first, 5)) == [(0, None)]  # walked back, and back to the first order
    assert starts(extended_record(record, third, 5)) == [(0, 5), (5, None)]
    assert starts(extended_record(record, third, 0)) == [(0, None)]


def test_longer_run_keeps_our_order_and_changes_megatron_s(folder):
    store = TokenStore.open(folder)
    for name, changes in (("rates", False), ("megatron", True)):
        _, short = described(store, MIXTURES[name])
        _, long = described(store, MIXTURES[name], total_steps=2 * STEPS)
        record = extended_record(extended_record(None, short, 0), long, 12)
        assert bool(record["earlier"]) == changes, name


def test_an_order_that_cannot_be_made_again_is_refused(folder, tmp_path):
    store = TokenStore.open(folder)
    _, description = described(store, MIXTURES["rates"])
    record = extended_record(None, description, 0)
    with pytest.raises(UserError, match="give the folder that pretrain wrote"):
        recorded_streams(tmp_path, store)
    damages = {
        "give the store it was trained on": {
            "sources": [source | {"store_digest": "another"} for source in record["sources"]]
        },
        "describes an order that this version does not make": {"blend": record["blend"] | {"kind": "dice"}},
        "did not record the mixture itself": {"made_from": None},
        "is damaged": {"batch_schedule": {"initial": 8, "unknown": 3}},
    }
    for number, (message, damage) in enumerate(damages.items()):
        damaged = {name: value for name, value in (record | damage).items() if value is not None}
        write(tmp_path / f"run{number}", damaged)
        with pytest.raises(UserError, match=message):
            recorded_streams(tmp_path / f"run{number}", store)
    (tmp_path / "run0" / "mixture.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        recorded_streams(tmp_path / "run0", store)

"""Batches as a pure function of the step, whatever reads them."""

import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from apertus_jax.data.loader.batch_loader import BatchLoader, ReadAhead
from apertus_jax.data.loader.device_batches import DeviceBatches, put_on_devices
from apertus_jax.data.loader.packing import segment_ids_and_positions
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.data.sample_order.megatron_index import MegatronSampleIndex
from apertus_jax.data.sample_order.mixture import Mixture, MixtureStage
from apertus_jax.data.sample_order.sample_stream import MegatronStage, build_megatron_stream, build_stream
from apertus_jax.errors import UserError

LENGTH = 16
FIELDS = {
    "tokens": (np.int32, LENGTH + 1),
    "segment_ids": (np.int32, LENGTH),
    "positions": (np.int32, LENGTH),
    "left_context": (np.int32, 7),
    "document_keys": (np.uint32, LENGTH),
    "loss_weights": (np.float32, LENGTH),
}


@pytest.fixture
def sources(make_source):
    generator = np.random.default_rng(4)
    return {
        name: make_source(generator.integers(2, 60, count).tolist(), name)
        for name, count in [("web", 80), ("books", 30), ("code", 20)]
    }


@pytest.fixture
def stream(sources):
    mixture = Mixture((MixtureStage(rates={"web": 5, "books": 2, "code": 1}), MixtureStage(90, temperature=2.0)), 40)
    return build_stream(sources, mixture, BatchSchedule(8, 16, 40), LENGTH, seed=11)


@pytest.fixture
def loader(stream):
    return BatchLoader(stream, vocab_size=500, eod_id=2, context_window=8)


def assert_same_batch(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def wait_for_threads_to_end(allowed=0, seconds=5):
    """Returns whether no reading thread is left; a pool thread that never read anything may take a moment to notice."""
    deadline = time.monotonic() + seconds
    while len(reading_threads()) > allowed and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(reading_threads()) <= allowed


def reading_threads():
    return [thread for thread in threading.enumerate() if "grain" in thread.name or "device-batches" in thread.name]


def test_batch_has_every_field_of_the_contract(loader):
    for step in (0, 4, 5, 30):
        batch = loader.batch(step)
        rows = 8 if step < 5 else 16
        for name, (dtype, width) in FIELDS.items():
            assert (batch[name].dtype, batch[name].shape) == (dtype, (rows, width)), name
        assert batch["sample_ids"].dtype == np.int64
        first = loader.stream.schedule.first_sample(step)
        assert batch["sample_ids"].tolist() == list(range(first, first + rows))
        assert (batch["loss_weights"] == 1).all()
        segment_ids, positions = segment_ids_and_positions(batch["tokens"][:, :-1], 2)
        np.testing.assert_array_equal(batch["segment_ids"], segment_ids)
        np.testing.assert_array_equal(batch["positions"], positions)


def test_rows_keys_and_contexts_are_those_of_the_documents(loader):
    for step in (0, 7):
        batch = loader.batch(step)
        located = loader.stream.locate(batch["sample_ids"])
        for row, (entry, sample) in enumerate(zip(located.entry, located.sample, strict=True)):
            source = loader.stream.sources[entry].tokens
            begin = int(sample) * LENGTH
            np.testing.assert_array_equal(batch["tokens"][row], source.stream[begin : begin + LENGTH + 1])
            documents = np.searchsorted(source.document_starts, np.arange(begin, begin + LENGTH), side="right") - 1
            keys = source.documents["document_key"].to_numpy()[documents]
            np.testing.assert_array_equal(batch["document_keys"][row], keys)
            start = source.document_starts[documents[0]]
            before = source.stream[start + 1 : begin + 1][-7:]
            expected = np.concatenate([np.full(7 - len(before), -1), before])
            np.testing.assert_array_equal(batch["left_context"][row], expected)


def test_segments_and_document_keys_change_at_the_same_places(loader):
    batch = loader.batch(12)
    new_segment = np.diff(batch["segment_ids"], axis=1) != 0
    new_key = np.diff(batch["document_keys"].astype(np.int64), axis=1) != 0
    np.testing.assert_array_equal(new_segment, new_key)


@pytest.mark.parametrize("read_ahead", [ReadAhead(0, 0), ReadAhead(1, 1), ReadAhead(2, 4), ReadAhead(7, 16)])
def test_batches_are_the_same_at_any_thread_count_and_start(loader, read_ahead):
    for start in (0, 1, 4, 5, 13):
        with loader.iterate(start, start + 6, read_ahead) as batches:
            for step in range(start, start + 6):
                assert batches.next_step == step
                assert_same_batch(next(batches), loader.batch(step))
            with pytest.raises(StopIteration):
                next(batches)


@pytest.mark.parametrize(
    "rows_of_batch",
    [
        lambda size: np.arange(size // 4, size // 2),
        lambda size: np.arange(size)[::3],
        lambda size: np.array([1, 2, size - 1]),
        lambda size: np.arange(0),
    ],
)
def test_rows_are_those_of_the_global_batch_at_any_choice(stream, loader, rows_of_batch):
    part = BatchLoader(stream, 500, 2, 8, rows_of_batch)
    for step in (0, 4, 5, 21):
        whole = loader.batch(step)
        rows = rows_of_batch(len(whole["tokens"]))
        assert np.array_equal(part.rows(step), rows)
        assert_same_batch(part.batch(step), {name: array[rows] for name, array in whole.items()})


def test_resuming_at_a_step_far_ahead_costs_no_reading(loader):
    with loader.iterate(10**12) as batches:
        batch = next(batches)
        assert batches.next_step == 10**12 + 1
    assert batch["sample_ids"][0] == loader.stream.schedule.first_sample(10**12)


def test_another_seed_gives_another_order_of_the_same_samples(sources):
    streams = [build_stream(sources, Mixture(), BatchSchedule(8), LENGTH, seed) for seed in (1, 2)]
    first, second = (BatchLoader(stream, 500, 2).batch(0)["tokens"] for stream in streams)
    assert not np.array_equal(first, second)


def test_best_fit_rows_are_padded_without_weight(sources):
    stream = build_stream(sources, Mixture(sample_index="best_fit"), BatchSchedule(8), 64, seed=1)
    loader = BatchLoader(stream, 500, 2)
    batches = [loader.batch(step) for step in range(10)]
    weights = np.concatenate([batch["loss_weights"] for batch in batches])
    tokens = np.concatenate([batch["tokens"] for batch in batches])
    assert set(np.unique(weights)) == {0.0, 1.0}
    assert ((tokens[:, 1:] != 0) == (weights == 1)).all()  # the fake documents hold no token 0
    assert all((batch["left_context"] == -1).all() for batch in batches)  # no document here is longer than a row


def test_megatron_stream_is_read_in_megatron_order(make_source):
    documents = [
        [100 * document + offset for offset in range(length)] for document, length in enumerate([5, 3, 7, 4, 6])
    ]
    source = make_source(documents)
    stream = build_megatron_stream({"books": source}, [MegatronStage()], BatchSchedule(3), 4, num_samples=6)
    tokens = np.concatenate([BatchLoader(stream, 500, 499).batch(step)["tokens"] for step in range(2)])
    assert tokens[0].tolist() == [204, 205, 206, 0, 1]
    assert tokens[2].tolist() == [404, 405, 100, 101, 102]
    with pytest.raises(UserError, match="ends after 6 samples"):
        BatchLoader(stream, 500, 499).batch(2)


def test_megatron_stages_have_own_seeds_and_spare_half_a_percent(make_source):
    sources = {"web": make_source([30] * 40, "web"), "books": make_source([241], "books")}
    weights = {"web": 1, "books": 3}
    stages = [MegatronStage(0, 28, weights=weights), MegatronStage(400, 29, weights=weights)]
    stream = build_megatron_stream(sources, stages, BatchSchedule(8), 4, num_samples=800)
    assert [entry.name for entry in stream.sources] == ["web@0", "books@0", "web@400", "books@400"]
    for entry, seed, requested in zip(stream.sources, (28, 28, 29, 29), (101, 302, 101, 302), strict=True):
        alone = MegatronSampleIndex(entry.tokens, 4, seed, requested)
        np.testing.assert_array_equal(entry.index.order, alone.order)
        np.testing.assert_array_equal(entry.index.document_order, alone.document_order)
    assert stream.sources[1].index.num_epochs == 6  # 302 samples take 1209 tokens of 241 an epoch; 300 would take five


def test_megatron_stage_with_too_few_samples_is_refused(make_source):
    sources = {"web": make_source([30] * 4, "web")}
    with pytest.raises(UserError, match="hold 29 samples in one epoch, the stage takes 30"):
        build_megatron_stream(sources, [MegatronStage()], BatchSchedule(1), 4, num_samples=30)
    with pytest.raises(UserError, match="names source 'code'; the token store has web"):
        build_megatron_stream(sources, [MegatronStage(sources=("code",))], BatchSchedule(1), 4, num_samples=3)


def test_token_outside_the_vocabulary_names_source_and_document(make_source):
    documents = [[1, 7, 8, 2], [1, 9, 731, 10, 2], [1, 5, 2]] * 3
    stream = build_stream({"web": make_source(documents, "web")}, Mixture(), BatchSchedule(4), 8, seed=0)
    loader = BatchLoader(stream, vocab_size=731, eod_id=2)
    with pytest.raises(
        UserError, match="token id 731 in document web-[147] of source 'web' is outside the vocabulary of 731"
    ):
        loader.batch(0)
    with loader.iterate(0) as batches, pytest.raises(UserError, match="token id 731"):
        next(batches)
    assert BatchLoader(stream, vocab_size=732, eod_id=2).batch(0)["tokens"].max() == 731


def test_closing_joins_the_threads_that_build_batches(loader):
    before, building = len(reading_threads()), []
    batch_of_step = loader.batch

    def slow_batch(step):
        building.append(step)
        time.sleep(0.2 if step else 0)
        batch = batch_of_step(step)
        building.remove(step)
        return batch

    loader.batch = slow_batch
    batches = loader.iterate(0, read_ahead=ReadAhead(3, 5))
    next(batches)
    assert len(reading_threads()) > before
    batches.close()
    assert building == []  # nothing is being read any more
    batches.close()
    assert wait_for_threads_to_end(before)


# on the devices


@pytest.fixture
def sharding():
    return NamedSharding(Mesh(np.array(jax.devices()).reshape(8), ("data",)), PartitionSpec("data"))


def test_device_batches_are_the_host_batches_sharded(loader, sharding):
    before = len(reading_threads())
    with DeviceBatches(loader.iterate(3, 7), sharding) as batches:
        for step in range(3, 7):
            assert batches.next_step == step
            batch, expected = next(batches), loader.batch(step)
            assert isinstance(batch["sample_ids"], np.ndarray)
            for name in FIELDS:
                assert isinstance(batch[name], jax.Array) and batch[name].sharding == sharding
            assert_same_batch({name: np.asarray(value) for name, value in batch.items()}, expected)
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(batches)
    assert wait_for_threads_to_end(before)


def test_device_batches_are_ready_before_they_are_asked_for(loader, sharding):
    built = []
    batch_of_step = loader.batch
    loader.batch = lambda step: (built.append(step), batch_of_step(step))[1]
    with DeviceBatches(loader.iterate(0, read_ahead=ReadAhead(1, 1)), sharding, num_ready=2) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while max(built) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 3 <= max(built) <= 6  # ahead of the consumer, and bounded


def test_error_in_the_background_reaches_its_batch_s_consumer(loader, sharding):
    before = len(reading_threads())
    batch_of_step = loader.batch

    def fail_at_two(step):
        if step == 2:
            raise UserError("token id 999 in document web-3")
        return batch_of_step(step)

    loader.batch = fail_at_two
    with DeviceBatches(loader.iterate(0), sharding) as batches:
        assert [int(next(batches)["sample_ids"][0]) for _ in range(2)] == [0, 8]
        for _ in range(2):
            with pytest.raises(UserError, match="token id 999"):
                next(batches)
    assert wait_for_threads_to_end(before)


def test_closing_early_joins_a_thread_that_waits_for_room(loader, sharding):
    before = len(reading_threads())
    batches = DeviceBatches(loader.iterate(0), sharding, num_ready=1)
    next(batches)
    time.sleep(0.1)
    batches.close()
    assert wait_for_threads_to_end(before)
    with pytest.raises(StopIteration):
        next(batches)


def test_mesh_that_wants_rows_that_were_not_read_is_refused(stream, sharding):
    part = BatchLoader(stream, 500, 2, 8, lambda size: np.arange(size // 2, size))
    with pytest.raises(UserError, match="keeps rows 0 to 0 of the batch on a device of this process"):
        put_on_devices(part.batch(0), sharding, 8, part.rows(0))

"""Step → documents and document → steps, against brute force, for every index and mixture."""

import collections

import numpy as np
import pytest

from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.data.provenance.uses import uses_of_document, uses_of_sample, uses_of_step
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.data.sample_order.mixture import Mixture, MixtureStage
from apertus_jax.data.sample_order.sample_stream import MegatronStage, build_megatron_stream, build_stream
from apertus_jax.errors import UserError

LENGTH = 12
STEPS = 30


@pytest.fixture
def sources(make_source):
    generator = np.random.default_rng(8)
    return {
        name: make_source(generator.integers(1, 45, count).tolist(), name)
        for name, count in [("web", 25), ("books", 9), ("code", 5)]
    }


@pytest.fixture(params=["windows", "best_fit", "megatron", "megatron stages"])
def stream(request, sources):
    schedule = BatchSchedule(4, 8, 40)
    if request.param == "megatron":
        weights = {"web": 0.5, "books": 0.3, "code": 0.2}
        return build_megatron_stream(sources, [MegatronStage(weights=weights)], schedule, LENGTH, 240)
    if request.param == "megatron stages":
        stages = [
            MegatronStage(0, 28, ("web", "code"), {"web": 3, "code": 1}),
            MegatronStage(90, 29, ("web", "books"), {"web": 1, "books": 1}),
        ]
        return build_megatron_stream(sources, stages, schedule, LENGTH, 240)
    mixture_stages = MixtureStage(rates={"web": 5, "books": 2, "code": 3}), MixtureStage(101, temperature=3.0)
    return build_stream(sources, Mixture(mixture_stages, 50, request.param), schedule, LENGTH, seed=2)


def test_every_token_of_every_batch_is_explained(stream, sources):
    loader = BatchLoader(stream, vocab_size=500, eod_id=2)
    epochs = collections.Counter()
    for step in range(STEPS):
        batch = loader.batch(step)
        rebuilt = np.zeros_like(batch["tokens"])
        explained = np.zeros(rebuilt.shape, dtype=int)
        for use in uses_of_step(stream, step):
            source = sources[use.source]
            begin = int(source.document_starts[use.document]) + use.start
            place = slice(use.offset, use.offset + use.length)
            rebuilt[use.row, place] = source.stream[begin : begin + use.length]
            explained[use.row, place] += 1
            assert (use.step, use.sample_id) == (step, batch["sample_ids"][use.row])
            assert use.document_id == f"{use.source}-{use.document}"
            assert use.start + use.length <= np.diff(source.document_starts)[use.document]
            epochs[use.source] = max(epochs[use.source], use.epoch)
        np.testing.assert_array_equal(rebuilt, batch["tokens"])
        filled = np.pad(batch["loss_weights"], ((0, 0), (1, 0)), constant_values=1)
        np.testing.assert_array_equal(explained, filled.astype(int))
    if "@" not in stream.sources[0].name and stream.sources[0].order.num_epochs(10**6) > 1:
        assert min(epochs.values()) >= 0 and max(epochs.values()) >= 2


def test_uses_of_a_document_equal_a_reading_of_every_step(stream, sources):
    expected = collections.defaultdict(list)
    for step in range(STEPS):
        for use in uses_of_step(stream, step):
            expected[use.source, use.document].append(use)
    for name, source in sources.items():
        for document in range(source.num_documents):
            for num_steps in (STEPS, 13):
                found = uses_of_document(stream, name, document, num_steps)
                assert found == [use for use in expected[name, document] if use.step < num_steps]


def test_uses_of_one_sample_are_a_part_of_its_step(stream):
    for sample_id in (0, 39, 40, 47, 48, 150):
        step = stream.schedule.step_of_sample(sample_id)
        assert uses_of_sample(stream, sample_id) == [u for u in uses_of_step(stream, step) if u.sample_id == sample_id]


def test_unknown_sources_and_documents_are_refused(stream):
    with pytest.raises(UserError, match="no source 'wbe' in this run; it trains on"):
        uses_of_document(stream, "wbe", 0, 1)
    with pytest.raises(UserError, match="'books' has no document number 9; it has 0 to 8"):
        uses_of_document(stream, "books", 9, 1)


def test_one_epoch_of_a_source_trains_each_label_once(make_source):
    source = make_source(np.random.default_rng(3).integers(2, 70, 40).tolist())
    stream = build_stream({"only": source}, Mixture(), BatchSchedule(1), LENGTH, seed=6)
    num_samples = stream.sources[0].index.num_samples
    labels = collections.Counter()
    for step in range(num_samples):
        place = int(stream.locate(np.array([step])).sample[0]) * LENGTH
        assert uses_of_step(stream, step)[0].epoch == 0
        labels.update(range(place + 1, place + LENGTH + 1))
    assert labels == collections.Counter(range(1, num_samples * LENGTH + 1))


def test_finding_a_document_does_not_grow_with_the_run(make_source):
    """Ten thousand million samples: a scan would never end."""

    class HugeSource:
        num_documents = 3
        document_starts = np.array([0, 4096 * 10**10 - 5, 4096 * 10**10 + 9, 4096 * 10**10 + 6000])
        num_tokens = 4096 * 10**10 + 6000
        documents = make_source([2, 2, 2], "huge").documents

    stream = build_stream({"huge": HugeSource()}, Mixture(), BatchSchedule(1024, 2048, 10**9), 4096, seed=1)
    uses = uses_of_document(stream, "huge", 1, 10**7)
    assert len(uses) == 4  # both windows of the document, in the first and second epoch
    for use in uses:
        assert use in uses_of_sample(stream, use.sample_id)
        assert stream.schedule.first_sample(use.step) + use.row == use.sample_id

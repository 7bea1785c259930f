"""seqio and TensorFlow Datasets see the tokens that our own loader sees."""

import json

import numpy as np
import pytest

from apertus_jax.data import MixtureStage, TokenStore, tokenize

pytestmark = pytest.mark.slow
SEQUENCE_LENGTH = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seqio")
    texts = [" ".join(f"word{n}x{k}" for k in range(20)) for n in range(60)]
    rows = [{"text": text, "source": ("even", "odd")[n % 2]} for n, text in enumerate(texts)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenize(str(folder / "a.jsonl"), folder / "store", vocab_size=400, held_out_fraction=0.1)
    return TokenStore.open(folder / "store")


def test_seqio_task_gives_the_windows_of_our_loader(store):
    import seqio

    from apertus_jax.data.loader.seqio_tasks import register_seqio_mixture
    from apertus_jax.data.sample_order.sample_index import WindowIndex

    register_seqio_mixture(store, "small", SEQUENCE_LENGTH, MixtureStage(rates={"even": 3, "odd": 1}))
    for name, split in (("even", "train"), ("odd", "train"), ("held_out", "validation")):
        source = store.source(name)
        task = seqio.get_mixture_or_task(f"small.{name}")
        dataset = task.get_dataset(sequence_length={"targets": SEQUENCE_LENGTH + 1}, split=split, shuffle=False)
        found = [example["targets"] for example in dataset.as_numpy_iterator()]
        index = WindowIndex(source, SEQUENCE_LENGTH)
        assert len(found) == index.num_samples
        for sample, tokens in enumerate(found):
            spans = index.spans(sample)
            pieces = [
                source.document(int(document))[start : start + length]
                for document, start, length in zip(spans.document, spans.start, spans.length, strict=True)
            ]
            assert np.array_equal(tokens, np.concatenate(pieces))


def test_seqio_mixture_has_the_rates_of_ours(store):
    import seqio

    mixture = seqio.get_mixture_or_task("small")
    dataset = mixture.get_dataset(
        sequence_length={"targets": SEQUENCE_LENGTH + 1}, split="train", shuffle=False, seed=0, num_epochs=None
    )
    source = store.source("even")
    even = {source.tokens(k * SEQUENCE_LENGTH, SEQUENCE_LENGTH + 1).tobytes() for k in range(source.num_tokens // 16)}
    drawn = [example["targets"].tobytes() in even for example in dataset.take(400).as_numpy_iterator()]
    assert abs(np.mean(drawn) - 0.75) < 0.07


def test_tfds_data_source_gives_the_documents_of_the_store(store, tmp_path):
    import tensorflow_datasets as tfds

    from apertus_jax.data.loader.seqio_tasks import write_tfds

    builder = tfds.builder_from_directory(write_tfds(store, tmp_path))
    for name in store.source_names:
        source, data = store.source(name), builder.as_data_source(split=name)
        assert len(data) == source.num_documents
        for number, row in enumerate(source.documents.to_pylist()):
            example = data[number]
            assert np.array_equal(example["tokens"], source.document(number))
            assert example["document_id"].decode() == row["document_id"]
            assert int(example["document_key"]) == row["document_key"]

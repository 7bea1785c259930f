"""seqio Tasks and Mixtures, and a TensorFlow Datasets folder, from a token store.

Both are generated from the store, so that they give the tokens that our own loader gives. TensorFlow is imported by
this module alone and never on the training path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from apertus_jax.data.sample_order.mixture import MixtureStage, stage_rates
from apertus_jax.data.sample_order.sample_index import WindowIndex
from apertus_jax.data.store.token_store import HELD_OUT, TokenSource, TokenStore
from apertus_jax.errors import UserError

FEATURE = "targets"
TRAIN_SPLIT, EVALUATION_SPLIT = "train", "validation"


def register_seqio_mixture(
    store: TokenStore, name: str, sequence_length: int, stage: MixtureStage | None = None
) -> seqio.Mixture:
    """Registers one seqio Task per source (`name.source`) and the Mixture `name` of the training sources.

    An example is one window of `WindowIndex`: `targets` int32[sequence_length + 1], in stored order, so that example k
    of a Task is sample k of our loader; examples are of one size, so rates of examples are rates of tokens. Training
    sources have the split `train`, the held-out source has `validation`.

    Args:
      store: an open token store.
      name: name of the mixture; letters, digits, underscore and dot.
      sequence_length: T.
      stage: rates of the sources, as in our own mixture; None mixes by size.

    Raises:
      UserError: a source is shorter than one window, or the stage does not fit the store.
    """
    vocabulary = seqio.PassThroughVocabulary(size=store.vocab_size, eos_id=store.eod_id)
    features = {FEATURE: seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)}
    for source_name in store.source_names:
        split = EVALUATION_SPLIT if source_name == HELD_OUT else TRAIN_SPLIT
        source = store.source(source_name)
        windows = WindowIndex(source, sequence_length, source_name)
        data = seqio.FunctionDataSource(
            _WindowDataset(source, windows), splits=(split,), num_input_examples={split: windows.num_samples}
        )
        seqio.TaskRegistry.add(f"{name}.{source_name}", source=data, output_features=features)
    names = store.training_sources
    rates = stage_rates(stage or MixtureStage(), {each: store.source(each).num_tokens for each in names})
    weighted = [(f"{name}.{each}", float(rate)) for each, rate in zip(names, rates, strict=True) if rate]
    return seqio.MixtureRegistry.add(name, weighted)


class _WindowDataset:
    """Dataset function of a split for seqio: windows of one source in stored order."""

    def __init__(self, source: TokenSource, windows: WindowIndex):
        self._source, self._windows = source, windows

    def __call__(self, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        length = self._windows.sequence_length
        signature = {FEATURE: tf.TensorSpec([length + 1], tf.int32)}
        return tf.data.Dataset.from_generator(self._examples, output_signature=signature)

    def _examples(self) -> Iterator[dict[str, np.ndarray]]:
        length = self._windows.sequence_length
        for sample in range(self._windows.num_samples):
            yield {FEATURE: self._source.tokens(sample * length, length + 1)}


def write_tfds(store: TokenStore, data_dir: epath.PathLike, name: str = "token_store") -> epath.Path:
    """Writes a store as a TensorFlow dataset in ArrayRecord files, one split per source, documents in stored order.

    `tfds.builder_from_directory(folder).as_data_source(split)` then gives `tokens` (boundary tokens included, held as
    bytes), `document_id`, `language` and `document_key` of each document by number.

    Returns:
      The folder of the dataset.

    Raises:
      UserError: the folder already holds a dataset of this name.
    """
    if (epath.Path(data_dir) / name).exists():
        raise UserError(f"{epath.Path(data_dir) / name} exists already; choose another folder or remove it")
    dtype = np.dtype(store.summary["dtype"])
    features = tfds.features.FeaturesDict(
        {
            "tokens": tfds.features.Tensor(shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES),
            "document_id": tfds.features.Text(),
            "language": tfds.features.Text(),
            "document_key": tfds.features.Scalar(np.uint32),
        }
    )
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=features,
        split_datasets={each: _tfds_examples(store.source(each), dtype) for each in store.source_names},
        description=f"Token store {store.digest}",
        data_dir=data_dir,
        file_format="array_record",
        disable_shuffling=True,
    )
    return epath.Path(builder.data_dir)


def _tfds_examples(source: TokenSource, dtype: np.dtype) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (key, example) of each document, in stored order."""
    columns = source.documents.select(["document_id", "language", "document_key"])
    for number in range(source.num_documents):
        row = {name: columns[name][number].as_py() for name in columns.column_names}
        yield number, {"tokens": source.document(number).astype(dtype), **row}

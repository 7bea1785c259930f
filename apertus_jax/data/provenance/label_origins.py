"""Origins of labels: from which source, and in which language, each label of a batch is."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE
from apertus_jax.data.sample_order.sample_stream import SampleStream


class Origin(NamedTuple):
    """A source, by its name in the blend, and a language label."""

    source: str
    language: str


class LabelOrigins:
    """Origins of the labels of a stream's samples, numbered over all its sources and languages."""

    def __init__(self, stream: SampleStream):
        """Reads nothing yet."""
        self._stream = stream

    @property
    def origins(self) -> list[Origin]:
        """Every origin that there is in the stream; its place is its number."""
        return self._numbered[0]

    @functools.cached_property
    def _numbered(self) -> tuple[list[Origin], list[np.ndarray]]:
        """All origins, and for each source int32[N]: the number of the origin of each document."""
        origins: list[Origin] = []
        of_documents: list[np.ndarray] = []
        for source in self._stream.sources:
            column = source.tokens.documents.column("language").combine_chunks()
            labels = pc.if_else(pc.equal(pc.fill_null(column, ""), ""), UNKNOWN_LANGUAGE, column).dictionary_encode()
            of_documents.append(labels.indices.to_numpy(zero_copy_only=False).astype(np.int32) + len(origins))
            origins += [Origin(source.name, language) for language in labels.dictionary.to_pylist()]
        return origins, of_documents

    def of_samples(self, samples: np.ndarray) -> np.ndarray:
        """Returns int32[n, T]: the number of the origin of each label of samples int64[n].

        A label belongs to the document that it is a token of, as in `language_exposure`; where a sample is padded, to
        the first origin, and its weight in the loss is 0.
        """
        numbers = np.zeros((len(samples), self._stream.sequence_length + 1), dtype=np.int32)
        located = self._stream.locate(samples)
        for row, (entry, _, sample) in enumerate(zip(*(part.tolist() for part in located), strict=True)):
            spans = self._stream.sources[entry].index.spans(sample)
            found = np.repeat(self._numbered[1][entry][spans.document], spans.length)
            numbers[row, : len(found)] = found
        return numbers[:, 1:]

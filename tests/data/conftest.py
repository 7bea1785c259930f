"""An in-memory token source, so that order, packing and loading are tested without a store on disk."""

import numpy as np
import pyarrow as pa
import pytest


class MemorySource:
    """Documents held in memory, with the attributes of a token store's source."""

    def __init__(self, documents, name):
        lengths = [len(document) for document in documents]
        self.stream = np.concatenate([np.asarray(document, dtype=np.int32) for document in documents])
        self.document_starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.num_documents = len(documents)
        self.num_tokens = int(self.document_starts[-1])
        keys = (np.arange(self.num_documents, dtype=np.uint64) * 2654435761 + len(name)) % 2**32
        self.documents = pa.table(
            {
                "document_id": [f"{name}-{number}" for number in range(self.num_documents)],
                "document_key": pa.array(keys.astype(np.uint32)),
            }
        )

    def tokens(self, start, length):
        return self.stream[start : start + length]


@pytest.fixture
def make_source():
    """Returns make(lengths or documents, name): documents of <s>, distinct-ish tokens and </s>."""

    def make(documents, name="source"):
        generator = np.random.default_rng(len(name) + len(documents))
        if isinstance(documents[0], (int, np.integer)):
            documents = [
                np.concatenate([[1], generator.integers(3, 500, max(0, length - 2)), [2]])[:length]
                if length > 1
                else [2] * length
                for length in documents
            ]
        return MemorySource(documents, name)

    return make

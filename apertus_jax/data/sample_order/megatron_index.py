"""The sample index of Megatron's GPT dataset, number for number.

Kept for the `*_as_run` configurations: documents are shuffled into a virtual stream, the stream is cut into windows,
and the windows are shuffled, all with one legacy NumPy generator whose draws must be consumed in exactly this order.

Source: docs/reference/model_and_training.md §4.2; docs/reference/data.md §11.
"""

from __future__ import annotations

import numpy as np

from apertus_jax.data.sample_order.sample_index import (
    Spans,
    TokenSource,
    count_windows,
    spans_of_stream,
    windows_of_range,
)

SEPARATE_EPOCH_BELOW = 0.80
LARGEST_UINT32_ORDER = np.iinfo(np.uint32).max - 1


class MegatronSampleIndex:
    """Windows over shuffled documents. `order` (int64[num_samples]) is the sequence in which Megatron reads them.

    `spans` takes the number of a window, not its place in `order`: pair this index with `StoredOrder(index.order)`.
    """

    def __init__(
        self,
        source: TokenSource,
        sequence_length: int,
        seed: int,
        requested_samples: int | None = None,
        name: str = "source",
    ):
        """Builds document order, boundaries and sample order.

        Args:
          source: documents and their lengths.
          sequence_length: T.
          seed: of the legacy generator (28 in the released runs' first stages).
          requested_samples: how many samples the source must supply; None means one epoch.
          name: for messages.

        Raises:
          UserError: the source is shorter than one window.
        """
        self.sequence_length = sequence_length
        lengths = np.diff(np.asarray(source.document_starts))
        num_tokens, num_documents = int(lengths.sum()), len(lengths)
        count_windows(num_tokens, sequence_length, name)
        wanted_tokens = 0 if requested_samples is None else requested_samples * sequence_length + 1
        self.num_epochs = max(1, -(-wanted_tokens // num_tokens))
        whole_epochs = self._samples_before_separate_epoch(num_tokens, requested_samples)

        generator = np.random.RandomState(seed)
        document_order = np.tile(np.arange(num_documents, dtype=np.int32), self.num_epochs)
        cut = num_documents * (self.num_epochs - 1) if whole_epochs is not None else len(document_order)
        generator.shuffle(document_order[:cut])
        if cut < len(document_order):
            generator.shuffle(document_order[cut:])
        self.document_order = document_order
        self._boundaries = np.concatenate([[0], np.cumsum(lengths[document_order], dtype=np.int64)])

        self.num_samples = count_windows(self.num_epochs * num_tokens, sequence_length, name)
        dtype = np.uint32 if self.num_samples < LARGEST_UINT32_ORDER else np.int64
        order = np.arange(self.num_samples, dtype=dtype)
        cut = self.num_samples if whole_epochs is None else whole_epochs
        generator.shuffle(order[:cut])
        if cut < self.num_samples:
            generator.shuffle(order[cut:])
        self.order = order.astype(np.int64)

        self._occurrences = np.argsort(document_order, kind="stable")  # int64[epochs · documents], by document

    def _samples_before_separate_epoch(self, num_tokens: int, requested_samples: int | None) -> int | None:
        """Returns the samples before the last epoch when that one is shuffled apart (it supplies < 80 %), else None."""
        if self.num_epochs == 1 or requested_samples is None:
            return None
        before = ((self.num_epochs - 1) * num_tokens - 1) // self.sequence_length
        per_epoch = (num_tokens - 1) // self.sequence_length
        supplied = requested_samples - before
        return before if supplied < int(SEPARATE_EPOCH_BELOW * per_epoch) else None

    def spans(self, sample: int) -> Spans:
        """Returns the spans of window `sample` of the shuffled stream; their lengths sum to T + 1. O(log documents)."""
        spans = spans_of_stream(self._boundaries, int(sample) * self.sequence_length, self.sequence_length + 1)
        return spans._replace(document=self.document_order[spans.document].astype(np.int64))

    def samples_of_document(self, document: int) -> np.ndarray:
        """Returns int64[n]: every window that holds a token of `document`, in whichever epoch. O(epochs + answer)."""
        places = self._occurrences[document * self.num_epochs : (document + 1) * self.num_epochs]
        found = [
            windows_of_range(
                int(self._boundaries[place]), int(self._boundaries[place + 1]), self.sequence_length, self.num_samples
            )
            for place in places
        ]
        return np.unique(np.concatenate(found))

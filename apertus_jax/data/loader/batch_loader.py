"""Batch loader: batches as a pure function of the step, prefetched by Grain's threads.

`BatchLoader.batch(step)` is the whole truth; iterators only run it early. Nothing here shuffles, mixes or keeps state:
to resume is to start at a step. Each process reads the rows of the global batch that its devices hold; the batch is the
same whatever the number of processes, threads or batches read ahead.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np

from apertus_jax.data.loader.packing import NO_LABEL, left_context, segment_ids_and_positions
from apertus_jax.data.sample_order.sample_index import Spans, TokenSource
from apertus_jax.data.sample_order.sample_stream import SampleStream
from apertus_jax.errors import UserError
from apertus_jax.process.retries import retried
from apertus_jax.source_keys import source_key

PADDING = 0
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ReadAhead:
    """Prefetch settings: threads that build batches, finished batches that wait; 0 threads builds each when asked."""

    num_threads: int = 2
    num_batches: int = 4


class BatchLoader:
    """Builds this process's rows of the batch of any step."""

    def __init__(
        self,
        stream: SampleStream,
        vocab_size: int,
        eod_id: int,
        context_window: int = 50,
        rows_of_batch: Callable[[int], np.ndarray] = np.arange,
        masked_documents: Mapping[str, np.ndarray] | None = None,
        with_source_keys: bool = False,
    ):
        """Reads batches of a stream.

        Args:
          stream: the global order.
          vocab_size: token ids from this on are refused.
          eod_id: the end-of-document token.
          context_window: h of the Goldfish hash; batches carry the h - 1 labels before each window.
          rows_of_batch: batch size → the rows that this process reads, ascending int[R]; by default all of them.
          masked_documents: numbers of documents, by the source's name in the store, that no loss may come from.
          with_source_keys: batches have `source_keys` for masks that ask which source a row is of.

        Raises:
          UserError: a context window below 1.
        """
        if context_window < 1:
            raise UserError(f"context_window is {context_window}; it must be at least 1")
        self.stream = stream
        self.vocab_size = vocab_size
        self.eod_id = eod_id
        self.context_length = context_window - 1
        self._rows_of_batch = rows_of_batch
        self._source_keys = [source_key(source.source) for source in stream.sources] if with_source_keys else []
        self._document_keys = [
            np.asarray(source.tokens.documents.column("document_key")).astype(np.uint32) for source in stream.sources
        ]
        self._masked = [
            flags_of_documents((masked_documents or {}).get(source.source), source.tokens.num_documents)
            for source in stream.sources
        ]

    def rows(self, step: int) -> np.ndarray:
        """Returns which rows of the global batch of `step` this process reads: int[R], ascending."""
        return self._rows_of_batch(self.stream.schedule.size_at(step))

    def batch(self, step: int) -> Batch:
        """Returns this process's rows of the batch of `step`.

        tokens int32[B, T+1]; segment_ids, positions int32[B, T]; left_context int32[B, h-1]; document_keys
        uint32[B, T]; loss_weights float32[B, T], 0 where a row is padded and where input or label belong to a masked
        document, and what the store says where it keeps weights; sample_ids int64[B]. With source keys also source_keys
        uint32[B, T], `source_key` of each row's source.

        Raises:
          UserError: a token id outside the vocabulary, or a stream that has ended.
        """
        sample_ids = self.stream.samples_of_step(step)[self.rows(step)]
        located = self.stream.locate(sample_ids)
        rows, length = len(sample_ids), self.stream.sequence_length
        tokens = np.full((rows, length + 1), PADDING, dtype=np.int32)
        context = np.full((rows, self.context_length), NO_LABEL, dtype=np.int32)
        document_keys = np.zeros((rows, length + 1), dtype=np.uint32)
        loss_weights = np.ones((rows, length), dtype=np.float32)
        for row, (entry, _, sample) in enumerate(zip(*(part.tolist() for part in located), strict=True)):
            source = self.stream.sources[entry]
            spans = source.index.spans(sample)
            filled = read_spans(source.tokens, spans, tokens[row])
            document_keys[row, :filled] = np.repeat(self._document_keys[entry][spans.document], spans.length)
            loss_weights[row, filled - 1 :] = 0
            weights = getattr(source.tokens, "weights", None)
            if weights is not None:  # each is that of a token as a label
                loss_weights[row, : filled - 1] = read_weights(source.tokens, spans, weights)[1:]
            masked = self._masked[entry]
            if masked is not None and masked[spans.document].any():
                of_masked = np.repeat(masked[spans.document], spans.length)
                # The label after the document's last token says what follows it: its input still carries the document.
                loss_weights[row, : filled - 1][of_masked[:-1] | of_masked[1:]] = 0
            if spans.start[0] > 0 and self.context_length:
                context[row] = left_context(
                    source.tokens, int(spans.document[0]), int(spans.start[0]), self.context_length
                )
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            self._refuse_tokens(tokens, sample_ids)
        segment_ids, positions = segment_ids_and_positions(tokens[:, :-1], self.eod_id)
        keys = {}
        if self._source_keys:
            of_rows = np.array(self._source_keys, dtype=np.uint32)[located.entry]
            keys = {"source_keys": np.repeat(of_rows[:, None], length, axis=1)}
        return {
            **keys,
            "tokens": tokens,
            "segment_ids": segment_ids,
            "positions": positions,
            "left_context": context,
            "document_keys": document_keys[:, :-1].copy(),
            "loss_weights": loss_weights,
            "sample_ids": sample_ids,
        }

    def _refuse_tokens(self, tokens: np.ndarray, sample_ids: np.ndarray) -> None:
        """Raises UserError naming the first token id outside the vocabulary and the document that holds it."""
        row, place = np.argwhere((tokens < 0) | (tokens >= self.vocab_size))[0]
        located = self.stream.locate(sample_ids[row : row + 1])
        source = self.stream.sources[int(located.entry[0])]
        spans = source.index.spans(int(located.sample[0]))
        document = int(spans.document[np.searchsorted(np.cumsum(spans.length), place, side="right")])
        document_id = source.tokens.documents.column("document_id")[document].as_py()
        raise UserError(
            f"token id {tokens[row, place]} in document {document_id} of source {source.source!r} is outside the "
            f"vocabulary of {self.vocab_size}; tokenize the source with this model's tokenizer"
        )

    def iterate(
        self, start_step: int, stop_step: int | None = None, read_ahead: ReadAhead | None = None
    ) -> BatchIterator:
        """Returns an iterator of the batches of start_step .. stop_step-1 (None: no end), built ahead by threads."""
        return BatchIterator(self, start_step, stop_step, read_ahead or ReadAhead())


class BatchIterator:
    """Batches in the order of their steps. Its state is `next_step`; closing it joins the threads that read ahead."""

    def __init__(self, loader: BatchLoader, start_step: int, stop_step: int | None, read_ahead: ReadAhead):
        """Starts nothing: threads begin with the first batch."""
        self.loader = loader
        self.next_step = start_step
        self._threads: set[threading.Thread] = set()
        steps = grain.MapDataset.range(start_step, sys.maxsize if stop_step is None else max(start_step, stop_step))
        options = grain.ReadOptions(num_threads=read_ahead.num_threads, prefetch_buffer_size=read_ahead.num_batches)
        self._batches = iter(steps.map(self._build).to_iter_dataset(options))

    def _build(self, step: int) -> Batch:
        self._threads.add(threading.current_thread())
        return retried(lambda: self.loader.batch(int(step)), f"reading the batch of step {int(step)}")

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.next_step += 1
        return batch

    def close(self) -> None:
        """Stops reading ahead and waits for the threads to end. Safe to call twice."""
        self._batches.close()
        for thread in self._threads - {threading.current_thread(), threading.main_thread()}:
            thread.join()

    def __enter__(self) -> BatchIterator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def flags_of_documents(numbers: np.ndarray | None, num_documents: int) -> np.ndarray | None:
    """Returns bool[N], True at the given document numbers; None when there are none."""
    if numbers is None or not len(numbers):
        return None
    flags = np.zeros(num_documents, dtype=bool)
    flags[numbers] = True
    return flags


def read_spans(source: TokenSource, spans: Spans, out: np.ndarray) -> int:
    """Reads the tokens of `spans` into the front of int32 `out` and returns how many they are.

    Spans that follow one another in the store are read at once, so that a stored window is a single copy.
    """
    filled = 0
    for begin, count in _stored_runs(source, spans):
        out[filled : filled + count] = source.tokens(begin, count)
        filled += count
    return filled


def read_weights(source: TokenSource, spans: Spans, weights: np.ndarray) -> np.ndarray:
    """Returns float32[n]: the weights (those of all tokens of `source`) of the tokens of `spans`."""
    return np.concatenate([weights[begin : begin + count] for begin, count in _stored_runs(source, spans)])


def _stored_runs(source: TokenSource, spans: Spans) -> Iterator[tuple[int, int]]:
    """Yields (first token, number of tokens) of what spans cover, joined where they follow one another."""
    begins = np.asarray(source.document_starts[spans.document]) + spans.start
    ends = begins + spans.length
    run_starts = np.flatnonzero(np.concatenate([[True], begins[1:] != ends[:-1]]))
    run_ends = np.concatenate([run_starts[1:], [len(begins)]])
    for first, last in zip(run_starts.tolist(), run_ends.tolist(), strict=True):
        yield int(begins[first]), int(ends[last - 1] - begins[first])

"""Step ↔ document queries: which documents a step read, and which steps read a document."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from apertus_jax.data.sample_order.sample_stream import SampleStream
from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DocumentUse:
    """Tokens start .. start+length-1 of one document, at token `offset` of one row of one step's batch.

    The last token of a full row is only a label there, and the first input of another row of its own document or the
    next: uses of one document overlap by that token.
    """

    step: int
    row: int
    sample_id: int
    source: str
    epoch: int
    document: int
    document_id: str
    start: int
    length: int
    offset: int


class Phase(NamedTuple):
    """Steps `first_step` .. `stop_step` - 1 of a run are in the order of `stream`; without a stop, all that follow."""

    first_step: int
    stop_step: int | None
    stream: SampleStream


def uses_of_sample(stream: SampleStream, sample_id: int) -> list[DocumentUse]:
    """Returns the uses that make up sample number `sample_id`, in the order of its tokens. O(log documents)."""
    located = stream.locate(np.array([sample_id]))
    return list(_uses(stream, int(sample_id), int(located.entry[0]), int(located.epoch[0]), int(located.sample[0])))


def uses_of_step(stream: SampleStream, step: int) -> list[DocumentUse]:
    """Returns the uses of every row of the global batch of `step`, row by row."""
    samples = stream.samples_of_step(step)
    located = stream.locate(samples)
    rows = zip(samples.tolist(), located.entry.tolist(), located.epoch.tolist(), located.sample.tolist(), strict=True)
    return [use for row in rows for use in _uses(stream, *row)]


def uses_of_document(stream: SampleStream, source: str, document: int, num_steps: int) -> list[DocumentUse]:
    """Returns the uses of one document in the first `num_steps` steps, in order of sample number.

    O(epochs · samples of the document), whatever the size of the store or the run.

    Args:
      source: the source's name in the token store.
      document: its number within the source.

    Raises:
      UserError: the stream has no such source, or the source no such document.
    """
    entries = [number for number, entry in enumerate(stream.sources) if entry.source == source]
    if not entries:
        known = sorted({entry.source for entry in stream.sources})
        raise UserError(f"no source {source!r} in this run; it trains on {', '.join(known)}")
    num_documents = stream.sources[entries[0]].tokens.num_documents
    if not 0 <= document < num_documents:
        raise UserError(f"source {source!r} has no document number {document}; it has 0 to {num_documents - 1}")
    num_samples = stream.schedule.first_sample(num_steps)
    uses: list[DocumentUse] = []
    for entry in entries:
        samples = stream.sources[entry].index.samples_of_document(document)
        for epoch in range(stream.num_epochs(entry, num_samples)):
            numbers = stream.sample_numbers(entry, np.full_like(samples, epoch), samples)
            for number, sample in zip(numbers.tolist(), samples.tolist(), strict=True):
                if 0 <= number < num_samples:
                    uses.extend(use for use in _uses(stream, number, entry, epoch, sample, document))
    return sorted(uses, key=lambda use: (use.sample_id, use.offset))


def uses_in_phases(phases: Sequence[Phase], source: str, document: int, num_steps: int) -> list[DocumentUse]:
    """Returns the uses of one document in the first `num_steps` steps of a run, whatever its order was, by step.

    An order that leaves the source out does not use its documents.
    """
    uses: list[DocumentUse] = []
    for phase in phases:
        if source in {entry.source for entry in phase.stream.sources}:
            stop = num_steps if phase.stop_step is None else min(phase.stop_step, num_steps)
            found = uses_of_document(phase.stream, source, document, stop)
            uses += [use for use in found if use.step >= phase.first_step]
    return uses


def _uses(
    stream: SampleStream, sample_id: int, entry: int, epoch: int, sample: int, only: int | None = None
) -> Iterator[DocumentUse]:
    step = stream.schedule.step_of_sample(sample_id)
    source = stream.sources[entry]
    spans = source.index.spans(sample)
    offsets = np.cumsum(spans.length) - spans.length
    for document, start, length, offset in zip(*(part.tolist() for part in (*spans, offsets)), strict=True):
        if only is None or document == only:
            yield DocumentUse(
                step=step,
                row=sample_id - stream.schedule.first_sample(step),
                sample_id=sample_id,
                source=source.source,
                epoch=epoch,
                document=document,
                document_id=source.tokens.documents.column("document_id")[document].as_py(),
                start=start,
                length=length,
                offset=offset,
            )

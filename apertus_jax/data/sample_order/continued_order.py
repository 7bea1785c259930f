"""Continued sample order after any change: no sample is read twice, and none is left out.

The checkpoint says how many samples were consumed. Where mixture, seed, sample index and length are those of before,
sample numbers mean what they meant and the next batch begins with the next number. Under another mixture every source
goes on where it had come to. Where the samples themselves are others (another length, index or seed) a source that had
begun an epoch begins its next one: within an epoch nothing can be read twice.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from apertus_jax.data.provenance.recorded_stream import (
    FROM_STEP,
    MADE_FROM,
    batch_history,
    describe_data,
    extended_record,
    phases_before,
    phases_of,
    recorded_length,
    same_order,
    stream_made_again,
    streams_of_phases,
)
from apertus_jax.data.provenance.uses import Phase
from apertus_jax.data.sample_order.batch_history import BatchHistory, BatchSegment
from apertus_jax.data.sample_order.continued_blend import CONTINUES, ContinuedBlend
from apertus_jax.data.sample_order.greedy_blend import StagedBlend
from apertus_jax.data.sample_order.megatron_index import MegatronSampleIndex
from apertus_jax.data.sample_order.mixture import Mixture
from apertus_jax.data.sample_order.sample_stream import MegatronMixture, SampleStream, StreamSource, stream_of_store
from apertus_jax.data.sample_order.shuffle import PermutedOrder
from apertus_jax.data.store.token_store import TokenStore
from apertus_jax.errors import UserError

LOCATED_AT_ONCE = 1 << 16
_log = logging.getLogger(__name__)


class ContinuedOrder(NamedTuple):
    """The order of the steps to come, the batches of the whole run, and what mixture.json is to say."""

    stream: SampleStream
    history: BatchHistory
    record: dict[str, Any]


def continue_order(
    stream: SampleStream,
    store: TokenStore,
    mixture: Mixture | MegatronMixture,
    total_steps: int,
    recorded: Mapping[str, Any] | None,
    first_step: int,
    first_sample: int,
    path: epath.Path,
    allow_change: bool = False,
) -> ContinuedOrder:
    """Returns how a run goes on at `first_step` with `first_sample` samples consumed.

    Args:
      stream: the order as if the run had begun with these settings, under their batch schedule alone.
      store, mixture, total_steps: what it was made of, see `stream_of_store`.
      recorded: content of mixture.json so far; None for a run that starts.
      first_step, first_sample: where the checkpoint stands.
      path: mixture.json, for messages.
      allow_change: the person allowed an order in which samples of before may come again.

    Raises:
      UserError: the record is damaged or of an older version, or samples would come again.
    """
    with _damage_is_named(recorded, path):
        before = phases_before(recorded, first_step)
        _check_count(before, first_step, first_sample, path, allow_change)
        here = BatchSegment(first_step, first_sample, stream.latest_schedule, stream.sequence_length)
        if isinstance(mixture, MegatronMixture):
            num_samples = samples_in_all(recorded, here, total_steps)
            stream = _continue_megatron(
                stream, store, mixture, total_steps, before, num_samples, first_sample, path, allow_change
            )
        elif before:
            description = describe_data(stream, store, mixture, total_steps)
            if same_order(before[-1], description):
                continues = before[-1]["blend"].get(CONTINUES)
            else:
                last = stream_made_again(before, store, path)
                continues = {"sample": first_sample, "draws": draws_come_to(last, stream, first_sample)}
            if continues:
                stream = stream.going_on(
                    stream.schedule, ContinuedBlend(stream.blend, continues["sample"], continues["draws"])
                )
        description = describe_data(stream, store, mixture, total_steps)
        record = extended_record(recorded, description, first_step, first_sample)
        history = batch_history(phases_of(record))
        return ContinuedOrder(stream.going_on(history.of_stream()), history, record)


@contextlib.contextmanager
def _damage_is_named(recorded: Mapping[str, Any] | None, path: epath.Path) -> Iterator[None]:
    """Turns what a damaged record makes fail into a UserError; without a record it is no fault of one."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if recorded is None:
            raise
        raise UserError(f"{path} is damaged ({error!r}); restore it, or start in a new folder") from error


def samples_in_all(recorded: Mapping[str, Any] | None, segment: BatchSegment, total_steps: int) -> int:
    """Returns how many samples a run consumes that goes on with `segment`, for which Megatron's order is made."""
    before = phases_before(recorded, segment.first_step)
    history = batch_history(before).followed_by(segment) if before else BatchHistory([segment])
    return history.first_sample(max(total_steps, segment.first_step))


def _check_count(
    before: list[dict[str, Any]], first_step: int, first_sample: int, path: epath.Path, allow_change: bool
) -> None:
    """Raises UserError where the data had come to another sample than the checkpoint counts, unless that is allowed."""
    reached = batch_history(before).first_sample(first_step) if before else first_sample
    if reached != first_sample:
        differs = (
            f"{path}: {first_step} steps took samples up to {reached - 1} and the checkpoint counts {first_sample}: "
            "an older version left samples out when the batches changed, and going on reads samples again"
        )
        if not allow_change:
            raise UserError(
                f"{differs}; start in a new folder, or set pretrain.allow_config_change = True to go on from sample "
                f"{first_sample}"
            )
        _log.warning("%s", differs)


def phases_of_run(order: ContinuedOrder, store: TokenStore, path: epath.Path) -> list[Phase]:
    """Returns every order of the run, the newest as it is and the ones before made again from the record."""
    phases = phases_of(order.record)
    earlier = streams_of_phases(phases[:-1], store, path) if len(phases) > 1 else []
    newest = Phase(phases[-1][FROM_STEP], None, order.stream)
    return [phase._replace(stop_step=phase.stop_step or newest.first_step) for phase in earlier] + [newest]


def draws_come_to(last: SampleStream, stream: SampleStream, num_samples: int) -> dict[str, int]:
    """Returns by source which draw of `stream` comes first after `num_samples` samples, the newest of them in `last`.

    Sources that `stream` leaves out are there too, for a mixture that takes them up again.
    """
    limits = last.blend.draw_limit(num_samples).tolist()
    made: dict[str, list[tuple[StreamSource, int]]] = {}
    for entry, draws in zip(last.sources, limits, strict=True):
        made.setdefault(entry.source, []).append((entry, draws))
    left_out = dict(last.blend.draws) if isinstance(last.blend, ContinuedBlend) else {}
    come_to = left_out | {name: sum(draws for _, draws in entries) for name, entries in made.items()}
    for entry in stream.sources:
        entries = made.get(entry.source, [])
        if len(entries) == 1 and _draws_the_same(entries[0][0], entry):
            continue
        epochs = max((each.order.num_epochs(draws) for each, draws in entries if draws), default=0)
        come_to[entry.name] = epochs * entry.index.num_samples if entries else come_to.get(entry.name, 0)
        if epochs:
            _log.warning(
                "source %s has other samples or another order from here on: it begins epoch %d, and what was left of "
                "the one before is not read",
                entry.name,
                epochs,
            )
    return come_to


def _draws_the_same(first: StreamSource, second: StreamSource) -> bool:
    """Returns whether every draw of two sources gives the same sample."""
    same_samples = (
        type(first.index) is type(second.index)
        and first.index.sequence_length == second.index.sequence_length
        and first.index.num_samples == second.index.num_samples
    )
    orders = first.order, second.order
    return same_samples and all(isinstance(each, PermutedOrder) for each in orders) and orders[0] == orders[1]


def _continue_megatron(
    stream: SampleStream,
    store: TokenStore,
    mixture: MegatronMixture,
    total_steps: int,
    before: list[dict[str, Any]],
    num_samples: int,
    first_sample: int,
    path: epath.Path,
    allow_change: bool,
) -> SampleStream:
    """Returns Megatron's order for a run of `num_samples` samples: the recorded one where it is long enough.

    Raises:
      UserError: what the run has read is not how the new order begins, and nobody allowed that.
    """
    last = stream_made_again(before, store, path) if before else None
    if last is not None:
        made_from, old = describe_data(stream, store, mixture, total_steps)[MADE_FROM], before[-1]
        same = all(old[MADE_FROM][name] == made_from[name] for name in ("mixture", "sample_index"))
        if same and last.sequence_length == stream.sequence_length and recorded_length(old) >= num_samples:
            return last.going_on(stream.latest_schedule)  # the recorded order, in the new batches
    if not isinstance(stream.blend, StagedBlend) or stream.blend.length != num_samples:
        seed, length = stream.seed, stream.sequence_length
        schedule = stream.latest_schedule
        stream = stream_of_store(store, mixture, schedule, length, seed, total_steps, num_samples)
    if last is not None and not begins_alike(last, stream, first_sample):
        again = (
            f"Megatron's order for {num_samples} samples does not begin with the {first_sample} samples of this "
            "run: some would come again and others never"
        )
        if not allow_change:
            raise UserError(
                f"{path}: {again}; keep the mixture and the length, add a MegatronStage that starts at sample "
                f"{first_sample}, or set pretrain.allow_config_change = True to go on like that"
            )
        _log.warning("%s", again)
    return stream


def begins_alike(first: SampleStream, second: SampleStream, num_samples: int) -> bool:
    """Returns whether two orders of Megatron's take the same windows of the same documents as their first samples."""
    if first.sequence_length != second.sequence_length:
        return False
    for start in range(0, num_samples, LOCATED_AT_ONCE):
        numbers = np.arange(start, min(start + LOCATED_AT_ONCE, num_samples))
        one, other = first.locate(numbers), second.locate(numbers)
        pairs = np.unique(np.stack([one.entry, other.entry], axis=1), axis=0).tolist()
        if not np.array_equal(one.sample, other.sample) or not all(
            _windows_alike(first.sources[number], second.sources[partner]) for number, partner in pairs
        ):
            return False
    return True


def _windows_alike(first: StreamSource, second: StreamSource) -> bool:
    """Returns whether two entries of Megatron's number the same windows, as far as the shorter one goes."""
    if first.source != second.source:
        return False
    one, other = first.index, second.index
    if not (isinstance(one, MegatronSampleIndex) and isinstance(other, MegatronSampleIndex)):
        return False
    common = min(len(one.document_order), len(other.document_order))
    return np.array_equal(one.document_order[:common], other.document_order[:common])

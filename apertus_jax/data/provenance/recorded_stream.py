"""Data record of a run (mixture.json), and the sample streams rebuilt from it.

A run may go on under another mixture, batch size or sequence length when it is told to. Steps before that were trained
in the earlier order, so the record keeps every order with the step and the sample from which on it holds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.data.provenance.uses import Phase
from apertus_jax.data.sample_order.batch_history import BatchHistory, BatchSegment
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.data.sample_order.continued_blend import CONTINUES, ContinuedBlend
from apertus_jax.data.sample_order.mixture import Mixture, MixtureStage
from apertus_jax.data.sample_order.sample_stream import MegatronMixture, MegatronStage, SampleStream, stream_of_store
from apertus_jax.data.store.token_store import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import JSONError, parse_json, read_json, read_json_object
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.run_folder import MIXTURE_FILE, RunFolder

MADE_FROM, FROM_STEP, FROM_SAMPLE, EARLIER = "made_from", "from_step", "from_sample", "earlier"
SAMPLE_INDEX = "sample_index"
PLACES = (FROM_STEP, FROM_SAMPLE, EARLIER)
WHERE = f"{MIXTURE_FILE} of the run"
STAGES_OF = {"Mixture": (Mixture, MixtureStage), "MegatronMixture": (MegatronMixture, MegatronStage)}


def describe_data(
    stream: SampleStream,
    store: TokenStore,
    mixture: Mixture | MegatronMixture,
    total_steps: int,
) -> dict[str, Any]:
    """Returns what decides the order of a run's samples, and what came of it, as JSON values.

    The arguments are those of `stream_of_store`, which made the stream.
    """
    if isinstance(mixture, MegatronMixture):
        # JSON objects have no order, and there the order of the sources decides.
        stages = [dataclasses.replace(s, sources=s.sources or tuple(s.weights or ())) for s in mixture.stages]
        mixture = dataclasses.replace(mixture, stages=stages)
    fields = {"kind": type(mixture).__name__, **dataclasses.asdict(mixture)}
    # Beside the mixture, where the record has always had it; Megatron's order has windows and nothing else.
    sample_index = fields.pop(SAMPLE_INDEX, "windows")
    made_from = {"mixture": fields, "total_steps": total_steps, SAMPLE_INDEX: sample_index}
    digests = dict.fromkeys(store.training_sources, store.digest)
    return _json_values(stream.describe(digests) | {MADE_FROM: made_from})


def extended_record(
    old: Mapping[str, Any] | None, new: Mapping[str, Any], first_step: int, first_sample: int | None = None
) -> dict[str, Any]:
    """Returns the record of a run that starts, or goes on, at `first_step` in the order that `new` describes.

    Args:
      old: the record so far, None for a run that starts.
      new: from `describe_data`.
      first_step: the first step of this start; steps from here on that were done before are done again.
      first_sample: samples consumed before it, as the checkpoint says; None takes what the record comes to.
    """
    before = phases_before(old, first_step)
    schedule = BatchSchedule(**new["batch_schedule"])
    reached = batch_history(before).first_sample(first_step) if before else schedule.first_sample(first_step)
    first_sample = reached if first_sample is None else first_sample
    if before and _decisive(before[-1]) == _decisive(new) and reached == first_sample:
        last = before.pop()
        first_step, first_sample = last[FROM_STEP], last[FROM_SAMPLE]
    elif not before and reached == first_sample:
        first_step = first_sample = 0
    return {**new, FROM_STEP: first_step, FROM_SAMPLE: first_sample, EARLIER: before}


def phases_before(record: Mapping[str, Any] | None, first_step: int) -> list[dict[str, Any]]:
    """Returns the descriptions of the orders that held for some step before `first_step`, oldest first."""
    return [] if record is None else [phase for phase in phases_of(record) if phase[FROM_STEP] < first_step]


def phases_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the descriptions in a record, oldest first, each with the step and sample from which on it holds.

    Raises:
      UserError: the record is damaged.
    """
    require_fields(record, {EARLIER: list} if EARLIER in record else {}, WHERE)
    newest = {name: value for name, value in record.items() if name != EARLIER}
    phases = []
    for phase in [*record.get(EARLIER, []), newest]:
        require_fields(phase, {}, WHERE)
        require_fields(phase, {name: int for name in (FROM_STEP, FROM_SAMPLE) if name in phase}, WHERE)
        step = phase.get(FROM_STEP, 0)
        sample = phase.get(FROM_SAMPLE, 0)
        if step and FROM_SAMPLE not in phase:
            # Versions that did not record the sample counted every schedule from the start of the run.
            sample = _batch_schedule(phase).first_sample(step)
        phases.append({**phase, FROM_STEP: step, FROM_SAMPLE: sample})
    return phases


def stage_starts(record: Mapping[str, Any]) -> list[int]:
    """Returns the sample numbers at which the stages of a run's mixture begin, ascending, the first 0.

    Another mixture that the run went on with begins a stage; other batches alone do not.

    Args:
      record: content of mixture.json.

    Raises:
      UserError: it is damaged.
    """
    phases, starts, last = phases_of(record), {0}, None
    ends = [*(phase[FROM_SAMPLE] for phase in phases[1:]), None]
    for phase, end in zip(phases, ends, strict=True):
        require_fields(phase, {"blend": dict}, WHERE)
        stages = phase["blend"].get("stages", [])
        if stages != last:
            starts.add(phase[FROM_SAMPLE])
        last = stages
        begins = [stage["start"] for stage in stages]
        starts.update(begin for begin in begins if phase[FROM_SAMPLE] <= begin and (end is None or begin < end))
    return sorted(starts)


def batch_history(phases: Sequence[Mapping[str, Any]]) -> BatchHistory:
    """Returns the batches of a run whose orders are described so.

    Raises:
      UserError: a description lacks its batches or its length.
    """
    for phase in phases:
        require_fields(phase, {"sequence_length": int}, WHERE)
    return BatchHistory(
        [
            BatchSegment(
                phase[FROM_STEP],
                phase[FROM_SAMPLE],
                _batch_schedule(phase),
                phase["sequence_length"],
            )
            for phase in phases
        ]
    )


def recorded_history(run: epath.PathLike) -> BatchHistory:
    """Returns the batches of a run as its folder records them: samples and tokens consumed before any of its steps.

    Raises:
      UserError: the folder is no run, or its record is damaged.
    """
    return batch_history(_read_phases(RunFolder(run).mixture))


def _read_phases(path: epath.Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise UserError(f"{path.parent} has no {MIXTURE_FILE}; give the folder that pretrain wrote")
    try:
        return phases_of(read_json(path))
    except JSONError as error:
        raise UserError(f"{path} is damaged ({error}); restore it") from error


def _batch_schedule(phase: Mapping[str, Any]) -> BatchSchedule:
    require_fields(phase, {"batch_schedule": dict}, WHERE)
    try:
        return BatchSchedule(**phase["batch_schedule"])
    except TypeError as error:
        raise UserError(f"{WHERE} is damaged: its batch_schedule is none ({error}); restore it") from error


def recorded_streams(run: epath.PathLike, store: TokenStore) -> list[Phase]:
    """Returns the orders that a run folder records, each exactly as it was, oldest first.

    Raises:
      UserError: the folder is no run, its record is damaged or of an older version, or the store is another one.
    """
    path = RunFolder(run).mixture
    phases = _read_phases(path)
    try:
        return streams_of_phases(phases, store, path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); restore it") from error


def streams_of_phases(phases: Sequence[Mapping[str, Any]], store: TokenStore, path: epath.Path) -> list[Phase]:
    """Returns the orders that are described so, each made again under the batches that the run had come to."""
    starts = [phase[FROM_STEP] for phase in phases]
    streams = [stream_made_again(phases[: number + 1], store, path) for number in range(len(phases))]
    return [Phase(*each) for each in zip(starts, [*starts[1:], None], streams, strict=True)]


def steps_done(run: epath.PathLike) -> int:
    """Returns how many steps a run has done, as far as it has logged them.

    Raises:
      UserError: none yet, or what it logged is damaged.
    """
    finished, metrics = RunFolder(run).finished, RunFolder(run).metrics
    last = 0
    if finished.exists():
        step = read_json_object(finished, allow_nan=True).get("step")
        if not isinstance(step, int):
            raise UserError(f"{finished} names no step; restore it, or remove it and start the run again")
        last = step
    lines = metrics.read_text().split("\n") if metrics.exists() else []
    for number, line in enumerate(lines, 1):
        if line.endswith("}") and '"step"' in line:  # a kill may have cut the last one short
            row = parse_json(line, f"{metrics}, line {number}", allow_nan=True)
            last = max(last, row["step"] if isinstance(row.get("step"), int) else 0)
    if not last:
        raise UserError(f"{run} has logged no step yet; give --steps to ask about the steps to come")
    return last


def stream_made_again(phases: Sequence[Mapping[str, Any]], store: TokenStore, path: epath.Path) -> SampleStream:
    """Makes the stream of the last of some descriptions and proves that it is the one described.

    Raises:
      UserError: the store is another one, or the description is of another version; `path` holds it.
    """
    description = phases[-1]
    if MADE_FROM not in description:
        raise UserError(f"{path} was written by a version that did not record the mixture itself; train again")
    for source in description["sources"]:
        if source["store_digest"] != store.digest:
            raise UserError(
                f"the run was trained on a token store with digest {source['store_digest']}, {store.folder} has "
                f"{store.digest}; give the store it was trained on"
            )
    made_from, blend = description[MADE_FROM], description["blend"]
    fields = dict(made_from["mixture"])
    mixture_class, stage_class = STAGES_OF[fields.pop("kind")]
    fields["stages"] = tuple(stage_class(**stage) for stage in fields["stages"])
    if mixture_class is Mixture:
        fields[SAMPLE_INDEX] = made_from[SAMPLE_INDEX]
    mixture, history = mixture_class(**fields), batch_history(phases)
    total_steps = made_from["total_steps"]
    length = recorded_length(description) if mixture_class is MegatronMixture else None
    stream = stream_of_store(
        store,
        mixture,
        history.latest,
        description["sequence_length"],
        description["seed"],
        total_steps,
        length,
    )
    if continues := blend.get(CONTINUES):
        stream = stream.going_on(history, ContinuedBlend(stream.blend, continues["sample"], continues["draws"]))
    stream = stream.going_on(history.of_stream())
    again = describe_data(stream, store, mixture, total_steps)
    if again != {name: value for name, value in description.items() if name not in PLACES}:
        raise UserError(f"{path} describes an order that this version does not make; use the version of run.json")
    return stream


def recorded_length(description: Mapping[str, Any]) -> int:
    """Returns for how many samples a described order of Megatron's was made."""
    return sum(stage["length"] for stage in description["blend"]["stages"])


def _decisive(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a description decides the order: a longer run in our order begins like a shorter one."""
    kept = {name: value for name, value in description.items() if name not in PLACES}
    made_from = dict(kept.get(MADE_FROM, {}))
    # The blend says for how many samples Megatron's order was made, and ours is the same for any number.
    made_from.pop("total_steps", None)
    return kept | {MADE_FROM: made_from}


def same_order(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Returns whether two descriptions number the same samples, whatever batches they are cut into."""

    def order(description: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in _decisive(description).items() if name != "batch_schedule"}
        return kept | {"blend": {name: value for name, value in kept["blend"].items() if name != CONTINUES}}

    return order(first) == order(second)


def _json_values(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a description as it will be read back."""
    return json.loads(json.dumps(value))

"""What a run folder records of its data (mixture.json), and the sample streams that can be made of it again.

A run may go on under another mixture when it is told to. Steps before that were trained in the earlier order, so the
record keeps every order with the step from which on it holds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax.data.batch_schedule import BatchSchedule
from apertus_jax.data.mixture import Mixture, MixtureStage
from apertus_jax.data.provenance import Phase
from apertus_jax.data.sample_stream import MegatronStage, SampleStream
from apertus_jax.data.store_stream import MegatronMixture, stream_of_store
from apertus_jax.data.token_store import TokenStore
from apertus_jax.errors import UserError

MIXTURE_FILE, FINISHED_FILE, METRICS_FILE = "mixture.json", "finished.json", "metrics.jsonl"
MADE_FROM, FROM_STEP, EARLIER = "made_from", "from_step", "earlier"
STAGES_OF = {"Mixture": (Mixture, MixtureStage), "MegatronMixture": (MegatronMixture, MegatronStage)}


def describe_data(
    stream: SampleStream,
    store: TokenStore,
    mixture: Mixture | MegatronMixture,
    total_steps: int,
    sample_index: str,
) -> dict[str, Any]:
    """Returns what decides the order of a run's samples, and what came of it, as JSON values.

    The arguments are those of `stream_of_store`, which made the stream.
    """
    if isinstance(mixture, MegatronMixture):
        # JSON objects have no order, and there the order of the sources decides.
        stages = [dataclasses.replace(s, sources=s.sources or tuple(s.weights or ())) for s in mixture.stages]
        mixture = dataclasses.replace(mixture, stages=stages)
    made_from = {
        "mixture": {"kind": type(mixture).__name__, **dataclasses.asdict(mixture)},
        "total_steps": total_steps,
        "sample_index": sample_index,
    }
    digests = dict.fromkeys(store.training_sources, store.digest)
    return _json_values(stream.describe(digests) | {MADE_FROM: made_from})


def extended_record(old: Mapping[str, Any] | None, new: Mapping[str, Any], first_step: int) -> dict[str, Any]:
    """Returns the record of a run that starts, or goes on, at `first_step` in the order that `new` describes.

    Args:
      old: the record so far, None for a run that starts.
      new: from `describe_data`.
      first_step: the first step of this start; steps from here on that were done before are done again.
    """
    before = [] if old is None else [phase for phase in _phases(old) if phase.get(FROM_STEP, 0) < first_step]
    if before and _decisive(before[-1]) == _decisive(new):
        first_step = before.pop().get(FROM_STEP, 0)
    return {**new, FROM_STEP: first_step if before else 0, EARLIER: before}


def recorded_streams(run: epath.PathLike, store: TokenStore) -> list[Phase]:
    """Returns the orders that a run folder records, each exactly as it was, oldest first.

    Raises:
      UserError: the folder is no run, its record is damaged or of an older version, or the store is another one.
    """
    path = epath.Path(run) / MIXTURE_FILE
    if not path.exists():
        raise UserError(f"{run} has no {MIXTURE_FILE}; give the folder that pretrain wrote")
    try:
        phases = _phases(json.loads(path.read_text()))
        starts = [phase.get(FROM_STEP, 0) for phase in phases]
        streams = [_made_again(phase, store, path) for phase in phases]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); restore it") from error
    return [Phase(*each) for each in zip(starts, [*starts[1:], None], streams, strict=True)]


def steps_done(run: epath.PathLike) -> int:
    """Returns how many steps a run has done, as far as it has logged them.

    Raises:
      UserError: none yet.
    """
    finished, metrics = epath.Path(run) / FINISHED_FILE, epath.Path(run) / METRICS_FILE
    if finished.exists():
        return json.loads(finished.read_text())["step"]
    lines = metrics.read_text().split("\n") if metrics.exists() else []
    last = max((json.loads(line)["step"] for line in lines if line.endswith("}") and '"step"' in line), default=0)
    if not last:
        raise UserError(f"{run} has logged no step yet; give --steps to ask about the steps to come")
    return last


def _made_again(description: Mapping[str, Any], store: TokenStore, path: epath.Path) -> SampleStream:
    """Makes the stream of a description and proves that it is the one described."""
    if MADE_FROM not in description:
        raise UserError(f"{path} was written by a version that did not record the mixture itself; train again")
    for source in description["sources"]:
        if source["store_digest"] != store.digest:
            raise UserError(
                f"the run was trained on a token store with digest {source['store_digest']}, {store.folder} has "
                f"{store.digest}; give the store it was trained on"
            )
    made_from = description[MADE_FROM]
    fields = dict(made_from["mixture"])
    mixture_class, stage_class = STAGES_OF[fields.pop("kind")]
    fields["stages"] = tuple(stage_class(**stage) for stage in fields["stages"])
    mixture, schedule = mixture_class(**fields), BatchSchedule(**description["batch_schedule"])
    total_steps, sample_index = made_from["total_steps"], made_from["sample_index"]
    stream = stream_of_store(
        store, mixture, schedule, description["sequence_length"], description["seed"], total_steps, sample_index
    )
    again = describe_data(stream, store, mixture, total_steps, sample_index)
    if again != {name: value for name, value in description.items() if name not in (FROM_STEP, EARLIER)}:
        raise UserError(f"{path} describes an order that this version does not make; use the version of run.json")
    return stream


def _phases(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the descriptions in a record, oldest first."""
    newest = {name: value for name, value in record.items() if name != EARLIER}
    return [*record.get(EARLIER, []), newest]


def _decisive(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a description decides the order: a longer run in our order begins like a shorter one."""
    kept = {name: value for name, value in description.items() if name not in (FROM_STEP, EARLIER)}
    made_from = dict(kept.get(MADE_FROM, {}))
    if made_from.get("mixture", {}).get("kind") == "Mixture":
        made_from.pop("total_steps")
    return kept | {MADE_FROM: made_from}


def _json_values(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a description as it will be read back."""
    return json.loads(json.dumps(value))

"""Plan of `prepare`: the units of every source, fixed before any of them is read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax import clock
from apertus_jax.corpus.sources import Source, Unit, describe_source, plan_units, reader_versions, unit_size
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.lease import HeartbeatLease, LocalLease, acquire_lease

KIND = "prepare_plan"
PLAN_FILE = "plan.json"
LEASES = ".leases"
LEASE_ATTEMPTS, LEASE_PAUSE_SECONDS = 50, 0.2
ROW_BITS = 40  # an ordinal is the number of the unit, then that of the row in it


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sources cut into units, and the day against which crawl dates are judged.

    Attributes:
      sources: where documents come from.
      units: pieces of them, each with the digest of its content, in the order of the corpus.
      as_of: YYYY-MM-DD; documents crawled after it are quarantined, tombstones effective after it do not count yet.
    """

    sources: tuple[Source, ...]
    units: tuple[Unit, ...]
    as_of: str

    def digest(self) -> str:
        """Returns the digest of everything that the plan fixes."""
        return artifacts.digest_json(_content(self.sources, self.units) | {"as_of": self.as_of})

    def source_of(self, number: int) -> Source:
        """Returns the source of a unit."""
        return self.sources[self.units[number].source_index]


def ordinal(unit: int, row: int) -> int:
    """Returns the place of a document in the corpus: unit number, then row number inside it."""
    return (unit << ROW_BITS) | row


def make_plan(sources: Sequence[Source], work: epath.PathLike, as_of: str, target_bytes: int) -> Plan:
    """Returns the plan of these sources, from the work folder when it was made before; writes nothing.

    Args:
      sources: where documents come from.
      work: the work folder.
      as_of: the day of the plan; "" for the present one.
      target_bytes: size of the units; 0 for one that suits the size of the corpus.

    Raises:
      UserError: a source is missing or unusable, two sources have one name, or `as_of` is not a date.
    """
    if not sources:
        raise UserError("prepare.sources is empty; bind prepare.sources = [@Source()] in a gin file, or give --input")
    names = [source.name for source in sources]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"prepare.sources names {', '.join(repeated)} twice; give each source its own name")
    if as_of:
        clock.require_day(as_of, "prepare.as_of")
    units = tuple(plan_units(sources, target_bytes=target_bytes or unit_size(sources)))
    plan = Plan(tuple(sources), units, as_of or clock.today().isoformat())
    place = _place(plan, work, as_of)
    return _stored(plan, place) if artifacts.is_complete(place) else plan


def keep_plan(plan: Plan, work: epath.PathLike, as_of: str) -> Plan:
    """Writes a plan into the work folder; returns it, or that of another process that was faster.

    Args:
      plan: from `make_plan`.
      work: the work folder.
      as_of: what `make_plan` got. Without a date the first plan's day stays, so that a run goes on unchanged tomorrow.
    """
    place = _place(plan, work, as_of)
    if not artifacts.is_complete(place):
        with _lease_with_patience(epath.Path(work) / LEASES / place.name):
            _write_plan(plan, place)
    return _stored(plan, place)


def _place(plan: Plan, work: epath.PathLike, as_of: str) -> epath.Path:
    """Returns the folder of a plan, named after everything that was chosen."""
    chosen = _content(plan.sources, plan.units) | {"as_of": as_of}
    return epath.Path(work) / f"plan-{artifacts.digest_json(chosen)[:16]}"


def _stored(plan: Plan, place: epath.Path) -> Plan:
    """Returns a plan with the day that it was stored with."""
    artifacts.verify(place, KIND)
    return dataclasses.replace(plan, as_of=read_json_object(place / PLAN_FILE)["as_of"])


def _write_plan(plan: Plan, place: epath.Path) -> None:
    """Writes a plan, unless another process has just done so."""
    if artifacts.is_complete(place):
        return
    content = _content(plan.sources, plan.units) | {"as_of": plan.as_of}
    with artifacts.build(place, KIND, {"plan": place.name}) as build:
        (build.path / PLAN_FILE).write_text(json.dumps(content, indent=1, sort_keys=True))


def _lease_with_patience(folder: epath.Path) -> LocalLease | HeartbeatLease:
    """Takes a lease, waiting for tasks that were started together: each holds it for moments.

    Raises:
      UserError: another process holds it for long.
    """
    for _ in range(LEASE_ATTEMPTS - 1):
        with contextlib.suppress(UserError):
            return acquire_lease(folder)
        time.sleep(LEASE_PAUSE_SECONDS)
    return acquire_lease(folder)


def _content(sources: Sequence[Source], units: Sequence[Unit]) -> dict[str, Any]:
    """Returns what decides the documents: how sources are read and the digests of units, not where files lie."""
    return {
        "sources": [describe_source(source) for source in sources],
        "units": [unit.to_json() for unit in units],
        "readers": reader_versions(sorted({part.format for unit in units for part in unit.parts})),
    }

"""Removal requests before a run: refuses a store that holds what they name, or trains without it."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from apertus_jax import clock
from apertus_jax.data import TokenStore
from apertus_jax.data.provenance.tombstoned_documents import TombstonedDocuments, find_tombstoned, open_tombstones
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.training.config import free_to_change
from apertus_jax.training.multihost import same_everywhere
from apertus_jax.validation import fields_by_annotation

# How the record of a run calls what decides which documents are masked; a macro in the eyes of gin.
BINDING = "TOMBSTONES"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RemovalOptions:
    """Removal requests that a run obeys.

    Attributes:
      tombstones: folder that `remove` wrote; documents of the store that its requests name are not trained on.
      on_tombstoned: "refuse" stops when the store holds such documents; "mask" gives their labels no weight.
      date: YYYY-MM-DD, the day on which requests must be in effect; today when empty.
    """

    # What a run is bound to is the digest of the tombstones and the number of requests in effect, see `BINDING`.
    tombstones: str | None = free_to_change(None)
    on_tombstoned: Literal["refuse", "mask"] = free_to_change("refuse")
    date: str = free_to_change("")

    def __post_init__(self) -> None:
        if self.date:
            clock.require_day(self.date, "RemovalOptions.date")


@dataclasses.dataclass(frozen=True)
class RemovalPlan:
    """Consequences of removal requests for a run.

    Attributes:
      masked: source of the store → int64[n], documents that give no loss.
      binding: what the run's configuration is extended by; empty without tombstones.
      record: figures for `run.json`; None without tombstones.
    """

    masked: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    binding: Mapping[str, str] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] | None = None


def plan_removals(store: TokenStore, model: ModelConfig, options: RemovalOptions) -> RemovalPlan:
    """Looks up the requests that are in effect among the documents of a store.

    Args:
      store: the token store.
      model: whose attention decides whether masking is enough.
      options: the requests, and what is done about documents that they name.

    Raises:
      UserError: a damaged folder, or a store that must not be trained on.
    """
    day = day_of_run(options.date)
    if not options.tombstones:
        return RemovalPlan()
    opened = open_tombstones(options.tombstones)
    found = find_tombstoned(store, opened, day)
    if found.num_documents and options.on_tombstoned == "refuse":
        raise UserError(
            f"{store.folder} holds {found.num_documents} documents that removal requests in {options.tombstones} name, "
            f"among them that of request {found.first_request()}; build the store again from a corpus prepared with "
            "these tombstones, or set RemovalOptions.on_tombstoned = 'mask' to train without their loss"
        )
    if found.num_training_documents and model.doc_attention == "causal":
        raise UserError(
            f"{store.folder} holds {found.num_training_documents} documents to be masked, which the documents after "
            "them would still read under ModelConfig.doc_attention='causal'; use 'segment', or build the store again"
        )
    in_effect = opened.num_in_effect(day)
    record = {
        "digest": opened.digest,
        "version": opened.version,
        "requests_in_effect": in_effect,
        "masked_documents": found.num_training_documents,
        "masked_tokens": found.num_training_tokens,
        "named_held_out_documents": found.num_documents - found.num_training_documents,
    }
    log_removals(record, found)
    return RemovalPlan(found.numbers, {BINDING: repr(f"{opened.digest}, {in_effect} in effect")}, record)


def day_of_run(date: str) -> datetime.date:
    """Returns the day that `date` names, or today (UTC) by the clock of the first process, the same on all.

    Raises:
      UserError: it is not a day.
    """
    if not date:
        today = clock.today().toordinal()
        return datetime.date.fromordinal(same_everywhere(today))
    return clock.require_day(date, "RemovalOptions.date")


def log_removals(record: Mapping[str, Any], found: TombstonedDocuments) -> None:
    """Says what is masked, and that nothing is where that is so."""
    _log.info(
        "tombstones version %d, %d requests in effect: %d documents with %d tokens masked from the loss",
        record["version"],
        record["requests_in_effect"],
        record["masked_documents"],
        record["masked_tokens"],
    )
    if record["named_held_out_documents"]:
        _log.warning(
            "%d held-out documents are named by removal requests as well, first request %s; evaluation reads them",
            record["named_held_out_documents"],
            found.first_request(),
        )

"""Removal requests before a run: refuse a store that holds what they name, or train without it."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from apertus_jax.data import TokenStore
from apertus_jax.data.tombstoned_documents import TombstonedDocuments, find_tombstoned, open_tombstones
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.training.processes import same_everywhere

REFUSE, MASK = "refuse", "mask"
# How the record of a run calls what decides which documents are masked; a macro in the eyes of gin.
BINDING = "TOMBSTONES"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RemovalPlan:
    """What removal requests mean for a run.

    Attributes:
      masked: source of the store → int64[n], documents that give no loss.
      binding: what the run's configuration is extended by; empty without tombstones.
      record: figures for `run.json`; None without tombstones.
    """

    masked: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    binding: Mapping[str, str] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] | None = None


def plan_removals(
    store: TokenStore, model: ModelConfig, tombstones: str | None, on_tombstoned: str, date: str = ""
) -> RemovalPlan:
    """Looks up the requests that are in effect among the documents of a store.

    Args:
      store: the token store.
      model: whose attention decides whether masking is enough.
      tombstones: folder that `remove` wrote, or None.
      on_tombstoned: "refuse" or "mask".
      date: YYYY-MM-DD, the day on which requests must be in effect; "" for today.

    Raises:
      UserError: an unknown choice, a damaged folder, or a store that must not be trained on.
    """
    if on_tombstoned not in (REFUSE, MASK):
        raise UserError(f"pretrain.on_tombstoned={on_tombstoned!r} must be {REFUSE!r} or {MASK!r}")
    day = day_of_run(date)
    if not tombstones:
        return RemovalPlan()
    opened = open_tombstones(tombstones)
    found = find_tombstoned(store, opened, day)
    if found.num_documents and on_tombstoned == REFUSE:
        raise UserError(
            f"{store.folder} holds {found.num_documents} documents that removal requests in {tombstones} name, among "
            f"them that of request {found.first_request()}; build the store again from a corpus prepared with these "
            "tombstones, or set pretrain.on_tombstoned = 'mask' to train without their loss"
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
        today = datetime.datetime.now(datetime.UTC).date().toordinal()
        return datetime.date.fromordinal(same_everywhere(today))
    try:
        return datetime.date.fromisoformat(date)
    except ValueError as error:
        raise UserError(f"pretrain.tombstones_date={date!r} is not a day; write YYYY-MM-DD") from error


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

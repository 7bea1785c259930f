"""Origin of a run: which of its own checkpoint, weights of before and random numbers its first state comes from.

The order is: 1 resume this run, 2 start from weights (`TrainingConfig.init_from`), 3 random. A run has one parent for
good: its record says which, and another one is refused.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

from apertus_jax.data import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.process.agreement import first_says
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.run_parent import Parent, read_parent
from apertus_jax.training.starting.parent_weights import (
    SETTING,
    ParentWeights,
    StartFrom,
    check_architecture,
    check_tokenizer_of,
    errors_name_the_setting,
    open_parent,
)

# How the configuration on record calls the weights that a run started from.
BINDING = "PARENT_OF_RUN"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Origin of a run: its parent on record, and the weights to be read now.

    Attributes:
      asked: what this start was asked for.
      parent: the weights that the run started from, or starts from now; None for random ones.
      weights: the same, to be read now; None for a run that goes on, and for random weights.
    """

    asked: StartFrom
    parent: Parent | None = None
    weights: ParentWeights | None = None

    @property
    def binding(self) -> Mapping[str, str]:
        """What the run's configuration is extended by; empty without a parent."""
        if self.parent is None:
            return {}
        what = "weights and optimizer" if self.parent.with_optimizer else "weights"
        return {BINDING: repr(f"{self.parent.digest}, {what}")}

    @property
    def record(self) -> dict | None:
        """The parent as `run.json` holds it."""
        return None if self.parent is None else self.parent.to_json()

    @property
    def branches(self) -> bool:
        """Whether this start copies a step of another run, to go on from it."""
        return self.weights is not None and self.weights.record.with_optimizer

    def is_before_own_steps(self, newest: int) -> bool:
        """Returns whether the newest checkpoint is the parent's: no other configuration could spoil anything yet."""
        return self.parent is not None and self.parent.with_optimizer and newest == self.parent.step


def find_origin(asked: StartFrom, folder: RunFolder, store: TokenStore, model: ModelConfig) -> Origin:
    """Returns where a run comes from, after checking that it can; writes nothing.

    Raises:
      UserError: the run has another parent, or there are no such weights, or they do not fit the run.
    """
    recorded = read_parent(folder.path)
    has_steps = bool(first_says(folder.committed_steps))
    if asked.path and folder.path == asked.place:
        raise UserError(f"{SETTING} is the run {folder.path} itself, which resumes by itself; leave it out")
    if not asked.path:
        if recorded is not None and not has_steps:
            raise UserError(
                f"{folder.path} was to start from {recorded.path} and has no checkpoint yet; give "
                f"--init_from={recorded.path} again, or start in a new folder"
            )
        return Origin(asked, recorded)
    if has_steps or recorded is not None:
        _check_same_parent(asked, recorded, folder, has_steps)
    if has_steps:
        return Origin(asked, recorded)
    weights = open_parent(asked)
    with errors_name_the_setting(asked):
        _check_same_data(weights, store)
        changed = check_architecture(weights, model)
        check_tokenizer_of(weights, store)
    record = dataclasses.replace(weights.record, changed=changed)
    for name, (there, here) in changed.items():
        _log.warning("%s: %s in the weights it starts from, %s in this run", name, there, here)
    if weights.tokenizer is None:
        _log.warning("%s has no tokenizer: nobody can check that its ids mean what those of the store do", asked.path)
    return Origin(asked, record, dataclasses.replace(weights, record=record))


def _check_same_parent(asked: StartFrom, recorded: Parent | None, folder: RunFolder, has_steps: bool) -> None:
    """Raises UserError when a run is given another parent than it has."""
    if recorded is None:
        raise UserError(
            f"{folder.path} was started from random weights and cannot start from {asked.path}; leave {SETTING} out to "
            "resume it, or start in a new folder"
        )
    same_step = asked.step is None or asked.step == recorded.step or not has_steps
    same = str(asked.place) == recorded.path and same_step and asked.with_optimizer == recorded.with_optimizer
    if not same and has_steps and str(asked.place) != recorded.path:
        # The folder may have moved: what counts is its content.
        weights = open_parent(asked)
        same = (weights.record.digest, asked.with_optimizer) == (recorded.digest, recorded.with_optimizer)
    if not same:
        what = "weights and optimizer" if recorded.with_optimizer else "weights"
        raise UserError(
            f"{folder.path} was started from {what} of {recorded.path}, {recorded.name}, and has no other parent; "
            f"leave {SETTING} out to resume it, or start in a new folder"
        )


def _check_same_data(weights: ParentWeights, store: TokenStore) -> None:
    """Raises UserError when a run would go on with another run's order of samples in another store."""
    record = weights.record
    if record.with_optimizer and (record.store, record.tokenizer) != (store.digest, store.tokenizer_digest):
        raise UserError(
            "TrainingConfig.init_optimizer goes on with the samples of that run, which read the token store "
            f"{record.store} and not {store.digest} of {store.folder}; give its own store, or start from its weights "
            "alone"
        )

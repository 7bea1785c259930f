"""Unread sources: a phase of training takes none of the sources that the phases before it have read."""

from __future__ import annotations

import logging
from collections.abc import Collection

from apertus_jax.data.provenance.recorded_stream import phases_of
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.run_parent import Parent

_log = logging.getLogger(__name__)


def check_unread_sources(parent: Parent, sources: Collection[str]) -> None:
    """Checks the sources of a run that starts from weights against the records of every run before it.

    Sources are told apart by their names alone, in whichever token store: the same documents under two names, or in a
    source that was tokenized again under another one, are not found.

    Args:
      parent: the weights that the run starts from.
      sources: names of the sources that its mixture draws from.

    Raises:
      UserError: a run before has read one of them, or its record is damaged.
    """
    for ancestor in parent.lineage():
        record = RunFolder(ancestor.run).mixture if ancestor.run else None
        if record is None or not record.exists():
            _log.warning(
                "nothing here says which sources trained %s: whether they are read again is open", ancestor.name
            )
            continue
        for phase in phases_of(read_json_object(record)):
            require_fields(phase, {"sources": list}, str(record))
            read = {entry["source"] for entry in phase["sources"]}
            if again := sorted(read & set(sources)):
                raise UserError(
                    f"source {again[0]!r} of the mixture was read by {ancestor.run} already, which the weights come "
                    "from; give this phase sources of its own, or set TrainingConfig.init_unread_sources = False"
                )

"""Ancestors of a run: which documents the runs read whose weights it started from, as far as their records say."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow.compute
from etils import epath

from apertus_jax import clock
from apertus_jax.corpus.documents import DOCUMENT_ID
from apertus_jax.data.provenance.recorded_stream import recorded_streams
from apertus_jax.data.provenance.tombstoned_documents import find_tombstoned, open_tombstones
from apertus_jax.data.provenance.uses import DocumentUse, uses_in_phases
from apertus_jax.data.store.token_store import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.run_parent import Parent, read_parent


class AncestorAnswer(NamedTuple):
    """Answer from the record of an ancestor about a document: in words, and its uses, by step.

    `knows_it` says whether its store holds the document; `store` is None where its record cannot be read.
    """

    title: str
    run: str
    store: TokenStore | None
    uses: Sequence[DocumentUse]
    knows_it: bool


def ancestors_of(run: epath.PathLike) -> Iterator[Parent]:
    """Yields the weights that a run and its ancestors started from.

    What a run that goes on with the optimizer of another read there stands in its own record.
    """
    parent = read_parent(run)
    return iter(()) if parent is None else (each for each in parent.lineage() if not each.with_optimizer)


def ask_ancestor(
    parent: Parent, question: str, store: TokenStore, tombstones: str = "", today: str = ""
) -> AncestorAnswer:
    """Returns in which steps, before those of its weights, an ancestor read a document.

    Args:
      parent: the ancestor.
      question: a document's identity, an address, or a removal request.
      store: that of the run which is asked, for ancestors that read the same one.
      tombstones, today: see `provenance`.
    """
    begin = f"started from {parent.name}"
    if not parent.run or parent.step is None:
        return AncestorAnswer(f"{begin}: what it read is not on record", parent.run, None, (), False)
    try:
        opened = store if store.digest == parent.store else TokenStore.open(recorded_store(epath.Path(parent.run)))
        if opened.digest != parent.store:
            raise UserError(f"its token store was {parent.store}, {opened.folder} is {opened.digest}")
        phases = recorded_streams(parent.run, opened)
        documents = find_documents(opened, question, tombstones, today)
    except (UserError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return AncestorAnswer(f"{begin}: what it read cannot be said: {reason}", parent.run, None, (), False)
    uses = [use for source, number in documents for use in uses_in_phases(phases, source, number, parent.step)]
    uses.sort(key=lambda use: (use.step, use.row, use.offset))
    title = f"{begin}: {read_in_words(uses)} in {parent.step} steps"
    return AncestorAnswer(title, parent.run, opened, uses, bool(documents))


def find_documents(store: TokenStore, question: str, tombstones: str = "", today: str = "") -> list[tuple[str, int]]:
    """Returns (source, number) of the documents of a store that have an identity or address, or a request names."""
    column = "document_id" if DOCUMENT_ID.fullmatch(question) else "url"
    found = []
    for name in store.source_names:
        matches = pyarrow.compute.equal(store.source(name).documents[column], question)
        found += [(name, number) for number in pyarrow.compute.indices_nonzero(matches).to_pylist()]
    if not found and tombstones:
        day = clock.require_day(today, "provenance.today") if today else clock.today()
        found = find_tombstoned(store, open_tombstones(tombstones), day).documents_of(question)
    return found


def read_in_words(uses: Sequence[DocumentUse]) -> str:
    """Returns in words how often documents were read."""
    if not uses:
        return "not read"
    steps = sorted({use.step for use in uses})
    tokens = sum(use.length for use in uses)
    return f"{tokens} tokens read in {len(uses)} stretches, {len(steps)} steps from {steps[0]} to {steps[-1]},"


def recorded_store(run: epath.Path) -> str:
    """Returns where the token store of a run lay when it was started."""
    record = RunFolder(run).record
    if not record.exists():
        raise UserError(f"{run} has no {record.name}; give the folder that pretrain wrote")
    try:
        config = read_json_object(record, allow_nan=True)["config"]
        return ast.literal_eval(config["pretrain.store"])
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{record} does not say where the token store lies ({error!r}); give --gin.provenance.store"
        ) from error

"""Inputs of `tokenize`: the bundled corpus, or files and folders of documents, with their sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.bundled import bundled_documents, bundled_versions, is_english
from apertus_jax.corpus.documents import (
    LONGEST_SOURCE_NAME,
    PREPARED_DOCUMENTS,
    PREPARED_KIND,
    Document,
    digest_input,
    read_documents,
    source_folder_name,
)
from apertus_jax.corpus.prepared_parts import checked_parts
from apertus_jax.corpus.removal.tombstones import APPLIED_TOMBSTONES
from apertus_jax.data.store.token_store import HELD_OUT
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.manifests import require_fields

BUNDLED = "bundled"
APPLIED_FIELDS = {"digest": str, "version": int, "supersedes": list, "in_effect": int, "until": str}
PLANTED_KINDS, PLANTED_DOCUMENTS = ("probes", "canaries"), "documents.jsonl"
BUNDLED_ENGLISH, BUNDLED_LANGUAGES = "english", "languages"


@dataclasses.dataclass(frozen=True)
class DocumentInput:
    """One input: `bundled` or a path. With a `name`, all its documents form that source of the store."""

    location: str
    name: str | None = None

    def identity(self) -> dict[str, Any]:
        """Returns what decides the content: package versions, or the digest of the files.

        Raises:
          UserError: a package or a path is missing.
        """
        content = bundled_versions() if self.location == BUNDLED else digest_input(self.location)
        return {"name": self.name, "content": content}

    def applied_tombstones(self) -> dict[str, Any] | None:
        """Returns which removal requests were applied when this input was prepared; None when none were."""
        if self.location == BUNDLED or not artifacts.is_complete(self.location):
            return None
        applied = artifacts.read_any(self.location)["summary"].get(APPLIED_TOMBSTONES)
        if applied is not None:
            where = f"{epath.Path(self.location) / artifacts.COMMIT_MARKER}: summary.{APPLIED_TOMBSTONES}"
            require_fields(applied, APPLIED_FIELDS, where)
        return applied

    def check(self) -> None:
        """Checks that a folder which a command wrote holds what was committed, before its documents are believed.

        Raises:
          UserError: something is missing, was added, or has changed since.
        """
        if self.location == BUNDLED:
            return
        folder = epath.Path(self.location)
        if not folder.is_dir() and folder.parent.name != "documents":  # planted texts are named by their file
            folder = folder.parent
        if not artifacts.is_complete(folder):
            return
        kind = artifacts.kind_of(folder)
        if kind == PREPARED_KIND:
            checked_parts(folder, (PREPARED_DOCUMENTS,))
        elif kind in PLANTED_KINDS:
            artifacts.verify(folder, kind)

    def read(self) -> Iterator[tuple[str, Document]]:
        """Streams (source of the store, document) in a fixed order.

        Raises:
          UserError: a row is not a document.
        """
        if self.location == BUNDLED:
            for document in bundled_documents():
                yield self.name or (BUNDLED_ENGLISH if is_english(document) else BUNDLED_LANGUAGES), document
            return
        for document in read_documents(self.location):
            yield self.name or source_name(document.source), document


def resolve_inputs(documents: str | Sequence[str] | Mapping[str, str]) -> list[DocumentInput]:
    """Returns the inputs that `documents` names: one, a list, or a table of source name → input.

    Without a table, documents go to the source that their own `source` field names.

    Raises:
      UserError: there is none, or a source name cannot be a folder name.
    """
    if isinstance(documents, Mapping):
        inputs = [DocumentInput(str(location), source_name(name)) for name, location in sorted(documents.items())]
    else:
        several = [documents] if isinstance(documents, str) or not isinstance(documents, Sequence) else documents
        inputs = [DocumentInput(str(location)) for location in several]
    if not inputs:
        raise UserError("no documents were given; give a file, a folder, or `bundled`")
    return inputs


def resolve_planted(folders: str | Sequence[str]) -> list[DocumentInput]:
    """Returns the inputs that planted probes or canaries are, each a source of the store by the name it was given.

    Raises:
      UserError: a folder holds no planted texts.
    """
    inputs = []
    for folder in [folders] if isinstance(folders, str) else folders:
        kind = artifacts.kind_of(folder) if artifacts.is_complete(folder) else "nothing complete"
        if kind not in PLANTED_KINDS:
            raise UserError(f"{folder} holds {kind}, not planted texts; give what plant-probes or plant-canaries wrote")
        name = artifacts.read_manifest(folder, kind)["summary"]["source"]
        inputs.append(DocumentInput(str(epath.Path(folder) / PLANTED_DOCUMENTS), source_name(name)))
    return inputs


def read_inputs(inputs: Sequence[DocumentInput]) -> Iterator[tuple[str, Document]]:
    """Streams (source of the store, document) of all inputs, one after another.

    Raises:
      UserError: an input holds no document.
    """
    for each in inputs:
        empty = True
        for pair in each.read():
            empty = False
            yield pair
        if empty:
            raise UserError(f"{each.location} holds no documents; give a file or folder with at least one")


def source_name(name: str) -> str:
    """Returns `name` as a folder name: characters other than letters, digits, dot, dash and underscore become `_`.

    Raises:
      UserError: nothing is left of it, or it is the name kept for held-out documents.
    """
    cleaned = source_folder_name(name)
    if cleaned == HELD_OUT:
        raise UserError(f"source name {name!r} is kept for held-out documents; use another")
    if not cleaned:
        raise UserError(
            f"source name {name[:LONGEST_SOURCE_NAME]!r} cannot name a folder; use at most {LONGEST_SOURCE_NAME} "
            "letters, digits, dots, dashes and underscores"
        )
    return cleaned

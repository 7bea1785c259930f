"""The token store: what `tokenize` writes and everything after it reads.

    COMMITTED.json                    digests of every file, and the summary below
    tokenizer/                        the one tokenizer of the store, as transformers loads it
    sources/NAME/tokens.bin, .idx     one Megatron pair per source, documents in stored order
    sources/NAME/documents.parquet    one row per document, in the same order

Every document is <s>, its tokens, </s>. The source `held_out` is never trained on; the others are what a mixture draws
from. Stores are memory-mapped, so they lie on a file system (local or mounted), not in a bucket.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from apertus_jax import artifacts
from apertus_jax.corpus.documents import DOCUMENT_ID
from apertus_jax.data.megatron_files import MegatronReader
from apertus_jax.data.tokenizer import Tokenizer
from apertus_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow

KIND = "token_store"
HELD_OUT = "held_out"
DOCUMENTS_FILE = "documents.parquet"
TOKENS_PREFIX = "tokens"


def document_rows_schema() -> pyarrow.Schema:
    """Returns the schema of documents.parquet: identity, origin and size of each stored document.

    `text_digest` is that of the text before personal data was rewritten, as `corpus.removal.text_digest` gives it;
    `cluster` is empty for a document without copies; `document_key` is that of the cluster where there is one.
    """
    import pyarrow

    names = ("document_id", "source", "language", "url", "licence", "cluster", "text_digest")
    strings = [(name, pyarrow.string()) for name in names]
    counts = [(name, pyarrow.int64()) for name in ("characters", "utf8_bytes", "tokens")]
    return pyarrow.schema([*strings, *counts, ("document_key", pyarrow.uint32())])


def document_key(document_id: str, cluster: str = "") -> int:
    """Returns the 32-bit key that stands for a document, and for all its copies, in batches.

    That is the first 8 digits of an identity: of the document that the cluster of copies is named by, or of the
    document itself when it has no copies. A cluster with a name of another kind is hashed.
    """
    name = cluster or document_id
    if not DOCUMENT_ID.fullmatch(name):
        name = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return int(name[:8], 16)


class TokenSource(MegatronReader):
    """One source of a store: a Megatron pair and the table of its documents."""

    def __init__(self, folder: epath.PathLike, name: str, summary: Mapping[str, Any]):
        """Opens a source's files.

        Raises:
          UserError: they are missing, damaged, or differ from what the manifest says.
        """
        self.name = name
        self.folder = epath.Path(folder)
        self.summary = dict(summary)
        super().__init__(self.folder / TOKENS_PREFIX)
        found = (self.num_documents, self.num_tokens)
        if found != (summary["documents"], summary["tokens"]):
            raise UserError(
                f"{self.folder} has (documents, tokens) {found}, not what its manifest says; rebuild the store"
            )

    @functools.cached_property
    def documents(self) -> pyarrow.Table:
        """The table of documents, row i belonging to document i of the index."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(os.fspath(self.folder / DOCUMENTS_FILE))
        if table.num_rows != self.num_documents:
            raise UserError(
                f"{self.folder / DOCUMENTS_FILE} has {table.num_rows} rows for {self.num_documents} documents"
            )
        return table

    @functools.cached_property
    def document_keys(self) -> np.ndarray:
        """uint32[N]: the key of each document, as the batch carries it."""
        return self.documents["document_key"].to_numpy()

    def document_of_token(self, position: int) -> int:
        """Returns which document holds the token at `position`."""
        return int(np.searchsorted(self.document_starts, position, side="right")) - 1


class TokenStore:
    """A complete token store, opened for reading."""

    def __init__(self, folder: epath.PathLike, manifest: Mapping[str, Any]):
        """Takes a folder and its manifest; use `TokenStore.open`."""
        self.folder = epath.Path(folder)
        self.manifest = manifest
        self.summary: Mapping[str, Any] = manifest["summary"]
        self._sources: dict[str, TokenSource] = {}

    @classmethod
    def open(cls, folder: epath.PathLike, verify: bool = False) -> TokenStore:
        """Opens a store. Sizes of all files are always checked; `verify` also reads and digests every byte.

        Raises:
          UserError: the folder is not a complete token store, or a file is missing or not as committed.
        """
        root = epath.Path(folder)
        manifest = artifacts.verify(root, KIND) if verify else artifacts.read_manifest(root, KIND)
        for name, expected in manifest["files"].items():
            if not (root / name).exists():
                raise UserError(f"{root / name} is missing from a token store; restore it or tokenize again")
            size = (root / name).stat().length
            if size != expected["bytes"]:
                raise UserError(
                    f"{root / name} has {size} bytes, not {expected['bytes']}; restore it or tokenize again"
                )
        return cls(root, manifest)

    @property
    def digest(self) -> str:
        """Digest of the manifest: a store rebuilt in place with another content has another one."""
        return self.manifest["digest"]

    @property
    def tokenizer_digest(self) -> str:
        """Identity of the tokenizer that made the store."""
        return self.summary["tokenizer"]

    @property
    def source_names(self) -> list[str]:
        """Names of all sources, sorted, the held-out one included."""
        return sorted(self.summary["sources"])

    @property
    def training_sources(self) -> list[str]:
        """Names of the sources that may be trained on, sorted."""
        return sorted(name for name in self.summary["sources"] if name != HELD_OUT)

    @property
    def has_held_out(self) -> bool:
        """Whether documents were set apart for evaluation."""
        return HELD_OUT in self.summary["sources"]

    @property
    def vocab_size(self) -> int:
        """Number of ids of the store's tokenizer."""
        return self.summary["vocab_size"]

    @property
    def bod_id(self) -> int:
        """Id of <s>, the first token of every document."""
        return self.summary["bod_id"]

    @property
    def eod_id(self) -> int:
        """Id of </s>, the last token of every document."""
        return self.summary["eod_id"]

    @property
    def num_documents(self) -> int:
        """Number of training documents over all sources."""
        return sum(self.summary["sources"][name]["documents"] for name in self.training_sources)

    @property
    def num_tokens(self) -> int:
        """Number of training tokens over all sources, boundary tokens included."""
        return sum(self.summary["sources"][name]["tokens"] for name in self.training_sources)

    def source(self, name: str) -> TokenSource:
        """Returns one source by name; `held_out` is the evaluation part.

        Raises:
          UserError: the store has no such source, or its files are damaged.
        """
        summaries = self.summary["sources"]
        if name not in summaries:
            raise UserError(f"{self.folder} has no source {name!r}; it has {', '.join(sorted(summaries))}")
        if name not in self._sources:
            self._sources[name] = TokenSource(self.folder / "sources" / name, name, summaries[name])
        return self._sources[name]

    @property
    def tokenizer_folder(self) -> epath.Path:
        """Folder of the tokenizer that made the store, as transformers loads it."""
        return self.folder / "tokenizer"

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the store."""
        return Tokenizer.load(self.tokenizer_folder)

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Checks that `tokenizer` made this store.

        Raises:
          UserError: it is another one.
        """
        made_by, given = self.tokenizer_digest, tokenizer.digest
        if given != made_by:
            raise UserError(f"{self.folder} was made by tokenizer {made_by}, not {given}; use {self.tokenizer_folder}")

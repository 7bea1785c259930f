"""Token store: the folder that `tokenize` writes and training reads.

    COMMITTED.json                    digests of every file, and the summary below
    tokenizer/                        the one tokenizer of the store, as transformers loads it
    sources/NAME/tokens.bin, .idx     one Megatron pair per source, documents in stored order
    sources/NAME/tokens.blocks        digests of the blocks of tokens.bin, see `token_blocks`
    sources/NAME/documents.parquet    one row per document, in the same order
    sources/NAME/weights.f32          loss weights of the tokens, where there are conversations, see `loss_weights`

Every document is <s>, its tokens, </s>. The source `held_out` is never trained on; the others are what a mixture draws
from. Stores are memory-mapped, so they lie on a file system (local or mounted), not in a bucket.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from apertus_jax.corpus.documents import DOCUMENT_ID, HELD_OUT
from apertus_jax.data.store.loss_weights import WEIGHTS, WEIGHTS_FIELDS, WEIGHTS_FILE, open_weights
from apertus_jax.data.store.megatron_files import MegatronReader, token_dtype
from apertus_jax.data.store.token_blocks import check_block, chosen_blocks, num_blocks, read_digests
from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.listing import regular_file
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.parquet_columns import require_columns, require_values
from apertus_jax.validation import require_whole_number

if TYPE_CHECKING:
    import pyarrow

KIND = "token_store"
DOCUMENTS_FILE = "documents.parquet"
TOKENS_PREFIX = "tokens"
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CHECKED_BLOCKS = 8
NEVER_EMPTY = ("document_id", "source", "characters", "utf8_bytes", "tokens", "document_key")
LARGEST_SMALL_FILE = 16 << 20
LARGEST_VOCABULARY = 2**31 - 1
SUMMARY_FIELDS = {"vocab_size": int, "tokenizer": str, "bod_id": int, "eod_id": int, "dtype": str, "sources": dict}
SOURCE_FIELDS = {"documents": int, "tokens": int, "characters": int, "utf8_bytes": int, "languages": dict}
_log = logging.getLogger(__name__)


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


def check_summary(root: epath.Path, manifest: Mapping[str, Any]) -> None:
    """Checks that the manifest of a store says all that its readers ask, and nothing that cannot be.

    Raises:
      UserError: a part is missing, of another kind, or out of range.
    """
    summary, where = manifest["summary"], f"{root / artifacts.COMMIT_MARKER}: summary"
    require_fields(summary, SUMMARY_FIELDS, where)
    if not 1 <= summary["vocab_size"] <= LARGEST_VOCABULARY:
        raise UserError(f"{where}.vocab_size = {summary['vocab_size']} is no size of a vocabulary; tokenize again")
    for name in ("bod_id", "eod_id"):
        if summary[name] >= summary["vocab_size"]:
            raise UserError(f"{where}.{name} = {summary[name]} is outside the vocabulary; tokenize again")
    expected = token_dtype(summary["vocab_size"]).name
    if summary["dtype"] != expected:
        raise UserError(f"{where}.dtype = {summary['dtype']!r:.40}, not the vocabulary's {expected}; tokenize again")
    if not summary["sources"]:
        raise UserError(f"{where}.sources is empty; tokenize again")
    for name, source in summary["sources"].items():
        if not SOURCE_NAME.fullmatch(name):
            raise UserError(f"{where} has the source {name[:40]!r}, which is no name of a folder; tokenize again")
        require_fields(source, SOURCE_FIELDS, f"{where}.sources.{name}")
        weights = [WEIGHTS_FILE] if WEIGHTS in source else []
        if weights:
            require_fields(source, {WEIGHTS: dict}, f"{where}.sources.{name}")
            require_fields(source[WEIGHTS], WEIGHTS_FIELDS, f"{where}.sources.{name}.{WEIGHTS}")
        for file in (f"{TOKENS_PREFIX}.bin", f"{TOKENS_PREFIX}.idx", DOCUMENTS_FILE, *weights):
            if f"sources/{name}/{file}" not in manifest["files"]:
                raise UserError(f"{where}: sources/{name}/{file} is not among the committed files; tokenize again")


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
        require_columns(table.schema, document_rows_schema(), self.folder / DOCUMENTS_FILE)
        require_values(table, NEVER_EMPTY, self.folder / DOCUMENTS_FILE)
        if table.num_rows != self.num_documents:
            raise UserError(
                f"{self.folder / DOCUMENTS_FILE} has {table.num_rows} rows for {self.num_documents} documents"
            )
        return table

    @functools.cached_property
    def weights(self) -> np.ndarray | None:
        """float32[num_tokens], memory-mapped: what the loss of each token counts; None where it is 1 for all.

        Raises:
          UserError: the file has another length than the tokens.
        """
        return open_weights(self.folder, self.summary, self.num_tokens)

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
        """Use `TokenStore.open`."""
        self.folder = epath.Path(folder)
        self.manifest = manifest
        self.summary: Mapping[str, Any] = manifest["summary"]
        self._sources: dict[str, TokenSource] = {}

    @classmethod
    def open(
        cls, folder: epath.PathLike, verify: bool = False, checked_blocks: int = CHECKED_BLOCKS, seed: int = 0
    ) -> TokenStore:
        """Opens a store and checks what its readers rely on.

        Sizes of all files, the digests of its small files (index, tables, tokenizer), and of a sample of the blocks of
        tokens: their digests, and that no id is outside the vocabulary. What was checked is logged.

        Args:
          folder: the store.
          verify: read and digest every byte.
          checked_blocks: how many blocks of 4 MiB are looked at; a store with fewer is read whole.
          seed: of the choice of blocks.

        Raises:
          UserError: the folder is not a complete token store, or a file is missing or not as committed.
        """
        require_whole_number("checked_blocks of a token store", checked_blocks, at_least=0)
        root = epath.Path(folder)
        manifest = artifacts.verify(root, KIND) if verify else artifacts.read_manifest(root, KIND)
        check_summary(root, manifest)
        for name, expected in manifest["files"].items():
            if not (root / name).exists():
                raise UserError(f"{root / name} is missing from a token store; restore it or tokenize again")
            size = (root / name).stat().length
            if size != expected["bytes"]:
                raise UserError(
                    f"{root / name} has {size} bytes, not {expected['bytes']}; restore it or tokenize again"
                )
            is_small = size <= LARGEST_SMALL_FILE and not name.endswith(".bin")
            if is_small and not verify and artifacts.digest_file(regular_file(root / name)) != expected["blake2b"]:
                raise UserError(f"{root / name} has changed since it was committed; restore it or tokenize again")
        store = cls(root, manifest)
        if checked_blocks:
            store.check_blocks(checked_blocks, seed)
        return store

    def check_blocks(self, count: int, seed: int = 0) -> None:
        """Checks a sample of the blocks of tokens, see `open`.

        Raises:
          UserError: a block is not as it was written, or holds an id outside the vocabulary.
        """
        itemsize = token_dtype(self.vocab_size).itemsize
        sizes = [(name, self.summary["sources"][name]["tokens"] * itemsize) for name in self.source_names]
        chosen = chosen_blocks(sizes, count, seed)
        by_source = {name: [block.number for block in chosen if block.source == name] for name in self.source_names}
        undigested = []
        for name, numbers in by_source.items():
            if not numbers:
                continue
            source = self.source(name)
            digests = read_digests(source)
            if digests is None:
                undigested.append(name)
            for number in numbers:
                check_block(source, number, None if digests is None else digests[number], self.vocab_size)
        total = sum(num_blocks(size) for _, size in sizes)
        _log.info("%s: checked %d of %d blocks of tokens (seed %d)", self.folder, len(chosen), total, seed)
        if undigested:
            _log.warning(
                "%s has no digests of blocks (an older version wrote it): ids were checked, changes were not looked "
                "for; `apertus verify %s` reads all of it",
                self.folder,
                self.folder,
            )

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
            source = TokenSource(self.folder / "sources" / name, name, summaries[name])
            expected = token_dtype(self.vocab_size)
            if source.dtype != expected:
                raise UserError(
                    f"{source.prefix}.idx says that tokens are {source.dtype}, where a vocabulary of {self.vocab_size} "
                    f"takes {expected}; tokenize again"
                )
            self._sources[name] = source
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

"""Verification of token stores and planted texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from etils import epath

from apertus_jax.corpus.documents import read_documents
from apertus_jax.data.store.loss_weights import WEIGHTS, WEIGHTS_FILE, check_weights
from apertus_jax.data.store.token_blocks import check_block, num_blocks, read_digests
from apertus_jax.data.store.token_store import HELD_OUT, TokenSource, TokenStore, document_key
from apertus_jax.errors import UserError
from apertus_jax.storage.verification import Notes

COUNTED = ("tokens", "characters", "utf8_bytes")


def verify_store(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks every token, every document's row, and the tokenizer of a store whose digests were compared already.

    Raises:
      UserError: the first thing that is not as readers assume.
    """
    store = TokenStore.open(folder, checked_blocks=0)
    tokenizer = store.tokenizer
    if tokenizer.digest != store.tokenizer_digest or tokenizer.vocab_size != store.vocab_size:
        raise UserError(f"{store.tokenizer_folder} is not the tokenizer that made the store; restore it")
    tokenizer.encode("a 1")
    notes.add(folder, "tokenizer", f"{store.vocab_size:,} ids")
    for name in store.source_names:
        source = store.source(name)
        digests = read_digests(source)
        numbers = range(num_blocks(source.num_tokens * source.dtype.itemsize))
        for number in notes.track(numbers, f"tokens of {name}", len(numbers)):
            check_block(source, number, None if digests is None else digests[number], store.vocab_size)
        _check_boundaries(source, store)
        _check_table(source)
        if source.weights is not None:
            path = source.folder / WEIGHTS_FILE
            check_weights(source.weights, source.document_starts, source.summary, path)
            notes.add(folder, f"weights of {name}", f"{source.summary[WEIGHTS]['weighted_tokens']:,} tokens with loss")
        notes.add(folder, f"source {name}", f"{source.num_documents:,} documents, {source.num_tokens:,} tokens")
    training = [store.summary["sources"][name] for name in store.training_sources]
    for name, part in (("num_documents", "documents"), ("num_tokens", "tokens")):
        total = sum(source[part] for source in training)
        if store.summary.get(name, total) != total:
            raise UserError(f"{folder} says {name} = {store.summary[name]} where its sources have {total}; rebuild it")
    if not training and HELD_OUT not in store.source_names:
        raise UserError(f"{folder} has no documents; tokenize again")


def _check_boundaries(source: TokenSource, store: TokenStore) -> None:
    """Checks that every document begins with <s> and ends with </s>."""
    starts = source.document_starts
    for places, wanted, what in ((starts[:-1], store.bod_id, "begin"), (starts[1:] - 1, store.eod_id, "end")):
        wrong = np.flatnonzero(source.stored_tokens[places] != wanted)
        if len(wrong):
            raise UserError(f"{source.prefix}.bin: document {wrong[0]} does not {what} with the id {wanted}; rebuild")


def _check_table(source: TokenSource) -> None:
    """Checks that the rows of documents are those of the index and of the manifest."""
    path, table = f"{source.folder}/documents.parquet", source.documents
    missing = sorted({"document_id", "cluster", "language", "document_key", *COUNTED} - set(table.column_names))
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]}; rebuild the store")
    lengths = np.diff(source.document_starts)
    wrong = np.flatnonzero(table["tokens"].to_numpy() != lengths)
    if len(wrong):
        raise UserError(f"{path}, row {wrong[0] + 1}: has another number of tokens than the index; rebuild the store")
    for name in COUNTED:
        total = int(table[name].to_numpy().sum())
        if total != source.summary[name]:
            raise UserError(f"{path}: {name} add up to {total} where the manifest says {source.summary[name]}; rebuild")
    keys = source.document_keys
    rows = zip(table["document_id"].to_pylist(), table["cluster"].to_pylist(), keys.tolist(), strict=True)
    for number, (identity, cluster, key) in enumerate(rows, 1):
        if document_key(identity or "", cluster or "") != key:
            raise UserError(f"{path}, row {number}: the key is not that of {identity!r:.40}; rebuild the store")
    counted: dict[str, int] = {}
    for language in table["language"].to_pylist():
        counted[language] = counted.get(language, 0) + 1
    stated = {name: each.get("documents") for name, each in source.summary["languages"].items()}
    if counted != stated:
        raise UserError(f"{path}: documents of each language are not those that the manifest says; rebuild the store")


def verify_planted(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks that planted probes or canaries can be read as documents, every one with text.

    Raises:
      UserError: a row that is no document; or none at all.
    """
    count = sum(1 for _ in read_documents(folder / "documents.jsonl"))
    if not count:
        raise UserError(f"{folder / 'documents.jsonl'} holds no documents; plant again")
    notes.add(folder, "documents", f"{count:,}")

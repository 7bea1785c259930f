"""The `tokenize` command: documents → token store.

Three passes over the input, none of which holds it in memory: look at every document (and choose what is held out),
train the tokenizer on what is not held out, tokenize. Then each source is written in the order of a keyed hash of the
document identities, so that neighbours in the store are never one site.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from etils import epath

from apertus_jax.chat import ChatFormat, EncodedChat, encode_chats, parse_conversation, render
from apertus_jax.corpus.batching import batched
from apertus_jax.corpus.documents import Document
from apertus_jax.corpus.language_codes import names_language
from apertus_jax.data.store.document_inputs import DocumentInput, read_inputs, resolve_inputs, resolve_planted
from apertus_jax.data.store.document_spill import Scan, TokenSpill, scan_documents
from apertus_jax.data.store.held_out_split import choose_held_out
from apertus_jax.data.store.loss_weights import WEIGHTS, WeightsWriter
from apertus_jax.data.store.megatron_files import MegatronWriter, token_dtype
from apertus_jax.data.store.token_store import (
    DOCUMENTS_FILE,
    HELD_OUT,
    KIND,
    TOKENS_PREFIX,
    TokenStore,
    document_key,
    document_rows_schema,
)
from apertus_jax.data.tokenizer.bpe import Tokenizer, train_bpe
from apertus_jax.data.tokenizer.tekken import apertus_tokenizer
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of, identity_of_arguments
from apertus_jax.terminal.progress import ProgressBars
from apertus_jax.terminal.tables import show_table

Item = TypeVar("Item")
BPE, TEKKEN = "bpe", "tekken"
STORE_FORMAT = 3
DOCUMENTS_PER_BATCH = 512
CHARACTERS_PER_BATCH = 1 << 21
ROWS_PER_GROUP = 1 << 14


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The arguments of `tokenize` that decide the content of the store."""

    inputs: list[DocumentInput]
    tokenizer: str
    vocab_size: int
    held_out_fraction: float
    seed: int
    bpe_bytes_per_source: int
    planted_sources: frozenset[str]
    chat_format: ChatFormat


def tokenize(
    documents: str | Sequence[str] | Mapping[str, str],
    output: epath.PathLike,
    tokenizer: str = BPE,
    vocab_size: int = 8192,
    held_out_fraction: float = 0.02,
    seed: int = 0,
    bpe_bytes_per_source: int = 4_000_000,
    planted: str | Sequence[str] = (),
    chat_format: ChatFormat = ChatFormat(),  # noqa: B008 (frozen)
    progress: bool = True,
) -> dict[str, Any]:
    """Makes a token store of documents; returns its summary.

    Idempotent: returns immediately if the output is complete.

    Documents with a `cluster` get the key of their cluster of copies in place of their own (`document_key` in batches),
    so that a Goldfish mask with keys gives all copies the same holes. Conversations are rendered as `chat_format` says,
    and their source keeps a loss weight for each token (`loss_weights`).

    Args:
      documents: `bundled`, a .jsonl(.gz) or .parquet file, a folder of them, a list of these, or a table of source
        name → one of these.
      output: the folder to write, on a file system (stores are memory-mapped).
      tokenizer: `bpe` trains one on the documents, `tekken` is the full Apertus vocabulary, anything else is the
        folder of a tokenizer.
      vocab_size: ids of a trained tokenizer; ignored otherwise.
      held_out_fraction: share of each source's bytes that is kept from training for evaluation; 0 for none.
      seed: of the held-out choice and the order of documents.
      bpe_bytes_per_source: a trained tokenizer learns from at most this much text of each source, so that a large
        source does not crowd out the others.
      planted: folders of planted probes or canaries, read after `documents`. Each is a source of its own from which
        nothing is held out, since every copy of them must be trained on.
      chat_format: how conversations become tokens; without a system message, by default, their system block is empty.
      progress: shows bars on a terminal.

    Raises:
      UserError: an input is missing, empty or damaged, or the output folder holds something else. Nothing is left
        half-written.
    """
    arguments = dict(locals())
    if "://" in str(output):
        raise UserError(f"{output} is not on a file system; token stores are memory-mapped, give a local folder")
    whole = resolve_planted(planted)
    inputs = [*resolve_inputs(documents), *whole]
    planted_sources = frozenset(each.name for each in whole if each.name is not None)
    plan = _Plan(
        inputs, str(tokenizer), vocab_size, held_out_fraction, seed, bpe_bytes_per_source, planted_sources, chat_format
    )
    given = None if plan.tokenizer in (BPE, TEKKEN) else Tokenizer.load(plan.tokenizer)
    identity = _identity(arguments, plan, given)
    if artifacts.already_built(output, KIND, identity):
        return dict(TokenStore.open(output).summary)
    for each in inputs:
        each.check()
    with (
        artifacts.build(output, KIND, identity) as build,
        _spill_folder(build.path) as spill,
        ProgressBars(progress) as bars,
    ):
        build.summary.update(_build_store(plan, given, Path(build.path), spill, bars))
    if progress:
        _print_summary(build.summary)
    return dict(build.summary)


def _print_summary(summary: Mapping[str, Any]) -> None:
    """Shows what a new store holds, source by source."""
    columns = ("source", "documents", "tokens", "UTF-8 bytes", "languages")
    rows = []
    for name, source in summary["sources"].items():
        counts = [source["documents"], source["tokens"], source["utf8_bytes"], _num_languages([source])]
        rows.append((name, *(f"{count:,}" for count in counts)))
    title = f"Token store: vocabulary {summary['vocab_size']:,}, tokenizer {summary['tokenizer'][:12]}"
    show_table(columns, rows, title, right=columns[1:], to_errors=True)


def _build_store(plan: _Plan, given: Tokenizer | None, folder: Path, spill: Path, bars: ProgressBars) -> dict[str, Any]:
    """Writes the content of a store and returns its summary."""
    looked_at = bars.track(read_inputs(plan.inputs), "reading documents")
    scan = scan_documents(looked_at, spill, plan.seed, with_grams=plan.held_out_fraction > 0)
    never = np.isin(scan.table.sources, [scan.source_names.index(name) for name in plan.planted_sources])
    held_out = choose_held_out(scan.table, scan.grams, plan.held_out_fraction, never)
    tokenizer = given or _make_tokenizer(plan, scan, held_out, bars)
    tokenizer.save(folder / "tokenizer")
    tokens = _spill_tokens(plan, tokenizer, spill, len(held_out), bars)
    try:
        sources = {
            name: _write_source(folder / "sources" / name, numbers, tokens, tokenizer, bars)
            for name, numbers in _stored_orders(scan, held_out)
        }
    finally:
        tokens.close()
    training = [source for name, source in sources.items() if name != HELD_OUT]
    return {
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": tokenizer.digest,
        "bod_id": tokenizer.bod_id,
        "eod_id": tokenizer.eod_id,
        "pad_id": tokenizer.pad_id,
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "num_documents": sum(source["documents"] for source in training),
        "num_tokens": sum(source["tokens"] for source in training),
        "num_languages": _num_languages(training),
        "tombstones": [each.applied_tombstones() for each in plan.inputs],
        "sources": sources,
    }


def _num_languages(sources: Sequence[Mapping[str, Any]]) -> int:
    """Returns how many languages the documents of sources are labelled with; without a label they are of none."""
    return len({language for source in sources for language in source["languages"] if names_language(language)})


def _make_tokenizer(plan: _Plan, scan: Scan, held_out: np.ndarray, bars: ProgressBars) -> Tokenizer:
    """Trains BPE on documents that are not held out, or converts the tekken vocabulary."""
    if plan.tokenizer == TEKKEN:
        return apertus_tokenizer()
    chosen = bpe_sample(scan, held_out, plan.bpe_bytes_per_source)
    documents = bars.track(read_inputs(plan.inputs), "training the tokenizer", len(chosen))
    texts = (document.text for (_, document), wanted in zip(documents, chosen, strict=True) if wanted)
    return train_bpe(texts, plan.vocab_size)


def bpe_sample(scan: Scan, held_out: np.ndarray, bytes_per_source: int) -> np.ndarray:
    """Returns bool[N]: the documents a tokenizer learns from, at random from each source up to `bytes_per_source`."""
    chosen = np.zeros(len(held_out), dtype=bool)
    for source in range(len(scan.source_names)):
        numbers = np.flatnonzero((scan.table.sources == source) & ~held_out)
        numbers = numbers[np.argsort(scan.order_keys[numbers], kind="stable")]
        before = np.cumsum(scan.table.utf8_bytes[numbers]) - scan.table.utf8_bytes[numbers]
        chosen[numbers[before < bytes_per_source]] = True
    return chosen


def _spill_tokens(plan: _Plan, tokenizer: Tokenizer, folder: Path, total: int, bars: ProgressBars) -> TokenSpill:
    """Tokenizes every document in reading order."""
    spill = TokenSpill(folder)
    documents = (document for _, document in bars.track(read_inputs(plan.inputs), "tokenizing", total))
    # Large enough to keep all cores busy, small enough to bound memory.
    for batch in batched(documents, DOCUMENTS_PER_BATCH, lambda each: len(each.text), CHARACTERS_PER_BATCH):
        texts = [each for each in batch if not each.conversation]
        encoded = iter(tokenizer.encode_batch([each.text for each in texts]))
        chats = iter(_encode_chats([each for each in batch if each.conversation], tokenizer, plan.chat_format))
        for document in batch:
            if document.conversation:
                spill.append(document, *next(chats))
            else:
                spill.append(document, next(encoded))
    spill.finish()
    return spill


def _encode_chats(documents: Sequence[Document], tokenizer: Tokenizer, chat_format: ChatFormat) -> list[EncodedChat]:
    """Returns ids and loss weights of conversations, without the boundary tokens of a document.

    Raises:
      UserError: an assistant says nothing in one, or what it says of the day depends on when it is tokenized.
    """
    if not documents:
        return []
    chats = []
    for document in documents:
        conversation = parse_conversation(json.loads(document.conversation))
        if not conversation.has_answer:
            raise UserError(
                f"no assistant says anything in conversation {document.document_id} of {document.source}, so there is "
                "nothing to learn; remove it"
            )
        if conversation.system is None and chat_format.names_day:
            raise UserError(
                f"the system block of template {chat_format.template!r} names the day, that of this run as it is; "
                "give ChatFormat.date, or a text as ChatFormat.system"
            )
        chats.append(render(conversation, chat_format))
    # The first piece is <s>, which every document gets.
    return [EncodedChat(ids[1:], weights[1:]) for ids, weights in encode_chats(chats, tokenizer, chat_format)]


def _stored_orders(scan: Scan, held_out: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (source, int64[n] document numbers in stored order), held-out documents as a source of their own."""
    parts = {name: (scan.table.sources == number) & ~held_out for number, name in enumerate(scan.source_names)}
    parts[HELD_OUT] = held_out
    for name in sorted(parts):
        numbers = np.flatnonzero(parts[name])
        if len(numbers):
            # Reading order settles a tie of two 64-bit hashes.
            yield name, numbers[np.argsort(scan.order_keys[numbers], kind="stable")]


def _write_source(
    folder: Path, numbers: np.ndarray, spill: TokenSpill, tokenizer: Tokenizer, bars: ProgressBars
) -> dict[str, Any]:
    """Writes one source in the given order and returns its summary."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True)
    schema = document_rows_schema()
    bod, eod = np.array([tokenizer.bod_id], np.int32), np.array([tokenizer.eod_id], np.int32)
    totals = {"documents": 0, "tokens": 0, "characters": 0, "utf8_bytes": 0}
    languages: dict[str, dict[str, int]] = {}
    rows: list[dict[str, Any]] = []
    weights = WeightsWriter(folder) if spill.has_weights(numbers) else None
    with (
        contextlib.closing(weights) if weights else contextlib.nullcontext(),
        MegatronWriter(folder / TOKENS_PREFIX, tokenizer.vocab_size) as writer,
        pyarrow.parquet.ParquetWriter(folder / DOCUMENTS_FILE, schema, compression="zstd") as table,
    ):
        for number in bars.track(numbers.tolist(), f"writing {folder.name}", len(numbers)):
            text_tokens, row = spill.read(number)
            writer.append(np.concatenate([bod, text_tokens, eod]))
            if weights:
                weights.append(spill.weights(number), len(text_tokens) + 2)
            row |= {"tokens": len(text_tokens) + 2, "document_key": document_key(row["document_id"], row["cluster"])}
            rows.append(row)
            of_language = languages.setdefault(row["language"], dict.fromkeys(totals, 0))
            for counts in (totals, of_language):
                counts["documents"] += 1
                for name in ("tokens", "characters", "utf8_bytes"):
                    counts[name] += row[name]
            if len(rows) == ROWS_PER_GROUP:
                table.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                rows.clear()
        if rows:
            table.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    return {
        **totals,
        "languages": dict(sorted(languages.items())),
        **({WEIGHTS: weights.summary} if weights else {}),
    }


def _identity(arguments: Mapping[str, Any], plan: _Plan, given: Tokenizer | None) -> dict[str, Any]:
    """Returns what decides the content of the store, for the manifest and for recognising finished work."""
    of_tokenizer = ("vocab_size", "bpe_bytes_per_source")  # they are part of its entry where they decide something
    tokenizer: dict[str, Any] = {"kind": "given", "digest": given.digest} if given else {"kind": plan.tokenizer}
    if plan.tokenizer == TEKKEN:
        tokenizer["mistral-common"] = importlib.metadata.version("mistral-common")
    if plan.tokenizer == BPE:
        tokenizer |= {"vocab_size": plan.vocab_size, "bytes_per_source": plan.bpe_bytes_per_source}
    read = {"documents": [each.identity() for each in plan.inputs], "tokenizer": tokenizer}
    elsewhere = ("output", "progress", "planted", "chat_format", *of_tokenizer)
    settings = identity_of_arguments(tokenize, arguments, *elsewhere, **read)
    identity = {"store_format": STORE_FORMAT, **settings}
    # Said only when another is asked for: stores of before are recognized.
    if plan.chat_format != ChatFormat():
        identity |= identity_of(plan.chat_format)
    return identity | ({"planted": sorted(plan.planted_sources)} if plan.planted_sources else {})


@contextlib.contextmanager
def _spill_folder(output: epath.PathLike) -> Iterator[Path]:
    """Makes a folder for temporary files inside the unfinished output, so that they share its disk and its fate."""
    folder = Path(output) / ".spill"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)

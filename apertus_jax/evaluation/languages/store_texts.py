"""Texts of a token store: a bounded sample of each language, held-out apart from training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from apertus_jax.data import TokenSource, TokenStore
from apertus_jax.data.store.token_store import HELD_OUT
from apertus_jax.errors import UserError
from apertus_jax.evaluation.languages.counting import Passage, whole_characters
from apertus_jax.evaluation.languages.options import LanguageOptions

HELD_OUT_TEXT, TRAINING_TEXT, UNKNOWN_TEXT = "held out", "training", "unknown"


def store_passages(store: TokenStore, trained_on_it: bool, options: LanguageOptions) -> list[Passage]:
    """Draws documents of every language, held-out and training ones each until they have `tokens_per_language` tokens.

    Args:
      store: the token store.
      trained_on_it: whether the model was trained on this store; if not, no text is known to be seen or unseen.
      options: how many tokens, and the seed of the order in which documents are drawn.

    Raises:
      UserError: no text at all.
    """
    trained = (TRAINING_TEXT, store.training_sources)
    parts = [(HELD_OUT_TEXT, [HELD_OUT] if store.has_held_out else []), trained]
    passages: list[Passage] = []
    for origin, names in parts:
        left: dict[str, int] = {}
        for name in names:
            for language, number, length in drawn_documents(
                store.source(name), options.tokens_per_document, options.seed
            ):
                length = min(length, left.setdefault(language, options.tokens_per_language))
                if length < 1:
                    continue
                ids = store.source(name).document(number)[1:-1]
                if length < len(ids):
                    ids = whole_characters(store.tokenizer, ids[:length])
                if store.tokenizer.token_byte_lengths[ids].sum():
                    passages.append(Passage(language, ids, origin if trained_on_it else UNKNOWN_TEXT))
                    left[language] -= length
    if not passages:
        raise UserError(f"{store.folder} has no text; tokenize some documents first")
    return passages


def drawn_documents(source: TokenSource, tokens_per_document: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """Yields (language, document, tokens of text that may be taken), documents in the order of the seed."""
    import pyarrow.compute

    languages = pyarrow.compute.dictionary_encode(source.documents.column("language").combine_chunks())
    codes = languages.indices.to_numpy(zero_copy_only=False)
    names = languages.dictionary.to_pylist()
    lengths = np.minimum(np.diff(source.document_starts) - 2, tokens_per_document)
    order = np.random.default_rng(seed).permutation(len(codes))
    for number in order[np.argsort(codes[order], kind="stable")].tolist():
        yield names[codes[number]], number, int(lengths[number])

"""Copies carry one key: the store's `document_key` is that of the cluster, and the vocabulary's text is at hand."""

import json

import numpy as np
import pytest

from apertus_jax.data import TokenStore, tokenize, vocabulary_text
from apertus_jax.data.store.token_store import document_key
from apertus_jax.errors import UserError

IDENTITY, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clusters")
    rows = [
        {"document_id": IDENTITY, "text": "And the earth was without form, and void;\n" * 3, "cluster": IDENTITY},
        {"document_id": OTHER, "text": "And the earth was without form, and void; " * 3, "cluster": IDENTITY},
        {"document_id": "a" * 32, "text": "Let there be light: and there was light. " * 3},
    ]
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenize(str(folder / "documents.jsonl"), folder / "store", vocab_size=400, held_out_fraction=0.0, progress=False)
    return folder / "store"


def test_copies_have_the_key_of_their_cluster_others_their_own(store):
    source = TokenStore.open(store).source("documents")
    keys = dict(zip(source.documents["document_id"].to_pylist(), source.document_keys.tolist(), strict=True))
    assert keys[IDENTITY] == keys[OTHER] == 0x01234567
    assert keys["a" * 32] == 0xAAAAAAAA


def test_a_cluster_named_otherwise_still_has_one_key():
    assert document_key(IDENTITY, "family 7") == document_key(OTHER, "family 7") != document_key(OTHER, "family 8")
    assert 0 <= document_key(IDENTITY, "family 7") < 2**32


def test_vocabulary_text_spells_and_counts_every_document(store):
    opened = TokenStore.open(store)
    vocabulary = vocabulary_text(str(store))
    source = opened.source("documents")
    tokens = source.tokens(0, source.num_tokens)
    text = b"".join(vocabulary.pieces[token] for token in tokens.tolist()).decode()
    assert text.count("without form") == 6 and "<s>" not in text
    assert vocabulary.pieces[opened.bod_id] == b"" and len(vocabulary.counts) == opened.vocab_size
    seen = np.bincount(tokens, minlength=opened.vocab_size) > 0
    np.testing.assert_array_equal(vocabulary.counts > 0, seen)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        vocabulary_text(str(tmp_path / "nothing"))

"""Megatron files byte for byte, and stores that notice every change."""

import hashlib
import json
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from apertus_jax.corpus import read_documents
from apertus_jax.data import TokenStore, tokenize, train_bpe
from apertus_jax.data.store.megatron_files import MegatronReader, MegatronWriter
from apertus_jax.errors import UserError

TEXTS = [f"Document {n} of a small corpus; число {n * 7}, 第{n}章. {'word ' * (n % 5)}" for n in range(60)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rows = [
        {
            "id": f"r{n}",
            "text": text,
            "source": "odd" if n % 2 else "even",
            "language": "eng_Latn" if n % 3 else "rus_Cyrl",
        }
        for n, text in enumerate(TEXTS)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_bpe(TEXTS, 400).save(folder)
    return folder


@pytest.fixture
def store_folder(corpus, tokenizer_folder, tmp_path):
    tokenize(str(corpus), tmp_path / "store", tokenizer=str(tokenizer_folder), held_out_fraction=0, seed=3)
    return tmp_path / "store"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 399), min_size=1, max_size=30), max_size=12), st.sampled_from([400, 131_072]))
def test_token_files_are_megatrons_byte_for_byte(tmp_path_factory, documents, vocab_size):
    prefix = tmp_path_factory.mktemp("files") / "tokens"
    with MegatronWriter(prefix, vocab_size) as writer:
        for tokens in documents:
            writer.append(np.array(tokens))
    letter, code, width = ("H", 8, 2) if vocab_size == 400 else ("i", 4, 4)
    count, lengths = len(documents), [len(tokens) for tokens in documents]
    flat = [token for tokens in documents for token in tokens]
    assert prefix.with_suffix(".bin").read_bytes() == struct.pack(f"<{len(flat)}{letter}", *flat)
    offsets = [width * sum(lengths[:number]) for number in range(count)]
    index = prefix.with_suffix(".idx").read_bytes()
    assert len(index) == 42 + 20 * count
    assert index == b"MMIDIDX\x00\x00" + struct.pack(
        f"<QBQQ{count}i{count}q{count + 1}q", 1, code, count, count + 1, *lengths, *offsets, *range(count + 1)
    )
    reader = MegatronReader(prefix)
    assert [reader.document(number).tolist() for number in range(count)] == documents
    assert reader.tokens(0, reader.num_tokens).tolist() == flat
    assert reader.tokens(0, reader.num_tokens).dtype == np.int32


def test_ids_outside_the_vocabulary_are_refused(tmp_path):
    for tokens, wrong in (([5, 400], 400), ([-1, 5], -1)):
        with (
            pytest.raises(UserError, match=f"token id {wrong} is outside"),
            MegatronWriter(tmp_path / "t", 400) as writer,
        ):
            writer.append(np.array(tokens))
    with pytest.raises(UserError, match="0 tokens"), MegatronWriter(tmp_path / "t", 400) as writer:
        writer.append(np.array([], dtype=np.int32))


@pytest.mark.parametrize("position", [0, 9, 17, 18, 26, 34, 40, 60])
def test_a_damaged_index_is_noticed_on_opening(tmp_path, position):
    with MegatronWriter(tmp_path / "t", 400) as writer:
        for length in (3, 4, 5):
            writer.append(np.arange(length))
    index = bytearray((tmp_path / "t.idx").read_bytes())
    index[position] ^= 1
    (tmp_path / "t.idx").write_bytes(index)
    with pytest.raises(UserError, match=r"t\.(idx|bin)"):
        MegatronReader(tmp_path / "t")


def test_every_document_is_stored_whole_between_its_boundaries(store_folder, corpus):
    store = TokenStore.open(store_folder, verify=True)
    assert store.source_names == store.training_sources == ["even", "odd"]
    expected = {document.document_id: document for document in read_documents(corpus)}
    for name in store.source_names:
        source = store.source(name)
        for number, row in enumerate(source.documents.to_pylist()):
            document = expected.pop(row["document_id"])
            tokens = source.document(number)
            assert (tokens[0], tokens[-1], len(tokens)) == (1, 2, row["tokens"])
            assert not np.isin(tokens[1:-1], [1, 2]).any()
            assert store.tokenizer.decode(tokens[1:-1]) == document.text
            assert (row["source"], row["language"]) == (document.source, document.language) and row["source"] == name
            assert (row["characters"], row["utf8_bytes"]) == (len(document.text), len(document.text.encode()))
            assert source.document_keys[number] == int(document.document_id[:8], 16)
            assert source.document_of_token(int(source.document_starts[number + 1]) - 1) == number
    assert not expected
    assert store.num_documents == len(TEXTS)
    assert store.num_tokens == sum(store.source(name).num_tokens for name in store.source_names)


def test_stored_order_is_a_keyed_permutation_of_identities(store_folder, corpus, tokenizer_folder, tmp_path):
    """The order is what a keyed hash says, so neither reading order nor the number of files matters."""
    (tmp_path / "shuffled").mkdir()
    lines = (corpus / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "shuffled/1.jsonl").write_text("".join(lines[40:]))
    (tmp_path / "shuffled/2.jsonl").write_text("".join(reversed(lines[:40])))
    again = {"tokenizer": str(tokenizer_folder), "held_out_fraction": 0}
    tokenize(str(tmp_path / "shuffled"), tmp_path / "same", seed=3, **again)
    tokenize(str(corpus), tmp_path / "other", seed=4, **again)
    key = b"apertus_jax store 3"
    for name in ("even", "odd"):
        files = [
            folder / "sources" / name / "tokens.bin" for folder in (store_folder, tmp_path / "same", tmp_path / "other")
        ]
        assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
        identities = TokenStore.open(store_folder).source(name).documents["document_id"].to_pylist()
        hashes = [hashlib.blake2b(bytes.fromhex(i), digest_size=16, key=key).digest()[8:][::-1] for i in identities]
        assert hashes == sorted(hashes)


def test_a_flipped_byte_anywhere_is_named(store_folder):
    for path in sorted(path for path in store_folder.rglob("*") if path.is_file() and path.name != "COMMITTED.json"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match=path.name):
            TokenStore.open(store_folder, verify=True)
        path.write_bytes(content[:-1])
        with pytest.raises(UserError, match=path.name):
            TokenStore.open(store_folder)
        path.unlink()
        with pytest.raises(UserError, match=path.name):
            TokenStore.open(store_folder)
        path.write_bytes(content)
    TokenStore.open(store_folder, verify=True)


def test_a_store_rebuilt_in_place_has_another_digest(store_folder, corpus, tokenizer_folder):
    import shutil

    settings = {"tokenizer": str(tokenizer_folder), "held_out_fraction": 0}
    before = TokenStore.open(store_folder).digest
    shutil.rmtree(store_folder)
    tokenize(str(corpus), store_folder, seed=3, **settings)
    assert TokenStore.open(store_folder).digest == before
    shutil.rmtree(store_folder)
    tokenize(str(corpus), store_folder, seed=4, **settings)
    assert TokenStore.open(store_folder).digest != before


def test_another_tokenizer_and_an_unknown_source_are_one_line(store_folder):
    store = TokenStore.open(store_folder)
    store.check_tokenizer(store.tokenizer)
    for bad, reason in (
        (lambda: store.check_tokenizer(train_bpe(["other"], 400)), "was made by tokenizer"),
        (lambda: store.source("french"), "has no source 'french'; it has even, odd"),
        (lambda: TokenStore.open(store_folder / "nowhere"), "does not exist"),
        (lambda: TokenStore.open(store_folder / "tokenizer"), "not a complete token_store"),
    ):
        with pytest.raises(UserError, match=reason) as raised:
            bad()
        assert "\n" not in str(raised.value)

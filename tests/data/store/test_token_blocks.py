"""A sample of a token store is enough to be believed only as far as it goes, and what it goes over is checked."""

import hashlib
import json
import logging
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apertus_jax.data import TokenStore, tokenize
from apertus_jax.data.store import token_blocks
from apertus_jax.data.store.token_blocks import BlockDigests, chosen_blocks
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from tests.remade_digests import remake


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("blocks")
    rows = [{"text": f"stone river {number} " * 20} for number in range(60)]
    (root / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenize(str(root / "texts.jsonl"), root / "store", vocab_size=384, held_out_fraction=0.1, progress=False)
    return root / "store"


@pytest.fixture
def store(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "store")


def tokens_file(store):
    return store / "sources" / "texts" / "tokens.bin"


def change(path, place, content):
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 16))
def test_block_digests_are_those_of_the_cut_file(pieces, block_bytes):
    whole = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_blocks, "BLOCK_BYTES", block_bytes)
        digests = BlockDigests()
        for piece in pieces:
            digests.update(piece)
        found = digests.finish()
    cut = [whole[start : start + block_bytes] for start in range(0, len(whole), block_bytes)]
    assert found == b"".join(hashlib.blake2b(block, digest_size=16).digest() for block in cut)


def test_sample_of_blocks_is_even_over_all_sources():
    sizes = [("one", 30 * token_blocks.BLOCK_BYTES), ("two", 10 * token_blocks.BLOCK_BYTES - 5)]
    counts = np.zeros(40)
    for seed in range(400):
        chosen = chosen_blocks(sizes, 8, seed)
        assert len(set(chosen)) == 8 and chosen == chosen_blocks(sizes, 8, seed)
        for block in chosen:
            counts[block.number + (30 if block.source == "two" else 0)] += 1
    assert counts.sum() == 3200
    assert abs(counts - 80).max() < 5 * np.sqrt(80)
    assert len(chosen_blocks(sizes, 99, 0)) == 40


def test_sample_is_printed_and_its_size_is_a_setting(store, caplog):
    with caplog.at_level(logging.INFO):
        TokenStore.open(store)
        TokenStore.open(store, checked_blocks=1, seed=7)
    assert "checked 2 of 2 blocks of tokens (seed 0)" in caplog.text
    assert "checked 1 of 2 blocks of tokens (seed 7)" in caplog.text
    with pytest.raises(UserError, match="checked_blocks"):
        TokenStore.open(store, checked_blocks=-1)


def test_flipped_token_is_named_when_its_block_is_read(store):
    change(tokens_file(store), 101, b"\x00")
    change(tokens_file(store), 100, b"\x07")
    with pytest.raises(UserError, match=r"tokens.bin has changed since it was committed \(block 0"):
        TokenStore.open(store)
    TokenStore.open(store, checked_blocks=0)


def test_ids_beyond_the_vocabulary_are_named_with_good_digests(store):
    change(tokens_file(store), 2 * 50, np.array([390], "<u2").tobytes())
    digests = BlockDigests()
    digests.update(tokens_file(store).read_bytes())
    tokens_file(store).with_suffix(".blocks").write_bytes(digests.finish())
    remake(store)
    with pytest.raises(UserError, match="token id 390 at token 50, outside the vocabulary of 384"):
        TokenStore.open(store)


def test_store_without_block_digests_is_read_and_told(store, caplog):
    for name in ("texts", "held_out"):
        (store / "sources" / name / "tokens.blocks").unlink()
    marker = store / artifacts.COMMIT_MARKER
    manifest = json.loads(marker.read_text())
    manifest["files"] = {name: each for name, each in manifest["files"].items() if not name.endswith(".blocks")}
    marker.write_text(json.dumps(manifest))
    remake(store)
    TokenStore.open(store)
    assert "no digests of blocks" in caplog.text and "apertus verify" in caplog.text


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("sources/texts/tokens.bin", lambda path: path.write_bytes(path.read_bytes()[:-2]), "bytes, not"),
        ("sources/texts/tokens.bin", lambda path: path.write_bytes(path.read_bytes() + b"\0\0"), "bytes, not"),
        ("sources/texts/tokens.idx", lambda path: change(path, 40, b"\x01"), "tokens.idx has changed"),
        ("sources/texts/documents.parquet", lambda path: change(path, 40, b"\x01"), "documents.parquet has changed"),
        ("sources/texts/tokens.blocks", lambda path: change(path, 3, b"\x01"), "tokens.blocks has changed"),
        ("tokenizer/tokenizer.json", lambda path: change(path, 3, b"\x01"), "tokenizer.json has changed"),
        ("tokenizer/tokenizer.json", lambda path: path.unlink(), "is missing"),
        ("sources/texts/tokens.bin", lambda path: (path.unlink(), os.mkfifo(path)), "bytes, not|pipe"),
        ("sources/texts/tokens.bin", lambda path: (path.unlink(), path.symlink_to("nowhere")), "is missing"),
    ],
)
def test_damaged_files_of_a_store_are_refused_at_opening(store, file, damage, words):
    damage(store / file)
    with pytest.raises(UserError, match=words) as caught:
        TokenStore.open(store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({"vocab_size": 0}, "vocab_size = 0"),
        ({"vocab_size": "384"}, "vocab_size = '384'"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"dtype": "float8"}, "dtype = 'float8'"),
        ({"eod_id": 384}, "outside the vocabulary"),
        ({"bod_id": True}, "bod_id = True"),
        ({"sources": {}}, "sources is empty"),
        ({"sources": {"../x": {}}}, "no name of a folder"),
        ({"sources": {"texts": {"documents": 1}}}, "lacks 'tokens'"),
        ({"sources": []}, "sources = "),
        ({"tokenizer": 5}, "tokenizer = 5"),
    ],
)
def test_manifests_with_parts_missing_are_one_line(store, summary, words):
    remake(store, **summary)
    with pytest.raises(UserError, match=words):
        TokenStore.open(store)


def test_number_of_documents_that_lies_is_refused(store):
    summary = json.loads((store / artifacts.COMMIT_MARKER).read_text())["summary"]
    summary["sources"]["texts"]["documents"] += 1
    remake(store, **summary)
    with pytest.raises(UserError, match="not what its manifest says"):
        TokenStore.open(store)

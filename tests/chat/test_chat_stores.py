"""Conversations in token stores: loss weights beside the tokens, personal data replaced within parts, verification."""

import json
import os
import shutil

import numpy as np
import pyarrow.parquet
import pytest

from apertus_jax.chat import ChatFormat, encode_chats, parse_conversation, render
from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.licences import LicenceRule, LicenceScoring
from apertus_jax.corpus.prepare import Policy, prepare
from apertus_jax.data import BatchSchedule, Mixture, MixtureStage, TokenStore, stream_of_store, tokenize
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.data.sample_order.document_index import DocumentIndex
from apertus_jax.data.store.loss_weights import WEIGHTS_FILE
from apertus_jax.errors import UserError
from apertus_jax.pipeline.verify_command import verify
from tests.chat import generated
from tests.remade_digests import remake

CHATS = 12
EMPTY = ChatFormat(system="")


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def tokenizer(chat_tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    chat_tokenizers["apertus"].save(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Source → file: chats, and texts among them; texts alone."""
    folder = tmp_path_factory.mktemp("inputs")
    chats = [generated.conversation(seed) | {"id": f"chat {seed}"} for seed in range(CHATS)]
    texts = [{"id": f"text {number}", "text": f"die Kantone und das Volk {number} " * 9} for number in range(8)]
    return {
        "chats": str(write_jsonl(folder / "chats.jsonl", [*chats, texts[0]])),
        "texts": str(write_jsonl(folder / "texts.jsonl", texts[1:])),
    }


@pytest.fixture(scope="module")
def store(inputs, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "store"
    tokenize(inputs, folder, str(tokenizer), held_out_fraction=0, progress=False)
    return TokenStore.open(folder)


def rendered_chats(tokenizer):
    """The ids and weights of the same conversations, straight from the renderer, as sets of rows."""
    conversations = [parse_conversation(generated.conversation(seed)) for seed in range(CHATS)]
    return encode_chats([render(each, EMPTY) for each in conversations], tokenizer, EMPTY)


def test_store_keeps_the_weight_of_each_token(store):
    source = store.source("chats")
    expected = {chat.ids.tobytes(): chat.weights for chat in rendered_chats(store.tokenizer)}
    found = 0
    for number, (start, end) in enumerate(zip(source.document_starts, source.document_starts[1:], strict=False)):
        tokens, weights = source.document(number), source.weights[start:end]
        if tokens[:-1].tobytes() in expected:
            found += 1
            np.testing.assert_array_equal(weights, [*expected[tokens[:-1].tobytes()], 0])
        else:
            assert (weights == 1).all() and "Kantone" in store.tokenizer.decode(tokens)
    assert found == CHATS
    assert source.summary["weights"]["conversations"] == CHATS
    verify(store.folder)


def test_store_without_chats_is_what_it_was(store, inputs, tokenizer, tmp_path):
    tokenize({"texts": inputs["texts"]}, tmp_path / "alone", str(tokenizer), held_out_fraction=0, progress=False)
    alone = TokenStore.open(tmp_path / "alone")
    assert not [name for name in alone.manifest["files"] if WEIGHTS_FILE in name]
    assert "weights" not in json.dumps(alone.manifest["summary"]) and "ChatFormat" not in json.dumps(alone.manifest)
    assert store.source("texts").weights is None
    files = ("tokens.bin", "tokens.idx", "tokens.blocks", "documents.parquet")
    assert sorted(os.listdir(store.source("texts").folder)) == sorted(files)
    for name in files:
        assert (store.source("texts").folder / name).read_bytes() == (alone.source("texts").folder / name).read_bytes()


@pytest.mark.parametrize("change", ["negative", "short", "another"])
def test_verify_tells_wrong_weights(store, tmp_path, change):
    folder = tmp_path / "store"
    shutil.copytree(store.folder, folder)
    path = folder / "sources" / "chats" / WEIGHTS_FILE
    weights = np.fromfile(path, "<f4")
    weights[5] = -1 if change == "negative" else (weights[5] == 0)
    weights[: -1 if change == "short" else None].tofile(path)
    with pytest.raises(UserError, match="digest|bytes"):
        verify(folder)
    remake(folder)
    with pytest.raises(UserError, match="weight of token 5 is -1|has .* bytes where|are .* where the manifest says"):
        verify(folder)


@pytest.mark.parametrize("sample_index", ["one_document", "best_fit", "windows"])
def test_loader_gives_each_label_its_weight(store, sample_index):
    stages = [MixtureStage(rates={"chats": 0.5, "texts": 0.5})]
    stream = stream_of_store(store, Mixture(stages, sample_index=sample_index), BatchSchedule(8), 96, 3, 4)
    loader = BatchLoader(stream, store.vocab_size, store.eod_id, with_source_keys=True)
    seen = {True: 0, False: 0}
    for step in range(4):
        batch = loader.batch(step)
        located = stream.locate(batch["sample_ids"])
        for row, (entry, _, sample) in enumerate(zip(*(part.tolist() for part in located), strict=True)):
            source = stream.sources[entry]
            spans = source.index.spans(sample)
            assert sample_index != "one_document" or len(spans.document) == 1
            begins = source.tokens.document_starts[spans.document] + spans.start
            places = np.concatenate([np.arange(b, b + n) for b, n in zip(begins, spans.length, strict=True)])
            weights = np.ones(len(places)) if source.tokens.weights is None else source.tokens.weights[places]
            padded = np.zeros(stream.sequence_length)
            padded[: len(places) - 1] = weights[1:]
            np.testing.assert_array_equal(batch["loss_weights"][row], padded)
            assert source.source == "texts" or sample_index != "one_document" or padded.any()
            seen[source.source == "chats"] += 1
            assert len(set(batch["source_keys"][row].tolist())) == 1
    assert seen[True] and seen[False]
    assert len(np.unique(loader.batch(0)["source_keys"])) == 2
    assert "source_keys" not in BatchLoader(stream, store.vocab_size, store.eod_id).batch(0)


def test_prepare_replaces_personal_data_within_parts(tmp_path, tokenizer):
    call = {"name": "mail", "arguments": '{"to": "ann.muster@example.org"}'}
    good = {
        "messages": [
            {"role": "user", "content": "Write to ann.muster@example.org please, in two or three sentences."},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
            {"role": "tool", "content": "sent to ann.muster@example.org"},
            {"role": "assistant", "content": "I wrote to ann.muster@example.org."},
        ],
        "licence": "CC0-1.0",
        "id": "good",
    }
    bad = {"unknown": {"messages": [{"role": "bot", "content": "x"}]}, "silent": {"messages": good["messages"][:1]}}
    write_jsonl(tmp_path / "chats.jsonl", [good, *bad.values()])
    policy = Policy(consent_scoring=[LicenceScoring()], consent_rules=[LicenceRule()])
    settings = {"launcher": "inline", "as_of": "2026-11-24", "progress": False}
    prepare(str(tmp_path / "prepared"), policy, str(tmp_path / "chats.jsonl"), **settings)
    (document,) = read_documents(tmp_path / "prepared")
    (part,) = parts_of(tmp_path / "prepared")
    rows = pyarrow.parquet.read_table(str(part / "quarantine.parquet")).to_pylist()
    assert [(row["row"], row["reason"]) for row in rows] == [
        (2, "malformed_conversation"),
        (3, "malformed_conversation"),
    ]
    assert [row["detail"] for row in rows] == ["message 1 has an unknown role", "no assistant says anything"]
    assert "example.org" not in document.conversation + document.text
    conversation = json.loads(document.conversation)["messages"]
    assert conversation[0]["content"] == "Write to <email-pii> please, in two or three sentences."
    assert conversation[1]["tool_calls"][0]["function"]["arguments"] == '{"to": "<email-pii>"}'
    assert [message["content"] for message in conversation[2:]] == ["sent to <email-pii>", "I wrote to <email-pii>."]
    tokenize(str(tmp_path / "prepared"), tmp_path / "store", str(tokenizer), held_out_fraction=0, progress=False)
    opened = TokenStore.open(tmp_path / "store")
    (name,) = opened.training_sources
    text = opened.tokenizer.decode(opened.source(name).document(0))
    assert text.endswith("<|tools_suffix|>[sent to <email-pii>]I wrote to <email-pii>.<|assistant_end|></s>")
    verify(tmp_path / "prepared")


def test_chats_that_teach_nothing_are_one_line(tmp_path, tokenizer):
    silent = write_jsonl(tmp_path / "silent.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}])
    with pytest.raises(UserError, match="no assistant says anything in conversation .* remove it"):
        tokenize(str(silent), tmp_path / "store", str(tokenizer), progress=False)
    unknown = write_jsonl(tmp_path / "unknown.jsonl", [{"messages": [{"role": "bot", "content": "Hi"}]}])
    with pytest.raises(UserError, match=r"unknown.jsonl, row 1: message 1 has an unknown role \('bot'\)"):
        tokenize(str(unknown), tmp_path / "store", str(tokenizer), progress=False)
    chat = [generated.conversation(1, answered=True)]
    chat[0]["messages"] = [each for each in chat[0]["messages"] if each["role"] != "system"]
    dated = write_jsonl(tmp_path / "dated.jsonl", chat)
    with pytest.raises(UserError, match="the system block of template .* names the day"):
        tokenize(str(dated), tmp_path / "store", str(tokenizer), chat_format=ChatFormat(system=None), progress=False)
    with pytest.raises(UserError, match="no token <|tool_output_start|>"):
        newer = ChatFormat("apertus-1.5")
        tokenize(str(dated), tmp_path / "store", str(tokenizer), chat_format=newer, progress=False)
    assert not (tmp_path / "store").exists()


def test_rows_without_an_answer_are_left_out(store):
    source, length = store.source("chats"), 40
    index = DocumentIndex(source, length, "chats")
    sample = 0
    for number, (start, end) in enumerate(zip(source.document_starts, source.document_starts[1:], strict=False)):
        labels = source.weights[start + 1 : min(end, start + length + 1)]
        if labels.sum() > 0:
            assert [part.tolist() for part in index.spans(sample)] == [[number], [0], [len(labels) + 1]]
            assert index.samples_of_document(number).tolist() == [sample]
            sample += 1
        else:
            assert index.samples_of_document(number).tolist() == []
    assert 0 < sample == index.num_samples < source.num_documents

"""A removal request, all the way: out of the next build, found in the old one, caught in what a model writes.

Source: docs/reference/data.md §13.
"""

import json
import random

import gin
import jax
import pytest

from apertus_jax import cli
from apertus_jax.corpus.documents import read_documents
from apertus_jax.data import TokenStore, tokenize
from apertus_jax.model import ModelConfig, init_parameters
from apertus_jax.model.model_folder import save_model
from apertus_jax.release.output_filter import OutputFilter, new_signing_key
from apertus_jax.release.output_filter.words import ChunkReader, words_of
from apertus_jax.storage import artifacts
from tests.tiny_experiment import WORDS

DAY = "2026-11-24"
POLICY = """
prepare.policy = @Policy()
Policy.consent_scoring = [@RemovalScoring()]
Policy.consent_rules = [@RemovalRule()]
prepare.launcher = 'inline'
prepare.progress = False
"""
PERSONAL = (
    "Erika Mustermann moved to the small blue house beside the old harbour in the winter of nineteen eighty, "
    "and told nobody but her brother."
)


@pytest.fixture
def apertus():
    """Returns a function that runs a command line here and expects it to succeed."""

    def call(command, *arguments, **bindings):
        flags = [f"--gin.{name.replace('__', '.')}={value}" for name, value in bindings.items()]
        assert cli.main([command, *arguments, *flags]) == 0

    yield call
    gin.clear_config()


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Documents, an older store of them, a model with its tokenizer, a request, keys."""
    root = tmp_path_factory.mktemp("world")
    generator = random.Random(1)
    rows = [
        {"id": f"d{n}", "url": f"https://h{n}.example/", "text": " ".join(generator.choices(WORDS, k=30)).capitalize()}
        for n in range(30)
    ]
    rows[11] |= {"url": "https://people.example/erika", "text": PERSONAL}
    write_lines(root / "documents.jsonl", rows)
    request = {"id": "R-1", "received": "2026-11-01", "basis": "GDPR Art. 17", "decision": "granted"}
    request |= {"scope": "url_prefix", "value": "https://people.example/erika", "effective_date": "2026-11-20"}
    write_lines(root / "requests.jsonl", [request])
    (root / "policy.gin").write_text(POLICY)
    tokenize(
        {"web": str(root / "documents.jsonl")}, root / "store", vocab_size=400, held_out_fraction=0, progress=False
    )
    store = TokenStore.open(root / "store")
    config = ModelConfig(
        vocab_size=store.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        max_position_embeddings=256,
        init_std=0.2,
    )
    save_model(root / "model", config, init_parameters(config, jax.random.key(3)), store.tokenizer_folder)
    new_signing_key(root / "key.pem", root / "key.pub.pem")
    return root


def test_removed_document_is_out_found_in_old_store_and_filtered(world, apertus, capsys):
    apertus("remove", f"--input={world}/requests.jsonl", f"--output={world}/tombstones")
    tombstones = f"'{world}/tombstones'"
    apertus(
        "prepare",
        f"--gin_file={world}/policy.gin",
        f"--input={world}/documents.jsonl",
        f"--output={world}/prepared",
        RemovalScoring__tombstones=tombstones,
        RemovalScoring__today=f"'{DAY}'",
    )
    texts = [document.text for document in read_documents(world / "prepared")]
    assert len(texts) == 29 and not any("Erika" in text for text in texts)

    apertus(
        "tombstoned",
        f"--input={world}/store",
        f"--output={world}/tombstoned",
        tombstoned__tombstones=tombstones,
        tombstoned__today=f"'{DAY}'",
        tombstoned__sequence_length=16,
    )
    [row] = [json.loads(line) for line in (world / "tombstoned" / "documents.jsonl").read_text().splitlines()]
    store = TokenStore.open(world / "store")
    assert (row["text"], row["source"], row["request"]) == (PERSONAL, "web", "R-1")
    source = store.source("web")
    assert row["document_id"] == source.documents["document_id"][row["document"]].as_py()
    tokens = source.tokens(row["first_token"], row["tokens"])
    assert (tokens[0], tokens[-1]) == (store.bod_id, store.eod_id)
    assert store.tokenizer.decode(tokens[1:-1]) == PERSONAL
    held = [k for k in range((source.num_tokens - 1) // 16) if k * 16 + 16 >= row["first_token"]]
    held = [k for k in held if k * 16 < row["first_token"] + row["tokens"]]
    assert row["samples"] == [held[0], held[-1]]
    summary = artifacts.verify(world / "tombstoned", "tombstoned_documents")["summary"]
    assert (summary["documents"], summary["requests"], summary["documents_of_sources"]) == (1, 1, {"web": 1})

    apertus(
        "output-filter",
        f"--input={world}/tombstoned",
        f"--output={world}/filter",
        build_output_filter__signing_key=f"'{world}/key.pem'",
        build_output_filter__date=f"'{DAY}'",
    )
    # A model that recites: the text comes token by token, cut wherever its tokens are.
    applied = OutputFilter(f"{world}/filter", f"{world}/key.pub.pem", today=DAY)
    stream = applied.open("Who lives there?")
    recited = f" I know: {PERSONAL.upper()} So they say."
    pieces = [store.tokenizer.decode([token]) for token in store.tokenizer.encode(recited)]
    assert "".join(pieces) == recited and len(pieces) > 60
    shown = "".join([*map(stream.feed, pieces), stream.finish()])
    assert shown == " I know: [REDACTED]. So they say."
    assert stream.report()["redactions"] == 1

    prompts = [f"--prompt={PERSONAL[:30]}", "--prompt=sun moon"]
    plain = {"generate__max_new_tokens": 24, "generate__temperature": 0.0}
    filtered = plain | {
        "generate__output_filter": "@OutputFilter()",
        "OutputFilter__file": f"'{world}/filter'",
        "OutputFilter__public_key": f"'{world}/key.pub.pem'",
    }
    apertus("generate", f"--input={world}/model", f"--output={world}/plain", *prompts, **plain)
    apertus("generate", f"--input={world}/model", f"--output={world}/filtered", *prompts, **filtered)
    before, after = rows_of(world / "plain"), rows_of(world / "filtered")
    for one, other in zip(before, after, strict=True):
        report = other.pop("output_filter")
        assert one == other and report["version"] == 1 and report["matches"] == {"passages": 0, "strings": 0}


def rows_of(folder):
    return [json.loads(line) for line in (folder / "generations.jsonl").read_text().split("\n") if line]


def test_generated_text_that_is_listed_is_redacted_or_ends(world, apertus, capsys):
    prompts = ["--prompt=sun moon", "--prompt=river", "--prompt=door light"]
    plain = {"generate__max_new_tokens": 60, "generate__seed": 5}
    apertus("generate", f"--input={world}/model", f"--output={world}/free", *prompts, **plain)
    free = rows_of(world / "free")
    number = max(range(3), key=lambda row: len(words_of(free[row]["continuation"])))
    text = free[number]["continuation"]
    chunks = ChunkReader().feed(text)
    with_words = [place for place, chunk in enumerate(chunks) if chunk.words]
    first, last = with_words[2], with_words[-2]
    before, secret = ("".join(chunk.text for chunk in part) for part in (chunks[:first], chunks[first : last + 1]))
    assert len(words_of(secret)) >= 8
    write_lines(world / "secret.jsonl", [{"string": secret.swapcase()}])
    apertus(
        "output-filter",
        f"--input={world}/secret.jsonl",
        f"--output={world}/secret_filter",
        build_output_filter__signing_key=f"'{world}/key.pem'",
        build_output_filter__date=f"'{DAY}'",
    )
    for action in ("redact", "stop", "log"):
        capsys.readouterr()
        output = world / f"action_{action}"
        apertus(
            "generate",
            f"--input={world}/model",
            f"--output={output}",
            *prompts,
            **plain,
            generate__output_filter="@OutputFilter()",
            OutputFilter__file=f"'{world}/secret_filter'",
            OutputFilter__public_key=f"'{world}/key.pub.pem'",
            OutputFilter__action=f"'{action}'",
        )
        printed = capsys.readouterr().out
        rows = rows_of(output)
        report = rows[number]["output_filter"]
        assert report["matches"]["strings"] == 1 and report["version"] == 1 and report["action"] == action
        others = [row for place, row in enumerate(rows) if place != number]
        assert [row["continuation"] for row in others] == [
            row["continuation"] for place, row in enumerate(free) if place != number
        ]
        if action == "log":
            assert (rows[number]["continuation"], rows[number]["tokens"]) == (text, free[number]["tokens"])
            continue
        everything = "".join(path.read_text() for path in output.iterdir()) + printed
        assert secret not in everything and json.dumps(secret) not in everything and rows[number]["tokens"] is None
        if action == "redact":
            assert rows[number]["continuation"] == text.replace(secret, "[REDACTED]") and report["redactions"] == 1
        else:
            assert rows[number]["continuation"] == before and rows[number]["stopped"] and report["stopped"]
    # What was made with a filter is not taken for what is made without one.
    assert cli.main(["generate", f"--input={world}/model", f"--output={world}/action_stop", *prompts]) == 2


def test_old_store_with_nothing_to_remove_gives_an_empty_filter(world, apertus, tmp_path):
    request = {"id": "R-2", "received": "2026-11-01", "basis": "GDPR Art. 17", "decision": "granted"}
    request |= {"scope": "url_prefix", "value": "https://nobody.example/", "effective_date": "2026-11-20"}
    write_lines(tmp_path / "requests.jsonl", [request])
    apertus("remove", f"--input={tmp_path}/requests.jsonl", f"--output={tmp_path}/tombstones")
    apertus(
        "tombstoned",
        f"--input={world}/store",
        f"--output={tmp_path}/tombstoned",
        tombstoned__tombstones=f"'{tmp_path}/tombstones'",
        tombstoned__today=f"'{DAY}'",
    )
    apertus(
        "output-filter",
        f"--input={tmp_path}/tombstoned",
        f"--output={tmp_path}/filter",
        build_output_filter__signing_key=f"'{world}/key.pem'",
        build_output_filter__date=f"'{DAY}'",
    )
    applied = OutputFilter(f"{tmp_path}/filter", f"{world}/key.pub.pem", today=DAY)
    stream = applied.open("Who lives there?")
    assert stream.feed(PERSONAL) + stream.finish() == PERSONAL
    summary = artifacts.verify(tmp_path / "filter", "output_filter")["summary"]
    assert (summary["ngrams"], summary["strings"], summary["unprotected"]) == (0, 0, 0)

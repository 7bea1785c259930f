"""`tokenize` from end to end: the bundled corpus, finished work recognised, bad input leaving nothing behind."""

import json
import subprocess
import sys

import pytest

from apertus_jax.data import TokenStore, check_store, tokenize
from apertus_jax.errors import UserError

VOCAB_SIZE = 2048


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundled") / "store"
    tokenize("bundled", folder, vocab_size=VOCAB_SIZE)
    return folder


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_bundled_store_has_700_languages_and_a_clean_split(bundled):
    store = TokenStore.open(bundled, verify=True)
    assert store.training_sources == ["english", "languages"] and store.has_held_out
    assert store.summary["num_languages"] >= 700
    assert not any(language.startswith("eng_") for language in store.summary["sources"]["languages"]["languages"])
    assert (store.vocab_size, store.bod_id, store.eod_id) == (VOCAB_SIZE, 1, 2)
    held = store.source("held_out")
    assert len({language.partition("_")[2] for language in held.documents["language"].to_pylist()}) >= 90
    report = check_store(store)
    assert report.is_clean
    assert (report.training_documents, report.held_out_documents) == (store.num_documents, held.num_documents)


def test_finished_store_is_recognised_and_never_overwritten(bundled, monkeypatch):
    digest = TokenStore.open(bundled).digest
    with monkeypatch.context() as patched:
        patched.setattr("apertus_jax.data.store.tokenize_command._build_store", None)
        assert tokenize("bundled", bundled, vocab_size=VOCAB_SIZE)["num_languages"] >= 700
    with pytest.raises(UserError, match="made with other seed, tokenizer"):
        tokenize("bundled", bundled, vocab_size=512, seed=1)
    assert TokenStore.open(bundled).digest == digest


def test_own_jsonl_becomes_a_store_with_a_trained_tokenizer(tmp_path):
    first = write_rows(tmp_path / "first.jsonl", [{"text": f"first text number {n} " * 4} for n in range(30)])
    second = write_rows(tmp_path / "second.jsonl", [{"text": f"zweiter Text Nummer {n} " * 4} for n in range(10)])
    summary = tokenize({"a": first, "b": second}, tmp_path / "store", vocab_size=400, held_out_fraction=0)
    assert {name: source["documents"] for name, source in summary["sources"].items()} == {"a": 30, "b": 10}
    summary = tokenize([first, second], tmp_path / "stems", vocab_size=400, held_out_fraction=0)
    assert sorted(summary["sources"]) == ["first", "second"]
    assert not list((tmp_path / "store").rglob("*spill*"))


def test_same_documents_give_the_same_store_bytes(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"text": f"text {n} " * 20} for n in range(50)])
    for name in ("one", "two"):
        tokenize(path, tmp_path / name, vocab_size=400)
    manifests = [(tmp_path / name / "COMMITTED.json").read_bytes() for name in ("one", "two")]
    assert manifests[0] == manifests[1]


def test_changed_input_is_not_taken_for_finished_work(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "one " * 20}, {"text": "two " * 20}])
    tokenize(path, tmp_path / "store", vocab_size=400)
    write_rows(tmp_path / "a.jsonl", [{"text": "one " * 20}, {"text": "three " * 20}])
    with pytest.raises(UserError, match="made with other documents"):
        tokenize(path, tmp_path / "store", vocab_size=400)


@pytest.mark.parametrize(
    "rows, settings, reason",
    [
        ([{"text": "fine"}, {"txt": "no"}], {}, r"bad\.jsonl, row 2"),
        ([], {}, "holds no documents"),
        ([{"text": "a", "id": "x"}, {"text": "b", "id": "x"}], {}, r"occurs twice in the input \(numbers 1 and 2"),
        ([{"text": "a", "source": "held_out"}], {}, "kept for held-out"),
        ([{"text": "a"}], {"vocab_size": 100}, "too small"),
        ([{"text": "a"}], {"tokenizer": "no/such/folder"}, "does not exist"),
        ([{"text": "a"}], {"held_out_fraction": 2}, "held-out fraction"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, rows, settings, reason):
    path = write_rows(tmp_path / "bad.jsonl", rows)
    with pytest.raises(UserError, match=reason) as raised:
        tokenize(path, tmp_path / "store", **{"vocab_size": 400} | settings)
    assert "\n" not in str(raised.value)
    assert [child.name for child in tmp_path.iterdir()] == ["bad.jsonl"]


def test_missing_input_bucket_output_or_other_folder_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a"}])
    for documents, output, reason in (
        (str(tmp_path / "none.jsonl"), tmp_path / "store", "does not exist"),
        ([], tmp_path / "store", "no documents were given"),
        (path, "gs://bucket/store", "not on a file system"),
        (path, tmp_path / "mine", "not empty"),
    ):
        with pytest.raises(UserError, match=reason):
            tokenize(documents, output, vocab_size=400)
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_tokenizing_imports_neither_jax_nor_tensorflow_nor_torch(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "one " * 20}, {"text": "two " * 20}])
    code = (
        "import sys; from apertus_jax.data import tokenize; tokenize(sys.argv[1], sys.argv[2], vocab_size=400);"
        "print([m for m in ('jax', 'tensorflow', 'seqio', 'torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, path, str(tmp_path / "store")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"

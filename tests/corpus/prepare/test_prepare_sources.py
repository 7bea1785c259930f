"""The source that a document names itself: kept by `prepare`, a source of the store, without a say in the policy."""

import collections
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apertus_jax.corpus.documents import Document, read_documents, source_folder_name, write_documents
from apertus_jax.corpus.licences import LicenceRule, LicenceScoring
from apertus_jax.corpus.prepare import Policy, prepare
from apertus_jax.corpus.sources import Source
from apertus_jax.data import TokenStore
from apertus_jax.data.store.tokenize_command import tokenize
from apertus_jax.errors import UserError

AS_OF = "2026-11-01"
ROWS = [("news", "a"), ("books", "b"), (None, "c"), ("news", "d"), ("", "e"), ("Stack Exchange/physics", "f")]
EXPECTED = ["news", "books", "web", "news", "web", "Stack_Exchange_physics"]


def write_rows(folder, rows, name="web.jsonl"):
    path = folder / name
    given_rows = [
        {"text": f"text {text} " * 9, "id": text} | ({} if own is None else {"source": own}) for own, text in rows
    ]
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(given_rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in given_rows))
    return path


def run(output, path, policy=None, **options):
    sources = [Source("web", str(path), **options)]
    prepare(str(output), policy or Policy(), sources=sources, launcher="inline", as_of=AS_OF, progress=False)
    return output


def ledger(prepared):
    files = sorted(prepared.glob("parts/*/ledger.parquet"))
    return [row for file in files for row in pyarrow.parquet.read_table(str(file)).to_pylist()]


@pytest.mark.parametrize("name", ["web.jsonl", "web.parquet"])
def test_documents_keep_the_source_that_they_name(tmp_path, name):
    prepared = run(tmp_path / "prepared", write_rows(tmp_path, ROWS, name))
    assert [document.source for document in read_documents(prepared)] == EXPECTED
    rows = ledger(prepared)
    assert {row["source"] for row in rows} == {"web"}  # the collection, by which policies go
    assert [row["own_source"] or "web" for row in rows] == EXPECTED
    again = run(tmp_path / "again", prepared)
    assert [document.source for document in read_documents(again)] == EXPECTED


def test_mixtures_by_source_work_after_prepare(tmp_path):
    path = write_rows(tmp_path, [(own, f"{number} of {own}") for number in range(40) for own in ("news", "books")])
    for name, given_documents in (("raw", path), ("prepared", run(tmp_path / "corpus", path))):
        store = tmp_path / name
        tokenize(str(given_documents), str(store), tokenizer="bpe", vocab_size=400, held_out_fraction=0.0)
        assert TokenStore.open(str(store)).training_sources == ["books", "news"]


def test_column_switched_off_or_of_other_meaning_names_nothing(tmp_path):
    path = write_rows(tmp_path, ROWS)
    for number, options in enumerate(({"source_field": ""}, {"id_field": "source"})):
        prepared = run(tmp_path / f"prepared{number}", path, **options)
        assert {document.source for document in read_documents(prepared)} == {"web"}
    with pytest.raises(UserError, match="source_field"):
        Source("web", str(path), source_field=None)


def test_document_leaves_no_policy_of_its_collection_by_a_name(tmp_path):
    policy = Policy(consent_scoring=(LicenceScoring(),), consent_rules=(LicenceRule(required_sources=("web",)),))
    prepared = run(tmp_path / "prepared", write_rows(tmp_path, ROWS), policy)
    assert {row["reason"] for row in ledger(prepared)} == {"licence_unknown"}


HOSTILE = [
    "../../etc",
    "..",
    ".",
    "/",
    "held_out",
    "_held_out",
    "a\0b",
    "\x1b[31mred",
    "x" * 300,
    "日本",
    "\u202eabc",
    "-rf",
    "C:\\x",
]


def test_hostile_names_are_folder_names_or_the_collection(tmp_path):
    rows = [(name, str(number)) for number, name in enumerate(HOSTILE)]
    prepared = run(tmp_path / "prepared", write_rows(tmp_path, rows))
    names = collections.Counter(document.source for document in read_documents(prepared))
    assert names["web"] == 7 and all(source_folder_name(name) == name for name in names)
    tokenize(str(prepared), str(tmp_path / "store"), tokenizer="bpe", vocab_size=400, held_out_fraction=0.0)
    folders = {path.name for path in (tmp_path / "store" / "sources").iterdir()}
    assert folders == set(names)


@given(st.text(max_size=300))
def test_names_of_folders_are_safe_and_stable(name):
    folder = source_folder_name(name)
    assert source_folder_name(folder) == folder and folder not in (".", "..") and not set(folder) & set("/\\\0 \n")
    assert folder.isascii() and len(folder) <= 200


def test_sources_of_the_wrong_kind_are_quarantined(tmp_path):
    path = tmp_path / "web.jsonl"
    rows = [{"text": "good text", "source": 7}, {"text": "bad text", "source": {"a": 1}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared = run(tmp_path / "prepared", path)
    assert [document.source for document in read_documents(prepared)] == ["7"]
    (quarantined,) = [
        row
        for file in prepared.glob("parts/*/quarantine.parquet")
        for row in pyarrow.parquet.read_table(str(file)).to_pylist()
    ]
    assert quarantined["reason"] == "wrong_type" and "source" in quarantined["detail"]


def test_prepared_documents_of_other_tools_keep_their_source(tmp_path):
    documents = [Document(f"{number:032x}", f"text {number}", source) for number, source in enumerate(["a", "b"])]
    write_documents(tmp_path / "web.parquet", documents)
    prepared = run(tmp_path / "prepared", tmp_path / "web.parquet")
    assert [document.source for document in read_documents(prepared)] == ["a", "b"]

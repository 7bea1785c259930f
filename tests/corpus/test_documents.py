"""Document files: what is read comes back, identities are stable, bad rows are named."""

import gzip
import json
import subprocess
import sys

import hypothesis.strategies as st
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings

from apertus_jax.corpus import Document, document_id, input_files, read_documents, write_documents
from apertus_jax.corpus.documents import digest_input
from apertus_jax.errors import UserError


def write_jsonl(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=5))
def test_parquet_gives_documents_back_and_equal_bytes(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("documents")
    documents = [
        Document(document_id("s", "1", str(number)), text, source, "gsw_Latn", url, "CC0-1.0")
        for number, (text, source, url) in enumerate(rows)
    ]
    assert write_documents(folder / "one.parquet", documents) == len(documents)
    write_documents(folder / "two.parquet", iter(documents))
    assert list(read_documents(folder / "one.parquet")) == documents
    assert (folder / "one.parquet").read_bytes() == (folder / "two.parquet").read_bytes()


def test_jsonl_needs_only_text(tmp_path):
    path = write_jsonl(tmp_path / "mine.jsonl", [{"text": "Hello"}, "", {"text": "Grüezi", "lang": "gsw_Latn"}])
    first, second = read_documents(path)
    assert first == Document(document_id("mine", "", "mine.jsonl:1"), "Hello", "mine")
    assert (second.language, second.document_id) == ("gsw_Latn", document_id("mine", "", "mine.jsonl:3"))


def test_given_identities_are_kept(tmp_path):
    digest = "0123456789abcdef" * 2
    rows = [
        {"text": "a", "document_id": digest},
        {"text": "b", "id": "record 7", "source": "web"},
        {"text": "c", "id": 7},
    ]
    first, second, third = read_documents(write_jsonl(tmp_path / "a.jsonl", rows))
    assert first.document_id == digest
    assert second.document_id == document_id("web", "", "record 7")
    assert third.document_id == document_id("a", "", "7")


def test_identity_does_not_depend_on_where_the_corpus_lies(tmp_path):
    for place in ("here/corpus", "there/deep/corpus"):
        (tmp_path / place / "part").mkdir(parents=True)
        write_jsonl(tmp_path / place / "part/a.jsonl", [{"text": "one"}, {"text": "two"}])
    assert list(read_documents(tmp_path / "here/corpus")) == list(read_documents(tmp_path / "there/deep/corpus"))
    assert digest_input(tmp_path / "here/corpus") == digest_input(tmp_path / "there/deep/corpus")


def test_folders_are_read_whole_sorted_and_of_all_formats(tmp_path):
    write_jsonl(tmp_path / "b.jsonl", [{"text": "second"}])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "first"}\n'))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["third"], "more": [1]}), tmp_path / "c.parquet")
    (tmp_path / "notes.txt").write_text("not documents")
    assert [document.text for document in read_documents(tmp_path)] == ["first", "second", "third"]


def test_changed_content_changes_the_digest(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    before = digest_input(path)
    write_jsonl(path, [{"text": "two"}])
    assert digest_input(path) != before


@pytest.mark.parametrize(
    "row, reason",
    [
        ('{"text": "a"', "not valid JSON"),
        ('["text"]', "JSON object"),
        ('{"txt": "a"}', "text must be a string, found NoneType"),
        ('{"text": 3}', "text must be a string, found int"),
        ('{"text": " "}', "text is empty"),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"text": "a", "url": 3}', "url must be a string"),
        ('{"text": "a", "document_id": "7"}', "32 hexadecimal digits"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_number(tmp_path, row, reason):
    path = write_jsonl(tmp_path / "bad.jsonl", [{"text": "fine"}, row])
    with pytest.raises(UserError, match=rf"bad\.jsonl, row 2: .*{reason}") as raised:
        list(read_documents(path))
    assert "\n" not in str(raised.value)


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "\xe9t\xe9"}\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 5000)[:-20])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    for name, reason in (("latin.jsonl", "row 2: not UTF-8"), ("cut.jsonl.gz", "gzip"), ("cut.parquet", "Parquet")):
        with pytest.raises(UserError, match=f"{name}.*{reason}"):
            list(read_documents(tmp_path / name))


def test_missing_and_empty_inputs_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("a")
    for name, reason in (("nowhere", "does not exist"), ("empty", "holds no"), ("text.txt", "convert")):
        with pytest.raises(UserError, match=reason) as raised:
            input_files(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_importing_the_corpus_and_data_rooms_is_cheap():
    heavy = ("jax", "tensorflow", "seqio", "torch", "pyarrow", "tokenizers", "grain")
    code = f"import sys, apertus_jax.corpus, apertus_jax.data; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""Folders with links, pipes and hidden files; rows and names that are no text: each is a document once, or one line."""

import gzip
import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from apertus_jax.corpus.classifiers.labelled_texts import read_labelled_texts
from apertus_jax.corpus.contamination.benchmark_index import read_benchmarks
from apertus_jax.corpus.documents import digest_input, input_files, read_documents
from apertus_jax.corpus.robots_snapshot import build_robots_snapshot
from apertus_jax.corpus.sources import QuarantinedRow, Source, plan_units, read_unit
from apertus_jax.errors import UserError
from tests.corpus.robots_snapshot.test_robots_snapshot_table import CLOSED, warc_record

ROW = {"text": "some text", "label": 1, "benchmark": "b", "item": "1"}
LINE = json.dumps(ROW).encode() + b"\n"


def prepared(path):
    source = Source("web", str(path))
    return [each for unit in plan_units([source]) for each in read_unit(source, unit, today="2026-01-01")]


def archived(path):
    """Reads WARC files as a robots snapshot does; returns one entry for each answer."""
    output = path.parent / f"{path.name}-snapshot"
    return [None] * build_robots_snapshot(path, output, "2025-01-31", layout="warc", progress=False)["responses"]


READERS = {
    "tokenize": (lambda path: list(read_documents(path)), ".jsonl", LINE),
    "prepare": (prepared, ".jsonl", LINE),
    "classifiers": (lambda path: list(read_labelled_texts(path)), ".jsonl", LINE),
    "benchmarks": (lambda path: read_benchmarks([path]), ".jsonl", LINE),
    "robots-snapshot": (archived, ".warc", warc_record("https://a.example/robots.txt", CLOSED)),
}


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    read, suffix, content = READERS[request.param]
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / f"a{suffix}").write_bytes(content)
    return read, folder, suffix, content


def test_each_file_is_read_once_and_hidden_ones_are_not(reader):
    read, folder, suffix, content = reader
    (folder / "again").symlink_to(".")
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to("..")
    (folder / f"b{suffix}").symlink_to(f"a{suffix}")
    for hidden in (".ipynb_checkpoints", "sub/.git"):
        (folder / hidden).mkdir()
        (folder / hidden / f"a{suffix}").write_bytes(b"never read\n")
    (folder / f".hidden{suffix}").write_bytes(b"never read\n")
    (folder / f"._a{suffix}").symlink_to("nowhere")
    assert len(read(folder)) == 1


@pytest.mark.parametrize("kind", ["link to nothing", "link loop", "pipe", "pipe below"])
def test_what_is_no_file_is_one_line(reader, kind):
    read, folder, suffix, _ = reader
    place = folder / f"b{suffix}"
    if kind == "link to nothing":
        place.symlink_to("nowhere")
    elif kind == "link loop":
        place.symlink_to(f"c{suffix}")
        (folder / f"c{suffix}").symlink_to(place.name)
    else:
        place = folder / "sub" / place.name if kind == "pipe below" else place
        place.parent.mkdir(exist_ok=True)
        os.mkfifo(place)
    with pytest.raises(UserError, match=place.name) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=place.name) as caught:
        read(place)
    assert "\n" not in str(caught.value)
    # A file of another kind beside the documents is nobody's business.
    place.unlink()
    os.mkfifo(folder / "pipe.other")
    if suffix == ".jsonl" and kind != "link loop":
        assert len(read(folder)) == 1


BAD_LINES = {
    "deep": b'{"text": "x", "id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits": b'{"text": "x", "id": ' + b"9" * 5_000 + b"}",
    "surrogate in the id": b'{"text": "x", "id": "\\ud800"}',
    "surrogate in the url": b'{"text": "x", "url": "http://a.example/\\udfff"}',
    "surrogate in the language": b'{"text": "x", "language": "\\ud83d"}',
    "surrogate in the text": b'{"text": "x \\ud83d"}',
    "latin-1": '{"text": "é"}'.encode("latin-1"),
    "cut": b'{"text": "x',
}


@pytest.mark.parametrize("name", BAD_LINES)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_row_that_is_no_text_is_one_line_in_tokenize(tmp_path, name, compress):
    path = tmp_path / f"a.jsonl{'.gz' if compress is gzip.compress else ''}"
    path.write_bytes(compress(LINE + BAD_LINES[name] + b"\n"))
    with pytest.raises(UserError, match=rf"{path.name}, row 2: ") as caught:
        list(read_documents(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_row_that_is_no_text_is_set_aside_in_prepare(tmp_path, name):
    (tmp_path / "a.jsonl").write_bytes(LINE + BAD_LINES[name] + b"\n" + LINE.replace(b"some", b"more"))
    rows = prepared(tmp_path)
    assert [isinstance(each, QuarantinedRow) for each in rows] == [False, True, False]
    assert rows[1].row == 2 and "\n" not in rows[1].detail


def test_fields_that_nobody_reads_may_hold_anything(tmp_path):
    line = b'{"text": "x", "other": "\\ud800", "score": NaN, "id": "1"}\n'
    (tmp_path / "a.jsonl").write_bytes(line)
    assert [each.text for each in read_documents(tmp_path)] == [each.text for each in prepared(tmp_path)] == ["x"]


@pytest.mark.parametrize("column", ["text", "url", "id"])
def test_parquet_that_is_not_utf_8_names_the_row(tmp_path, column):
    raw = pyarrow.array([b"one", b"caf\xe9", b"three"], pyarrow.binary())
    strings = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    columns = {"text": pyarrow.array(["x", "y", "z"]), "id": pyarrow.array(["1", "2", "3"])} | {column: strings}
    if column == "url":
        raw = pyarrow.array([b"http://a.example/", b"http://a.example/\xe9", b"http://b.example/"], pyarrow.binary())
        columns["url"] = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet, row 2: not UTF-8 at byte \d+; mend the row"):
        list(read_documents(tmp_path))
    rows = prepared(tmp_path)
    assert [str(each.reason) for each in rows if isinstance(each, QuarantinedRow)] == ["invalid_encoding"]
    assert len(rows) == 3


def test_a_date_that_python_lacks_is_set_aside_alone(tmp_path):
    dates = pyarrow.array([0, 1 << 50, 0], pyarrow.timestamp("s"))
    columns = {"text": ["x", "y", "z"], "id": ["1", "2", "3"], "crawl_date": dates}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    rows = prepared(tmp_path)
    assert [str(each.reason) if isinstance(each, QuarantinedRow) else each.text for each in rows] == [
        *("x", "wrong_type", "z"),
    ]


@pytest.mark.parametrize("read", [prepared, input_files, digest_input, archived])
def test_a_file_whose_name_is_no_text_is_one_line(tmp_path, read):
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(LINE)
    with open(os.fsencode(folder) + b"/caf\xe9.jsonl", "wb") as file:
        file.write(LINE)
    with pytest.raises(UserError, match="is not UTF-8") as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()

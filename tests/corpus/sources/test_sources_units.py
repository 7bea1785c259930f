"""Sources and units: cut anywhere, every row is read once; what changed after planning is noticed."""

import dataclasses
import gzip
import json
import os

import hypothesis.strategies as st
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings

from apertus_jax.corpus.bundled import bundled_documents
from apertus_jax.corpus.documents import document_id
from apertus_jax.corpus.sources import Limits, QuarantinedRow, Source, Unit, plan_units, read_unit
from apertus_jax.errors import UserError

TODAY = "2026-01-01"


def read(source, target_bytes=1 << 26):
    return [each for unit in plan_units([source], target_bytes) for each in read_unit(source, unit, today=TODAY)]


def lines_of(rows):
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def write_parquet(path, rows, row_group_size=3):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=row_group_size)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(words, st.just("")), min_size=1, max_size=12), st.integers(1, 400), st.booleans())
def test_units_of_any_size_give_the_whole_file(tmp_path_factory, texts, target_bytes, ends_with_line_feed):
    # An empty string stands for a blank line, which counts as a row and is no document.
    lines = [json.dumps({"text": text}, ensure_ascii=False) if text else "" for text in [*texts, "last"]]
    content = "\n".join(lines).encode() + b"\n" * ends_with_line_feed
    path = tmp_path_factory.mktemp("units") / "a.jsonl"
    path.write_bytes(content)
    source = Source("web", str(path))
    units = plan_units([source], target_bytes)
    parts = [part for unit in units for part in unit.parts]
    assert b"".join(content[part.start : part.stop] for part in parts) == content
    assert all(content[part.start - 1 : part.start] in (b"", b"\n") for part in parts)
    # No cut is later than the first line end at or after a multiple of the size.
    assert all(
        b"\n" not in content[(part.start // target_bytes + 1) * target_bytes - 1 : part.stop - 1] for part in parts
    )
    documents = [each for unit in units for each in read_unit(source, unit, today=TODAY)]
    assert [(each.row, each.text) for each in documents] == [
        (number, json.loads(line)["text"]) for number, line in enumerate(lines, 1) if line
    ]
    assert [each.document_id for each in documents] == [
        document_id("web", "", f"a.jsonl:{number}") for number, line in enumerate(lines, 1) if line
    ]


@settings(max_examples=20, deadline=None)
@given(st.lists(words, min_size=1, max_size=20), st.integers(1, 3000), st.integers(1, 5))
def test_row_groups_of_any_size_give_the_whole_table(tmp_path_factory, texts, target_bytes, row_group_size):
    path = tmp_path_factory.mktemp("units") / "a.parquet"
    write_parquet(path, [{"text": text} for text in texts], row_group_size)
    documents = read(Source("web", str(path)), target_bytes)
    assert [(each.row, each.text) for each in documents] == list(enumerate(texts, 1))


def test_lines_longer_than_what_is_read_at_once_are_cut_well(tmp_path):
    texts = ["a" * 3_000_000, "b", "c" * 2_500_000, "d"]
    (tmp_path / "a.jsonl").write_bytes(lines_of({"text": text} for text in texts))
    for target_bytes in (1, 1 << 20, 3_000_014, 1 << 26):
        assert [each.text for each in read(Source("web", str(tmp_path)), target_bytes)] == texts


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json.gz", "jsonl.zst", "parquet"])
def test_every_field_arrives_whatever_the_format(tmp_path, kind):
    rows = [
        {
            "text": "Grüezi\nmitenand",
            "id": f"r{number}",
            "url": f"https://a.example/{number}",
            "date": "2024-05-06T07:08",
        }
        | {"license": "CC0-1.0", "lang": "gsw_Latn", "headers": {"X-Robots-Tag": "noai", "Set-Cookie": "secret"}}
        | {"meta_tags": {"Robots": "noindex", "author": "Ann"}, "licence_links": ["https://l.example/"]}
        for number in range(7)
    ]
    path = tmp_path / f"part.{kind}"
    if kind == "parquet":
        write_parquet(path, rows)
    else:
        compress = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}.get(kind.split(".")[-1], bytes)
        # Two members, as parallel compressors write them, cut inside a row.
        content = lines_of(rows)
        path.write_bytes(compress(content[:200]) + compress(content[200:]))
    documents = read(Source("web", str(tmp_path), version="7"), target_bytes=1)
    assert [each.document_id for each in documents] == [document_id("web", "7", f"r{number}") for number in range(7)]
    third = documents[2]
    assert (third.text, third.url, third.crawl_date) == ("Grüezi\nmitenand", "https://a.example/2", "2024-05-06")
    assert (third.licence, third.language, third.file, third.row) == ("CC0-1.0", "gsw_Latn", f"part.{kind}", 3)
    # Only what says something about consent is carried along.
    assert (third.headers, third.meta_tags) == ({"x-robots-tag": "noai"}, {"robots": "noindex"})
    assert third.licence_links == ("https://l.example/",)


def test_headers_may_repeat(tmp_path):
    row = {"text": "a", "headers": [["X-Robots-Tag", "noai"], ["x-robots-tag", "gptbot: none"], ["Link", None]]}
    (tmp_path / "a.jsonl").write_bytes(lines_of([row, {"text": "b", "headers": {"TDM-Reservation": ["1", 0]}}]))
    first, second = read(Source("web", str(tmp_path)))
    assert first.headers == {"x-robots-tag": "noai, gptbot: none"}
    assert second.headers == {"tdm-reservation": "1, 0"}


def test_columns_can_have_other_names_and_sources_have_defaults(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"body": "one", "key": 5, "link": "http://a.example"}]))
    source = Source("web", str(tmp_path), text_field="body", id_field="key", url_field="link")
    source = dataclasses.replace(source, licence="MIT", language="deu_Latn", crawl_date="2020-02-02")
    (document,) = read(source)
    assert (document.text, document.url, document.document_id) == (
        "one",
        "http://a.example",
        document_id("web", "", "5"),
    )
    assert (document.licence, document.language, document.crawl_date) == ("MIT", "deu_Latn", "2020-02-02")


def test_text_files_are_documents_and_small_ones_share_a_unit(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst")
    (tmp_path / "deep/b.txt").write_text("zweiter – Text")
    source = Source("notes", str(tmp_path))
    (unit,) = plan_units([source])
    documents = list(read_unit(source, unit, today=TODAY))
    assert [(each.file, each.text) for each in documents] == [("a.txt", "first"), ("deep/b.txt", "zweiter – Text")]
    assert documents[1].document_id == document_id("notes", "", "deep/b.txt")
    assert len(plan_units([source], target_bytes=10)) == 2


def test_beside_other_documents_text_files_are_notes(tmp_path):
    (tmp_path / "README.txt").write_text("how this was made")
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"text": "one"}]))
    assert [each.text for each in read(Source("web", str(tmp_path)))] == ["one"]
    assert [each.text for each in read(Source("web", str(tmp_path), format="text"))] == ["how this was made"]


def test_the_bundled_corpus_is_whole_at_any_cut():
    expected = [(each.document_id, each.text, each.source, each.language) for each in bundled_documents()]
    source = Source("bundled", "bundled")
    units = plan_units([source], target_bytes=5 << 20)
    assert len(units) > 1
    found = [each for unit in units for each in read_unit(source, unit, today=TODAY)]
    assert [(each.document_id, each.text, each.source, each.language) for each in found] == expected
    assert [each.row for each in found] == list(range(1, len(expected) + 1))


def test_the_plan_depends_on_content_alone_and_survives_json(tmp_path):
    plans = []
    for place in ("here", "there/deep"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "b.jsonl").write_bytes(lines_of([{"text": "one"}] * 40))
        (tmp_path / place / "a.jsonl.gz").write_bytes(gzip.compress(lines_of([{"text": "two"}]), mtime=0))
        os.utime(tmp_path / place / "b.jsonl", (len(place), len(place)))
        plans.append(plan_units([Source("web", str(tmp_path / place))], target_bytes=100))
    assert plans[0] == plans[1]
    assert [Unit.from_json(json.loads(json.dumps(unit.to_json()))) for unit in plans[0]] == plans[0]
    assert len({unit.digest for unit in plans[0]}) == len(plans[0]) > 2


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "txt", "warc"])
@pytest.mark.parametrize("change", ["edit", "append", "remove"])
def test_a_file_that_changed_after_planning_is_noticed(tmp_path, kind, change):
    path = tmp_path / f"a.{kind}"
    rows = [{"text": "one"}, {"text": "two"}]
    write = {
        "jsonl": lambda: path.write_bytes(lines_of(rows)),
        "jsonl.gz": lambda: path.write_bytes(gzip.compress(lines_of(rows), mtime=0)),
        "parquet": lambda: write_parquet(path, rows),
        "txt": lambda: path.write_text(json.dumps(rows)),
        "warc": lambda: path.write_bytes(json.dumps(rows).encode()),
    }[kind]
    write()
    source = Source("web", str(tmp_path))
    units = plan_units([source])
    size = path.stat().st_size
    if change == "remove":
        path.unlink()
        path.with_suffix(".other").touch()
    elif change == "append":
        with path.open("ab") as file:
            file.write(b'{"text": "three"}\n')
    else:
        rows[1]["text"] = "TWO"
        write()
        assert path.stat().st_size == size
    with pytest.raises(UserError, match=rf"a\.{kind} has changed"):
        for unit in units:
            list(read_unit(source, unit, today=TODAY))


def test_a_unit_is_read_only_as_its_own_source(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"text": "one"}]))
    (unit,) = plan_units([Source("web", str(tmp_path))])
    with pytest.raises(UserError, match="plan again"):
        list(read_unit(Source("books", str(tmp_path)), unit, today=TODAY))


@pytest.mark.parametrize(
    "files, message",
    [
        (None, "does not exist"),
        ({"a.csv": b"text"}, "holds no documents"),
        ({"a.jsonl": b""}, "are empty"),
        (
            {"a.jsonl": b'{"body": "x"}\n', "b.jsonl": b'{"words": "x"}\n'},
            "none of its 2 files.*no row has a field text",
        ),
        ({"a.jsonl.gz": gzip.compress(b'{"body": "x"}\n')}, "none of its 1 files.*no row has a field text"),
        ({"a.parquet": b"PAR1 and no more"}, "none of its 1 files.*not readable as Parquet"),
        ({"BUILDING.json": b"{}", "a.jsonl": b'{"text": "x"}\n'}, "was not finished"),
    ],
)
def test_unusable_sources_stop_before_anything_is_read(tmp_path, files, message):
    folder = tmp_path / "input"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        plan_units([Source("web", str(folder))])
    assert "source web" in str(raised.value) and "\n" not in str(raised.value)


def test_a_parquet_source_without_the_text_column_stops(tmp_path):
    write_parquet(tmp_path / "a.parquet", [{"body": "x"}])
    write_parquet(tmp_path / "b.parquet", [{"text": 3}])
    with pytest.raises(UserError, match="a.parquet: missing_column, no column text"):
        plan_units([Source("web", str(tmp_path))])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "a|b"}, "Source.name = 'a|b'"),
        ({"path": ""}, "path = ''"),
        ({"format": "csv"}, "format = 'csv' is unknown"),
        ({"format": "bundled"}, "goes with path"),
        ({"text_field": ""}, "text_field = ''"),
        ({"date_fields": "date"}, "date_fields = 'date' must be a list"),
        ({"crawl_date": "yesterday"}, "crawl_date = 'yesterday' is not a day"),
        ({"licence": None}, "licence = None must be a string"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        Source(**({"name": "web", "path": "somewhere"} | change))


def test_limits_and_names_are_checked(tmp_path):
    with pytest.raises(UserError, match="Limits.text_bytes = 0"):
        Limits(text_bytes=0)
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"text": "one"}]))
    with pytest.raises(UserError, match="source name web stands for 2 sources"):
        plan_units([Source("web", str(tmp_path)), Source("web", str(tmp_path))])
    with pytest.raises(UserError, match="target_bytes = 0"):
        plan_units([Source("web", str(tmp_path))], target_bytes=0)


def test_quarantined_rows_hold_nothing_but_plain_values():
    assert [field.name for field in dataclasses.fields(QuarantinedRow)] == ["source", "file", "row", "reason", "detail"]

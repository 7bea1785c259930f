"""Bad rows: each is set aside with a reason and a place, the rest of the input comes as if they were not there."""

import gzip
import json
import os
import subprocess
import sys
import textwrap

import hypothesis.strategies as st
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources import (
    Limits,
    QuarantinedRow,
    QuarantineReason,
    Source,
    concerns_file,
    plan_units,
    read_unit,
)

TODAY = "2026-01-01"
SECRET = "Ann Example of Main Street"
GOOD = [{"text": f"good row {number}"} for number in range(3)]


def read(path, target_bytes=1 << 26, **options):
    source = Source("web", str(path), **options)
    return [each for unit in plan_units([source], target_bytes) for each in read_unit(source, unit, today=TODAY)]


def outcome(rows):
    """Returns the texts that were read, and (file, row, reason) of what was set aside; checks every detail line."""
    for each in rows:
        if isinstance(each, QuarantinedRow):
            assert "\n" not in each.detail and len(each.detail) <= 200 and "Ann" not in each.detail
            assert isinstance(each.reason, QuarantineReason)
    texts = [each.text for each in rows if isinstance(each, RawDocument)]
    return texts, [(each.file, each.row, str(each.reason)) for each in rows if isinstance(each, QuarantinedRow)]


def lines_of(rows):
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


BAD_LINES = {
    "invalid_encoding": b'{"text": "Ann \xe9t\xe9"}',
    "invalid_json": b'{"text": "Ann"',
    "invalid_json of numbers": b'{"text": "Ann", "n": ' + b"9" * 5000 + b"}",
    "json_too_complex": b'{"text": "Ann", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "json_too_complex in width": b'{"text": "Ann", "a": [' + b"{}," * 1_000_001 + b"1]}",
    "not_an_object": b'["Ann"]',
    "missing_text": b'{"txt": "Ann"}',
    "missing_text of null": b'{"text": null}',
    "wrong_type": b'{"text": ["Ann"]}',
    "wrong_type of url": b'{"text": "Ann", "url": {"Ann": 1}}',
    "wrong_type of flag": b'{"text": "Ann", "id": true}',
    "wrong_type of headers": b'{"text": "Ann", "headers": "Ann"}',
    "wrong_type of header": b'{"text": "Ann", "headers": {"link": {"Ann": 1}}}',
    "wrong_type of links": b'{"text": "Ann", "licence_links": "Ann"}',
    "malformed_conversation": b'{"messages": [{"role": "Ann", "content": "Ann"}]}',
    "malformed_conversation without answer": b'{"messages": [{"role": "user", "content": "Ann"}]}',
    "malformed_conversation of tools": b'{"messages": [{"role": "user", "content": "Ann"}], "tools": "Ann"}',
    "lone_surrogate in conversation": b'{"messages": [{"role": "assistant", "content": "Ann \\ud83d"}]}',
    "empty_text": b'{"text": ""}',
    "empty_text of blanks": b'{"text": " \\n\\t\\u3000"}',
    "nul_character": b'{"text": "Ann\\u0000"}',
    "nul_character in url": b'{"text": "Ann", "url": "http://a.example/\\u0000"}',
    "lone_surrogate": b'{"text": "Ann \\ud83d"}',
    "lone_surrogate in header": b'{"text": "Ann", "headers": {"x-robots-tag": "noai \\udc00"}}',
    "invalid_id": b'{"text": "Ann", "document_id": "7"}',
    "url_without_host": b'{"text": "Ann", "url": "http:///Ann"}',
    "url_without_host nor scheme": b'{"text": "Ann", "url": "/Ann/page.html"}',
    "url_without_host but words": b'{"text": "Ann", "url": "Ann"}',
    "url_without_host of another scheme": b'{"text": "Ann", "url": "javascript:Ann()"}',
    "malformed_date": b'{"text": "Ann", "date": "Ann\'s birthday"}',
    "malformed_date not in the calendar": b'{"text": "Ann", "date": "2023-02-29"}',
    "malformed_date in seconds": b'{"text": "Ann", "date": 1704164645}',
    "future_date": b'{"text": "Ann", "crawl_date": "2026-01-02"}',
    "field_too_long": b'{"text": "Ann", "url": "http://a.example/' + b"x" * 20_000 + b'"}',
    "field_too_long in headers": b'{"text": "Ann", "headers": {"link": "' + b"x" * 20_000 + b'"}}',
    "text_too_large": b'{"text": "Ann' + b"x" * 10_000_000 + b'"}',
    "record_too_large": b'{"text": "Ann", "other": "' + b"x" * 30_000_000 + b'"}',
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_set_aside_alone(tmp_path, name):
    (tmp_path / "a.jsonl").write_bytes(lines_of([GOOD[0], BAD_LINES[name], GOOD[1], b"", GOOD[2]]))
    texts, quarantined = outcome(read(tmp_path))
    assert texts == [row["text"] for row in GOOD]
    assert quarantined == [("a.jsonl", 2, name.split()[0])]


def test_every_reason_is_tested_here_or_beside():
    of_rows = {name.split()[0] for name in BAD_LINES} | {"duplicate_id"}
    of_files = {"truncated_file", "damaged_file", "decompression_bomb", "missing_column", "column_type"}
    of_web_archives = {"damaged_record", "page_too_complex"}
    assert {str(each) for each in QuarantineReason} == of_rows | of_files | of_web_archives
    assert {each for each in QuarantineReason if concerns_file(QuarantinedRow("", "", 0, each))} == of_files


@pytest.mark.parametrize(
    "url", ["https://a.example/x", "pkg:pypi/gflanguages@1#a", "urn:isbn:123", "DOI:10.1/x", "", "http://[::1]/", None]
)
def test_addresses_with_a_host_and_names_are_kept(tmp_path, url):
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"text": "a", "url": url}]))
    (document,) = read(tmp_path)
    assert document.url == (url or "")


@pytest.mark.parametrize(
    "written, day",
    [
        *(("2026-01-01", "2026-01-01"), ("20240229", "2024-02-29"), ("20240229120000", "2024-02-29")),
        *(("2024-02-29T23:59:59Z", "2024-02-29"), ("2024-02-29 10:00:00+02:00", "2024-02-29"), ("", ""), (None, "")),
    ],
)
def test_days_are_read_in_the_spellings_of_crawls(tmp_path, written, day):
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"text": "a", "date": written}]))
    (document,) = read(tmp_path)
    assert document.crawl_date == day


def test_of_rows_with_one_id_the_first_stays(tmp_path):
    rows = [{"text": "one", "id": "x"}, {"text": "two", "id": "y"}, {"text": "again", "id": "x"}]
    (tmp_path / "a.jsonl").write_bytes(lines_of(rows))
    (tmp_path / "b.jsonl").write_bytes(lines_of([{"text": "elsewhere", "id": "y"}]))
    texts, quarantined = outcome(read(tmp_path))
    # The other file is not looked at: repetitions across files are found by sorting, after scoring.
    assert (texts, quarantined) == (["one", "two", "elsewhere"], [("a.jsonl", 3, "duplicate_id")])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["gz", "zst"]))
def test_a_cut_file_gives_the_rows_before_the_cut_and_one_line(tmp_path_factory, data, suffix):
    rows = [{"text": f"{number} " + "word " * (number % 7)} for number in range(300)]
    compress = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}[suffix]
    content = compress(lines_of(rows))
    # The last eight bytes of gzip are the check sum and the length, without which the file is cut too.
    cut = data.draw(st.integers(1, len(content) - 1))
    path = tmp_path_factory.mktemp("cut")
    (path / f"a.jsonl.{suffix}").write_bytes(content[:cut])
    (path / "b.jsonl").write_bytes(lines_of(GOOD))
    texts, quarantined = outcome(read(path))
    kept = len(texts) - len(GOOD)
    assert texts == [row["text"] for row in rows[:kept] + GOOD]
    assert quarantined == [(f"a.jsonl.{suffix}", kept + 1, "truncated_file")]
    if suffix == "gz" and cut >= len(content) - 8:
        assert kept == len(rows)


def test_the_line_about_a_cut_file_names_the_last_good_row(tmp_path):
    content = gzip.compress(lines_of([{"text": os.urandom(200).hex()} for _ in range(2000)]))
    (tmp_path / "a.jsonl.gz").write_bytes(content[: len(content) // 2])
    *documents, last = read(tmp_path)
    assert last.row == len(documents) + 1 > 500 and last.detail.endswith(f"after row {len(documents)}")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_damaged_file_gives_nothing_that_was_not_written(tmp_path, suffix):
    rows = [{"text": os.urandom(200).hex()} for _ in range(5000)]
    content = bytearray({"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}[suffix](lines_of(rows)))
    content[len(content) // 2 :: 997] = b"\xff" * len(content[len(content) // 2 :: 997])
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(content)
    (tmp_path / "b.jsonl").write_bytes(lines_of(GOOD))
    texts, quarantined = outcome(read(tmp_path))
    file_rows = [entry for entry in quarantined if entry[2] == "damaged_file"]
    assert len(file_rows) == 1 and texts[-3:] == [row["text"] for row in GOOD]
    assert set(texts[:-3][:1000]) <= {row["text"] for row in rows} and len(texts) > 1000


def test_a_wrong_check_sum_is_noticed(tmp_path):
    content = bytearray(gzip.compress(lines_of(GOOD)))
    content[-6] ^= 1
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    texts, quarantined = outcome(read(tmp_path))
    assert (texts, quarantined) == ([], [("a.jsonl.gz", 1, "damaged_file")])


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_decompression_bomb_is_stopped_and_rows_before_it_stay(tmp_path, suffix):
    bomb = lines_of(GOOD) + b'{"text": "' + b" " * 30_000_000
    compress = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}[suffix]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(compress(bomb))
    limits = Limits(text_bytes=100_000, record_bytes=300_000, expansion_free_bytes=1 << 20)
    texts, quarantined = outcome(read(tmp_path, limits=limits))
    assert texts == [row["text"] for row in GOOD] and quarantined[-1] == (f"a.jsonl.{suffix}", 4, "decompression_bomb")
    # Without a bound on expansion the same file is a file with one line that is too long.
    limits = Limits(text_bytes=100_000, record_bytes=300_000, expansion=10**9)
    assert outcome(read(tmp_path, limits=limits))[1] == [(f"a.jsonl.{suffix}", 4, "record_too_large")]


def test_a_file_has_a_largest_size(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines_of(GOOD * 10_000)))
    texts, quarantined = outcome(read(tmp_path, limits=Limits(expansion_free_bytes=1 << 30, file_bytes=1 << 19)))
    assert texts and [reason for _, _, reason in quarantined] == ["decompression_bomb"]


def test_zstandard_file_that_wants_gigabytes_is_refused(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.jsonl.zst").write_bytes(stream.compress(lines_of(GOOD)) + stream.flush())
    assert outcome(read(tmp_path))[1] == [("a.jsonl.zst", 1, "decompression_bomb")]


@pytest.mark.parametrize("limit", [10, 11])
def test_the_limit_of_texts_counts_bytes(tmp_path, limit):
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"text": "ü" * 5}, {"text": "a" * 10}, {"text": "ü" * 5 + "a"}]))
    texts, _ = outcome(read(tmp_path, limits=Limits(text_bytes=limit)))
    assert len(texts) == limit - 8


def test_one_odd_file_is_set_aside_as_a_whole(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of(GOOD))
    (tmp_path / "b.jsonl").write_bytes(lines_of([{"body": SECRET}] * 50))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines_of([{"body": SECRET}] * 50)))
    table = pyarrow.table({"body": [SECRET]})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "e.parquet")
    (tmp_path / "f.parquet").write_bytes(b"PAR1 " + SECRET.encode())
    pyarrow.parquet.write_table(pyarrow.table({"text": ["last"], "more": [1.5]}), tmp_path / "g.parquet")
    texts, quarantined = outcome(read(tmp_path, target_bytes=10))
    assert texts == [*(row["text"] for row in GOOD), "last"]
    assert quarantined == [
        *(("b.jsonl", 0, "missing_column"), ("c.jsonl.gz", 0, "missing_column"), ("d.parquet", 0, "missing_column")),
        *(("e.parquet", 0, "column_type"), ("f.parquet", 0, "damaged_file")),
    ]


def test_text_files_are_set_aside_one_by_one(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "b.txt").write_bytes(b"x" * 101)
    (tmp_path / "c.txt").write_bytes(b"")
    (tmp_path / "d.txt").write_bytes(b"x" * 100)
    texts, quarantined = outcome(read(tmp_path, limits=Limits(text_bytes=100)))
    assert [len(text) for text in texts] == [100]
    assert [(file, reason) for file, _, reason in quarantined] == [
        *(("a.txt", "invalid_encoding"), ("b.txt", "text_too_large"), ("c.txt", "empty_text")),
    ]


def test_bad_values_in_parquet_are_set_aside_alone(tmp_path):
    texts = pyarrow.array([b"one", b"Ann \xe9", b"three", None, b"x" * 200, b" "], pyarrow.binary())
    # A view of bytes as strings, which writers do not check.
    strings = pyarrow.Array.from_buffers(pyarrow.string(), len(texts), texts.buffers())
    table = pyarrow.table({"text": strings, "url": ["", "", "http://", "", "", ""]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found, quarantined = outcome(read(tmp_path, limits=Limits(text_bytes=100)))
    assert found == ["one"]
    assert [(row, reason) for _, row, reason in quarantined] == [
        *((2, "invalid_encoding"), (3, "url_without_host"), (4, "missing_text"), (5, "text_too_large")),
        (6, "empty_text"),
    ]


def test_a_damaged_row_group_leaves_the_others(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [os.urandom(500).hex() for _ in range(300)]
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), path, row_group_size=100, compression="zstd")
    metadata = pyarrow.parquet.read_metadata(path)
    place = metadata.row_group(1).column(0).dictionary_page_offset + 200
    content = bytearray(path.read_bytes())
    content[place : place + 3000] = bytes(3000)
    path.write_bytes(content)
    texts, quarantined = outcome(read(tmp_path))
    assert texts == rows[:100] + rows[200:]
    assert quarantined == [("a.parquet", 101, "damaged_file")]


def test_a_row_group_that_expands_too_far_is_not_opened(tmp_path):
    schema = pyarrow.schema([("text", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(
        tmp_path / "a.parquet", schema, compression="zstd", use_dictionary=False
    ) as writer:
        for text in ("one", " " * 20_000_000, "three"):
            writer.write_table(pyarrow.table({"text": [text]}))
    texts, quarantined = outcome(read(tmp_path, limits=Limits(expansion_free_bytes=1 << 20)))
    assert (texts, quarantined) == (["one", "three"], [("a.parquet", 0, "decompression_bomb")])


MEASURE = """
    import re, sys
    from apertus_jax.corpus.sources import Limits, Source, plan_units, read_unit
    import apertus_jax.corpus.sources.parquet, pyarrow.parquet, pyarrow.compute, zlib, zstandard

    def peak():
        # Not getrusage, whose peak a process inherits from the one that started it.
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) >> 10

    before = peak()
    limits = Limits(text_bytes=1_000_000, record_bytes=3_000_000, expansion=10**9)
    source = Source("web", sys.argv[1], limits=limits)
    counts = {"RawDocument": 0, "QuarantinedRow": 0}
    for unit in plan_units([source]):
        for each in read_unit(source, unit, today="2026-01-01"):
            counts[type(each).__name__] += 1
    print(*counts.values(), peak() - before)
"""


def measure(path):
    """Returns documents, quarantined rows and growth of memory in MiB of a process that reads `path`."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(path)], capture_output=True, text=True, check=True
    )
    return tuple(map(int, result.stdout.split()))


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "txt", "parquet"])
def test_a_document_of_100_or_200_megabytes_is_never_held(tmp_path, kind):
    line = b'{"text": "' + b"x" * (200_000_000 if kind == "jsonl" else 100_000_000) + b'"}\n'
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        # A thousand rows that share one long value of the dictionary.
        indices = pyarrow.array([0] * 1000, pyarrow.int32())
        texts = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["x" * 1_200_000]))
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, store_schema=False)
        expected = (0, 1000)
    elif kind == "txt":
        path.write_bytes(line)
        expected = (0, 1)
    else:
        content = lines_of(GOOD) + line + lines_of(GOOD)
        path.write_bytes(gzip.compress(content, 1) if kind == "jsonl.gz" else content)
        expected = (6, 1)
    documents, quarantined, growth = measure(path)
    assert (documents, quarantined) == expected and growth < 40


def test_memory_is_the_same_for_ten_times_as_many_rows(tmp_path):
    growths = []
    for count in (10_000, 100_000):
        path = tmp_path / f"{count}.jsonl"
        path.write_bytes(lines_of({"text": "tiny", "id": f"{number}"} for number in range(count)))
        documents, _, growth = measure(path)
        assert documents == count
        growths.append(growth)
    assert growths[1] - growths[0] < 10


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900_000), st.integers(1, 9)), min_size=1, max_size=6), st.booleans())
def test_compressed_members_of_any_length_are_read_whole(tmp_path_factory, lengths, is_padded):
    rows = [{"text": "x" + "y" * length, "level": level} for length, level in lengths]
    members = [gzip.compress(lines_of([row]), row["level"]) for row in rows]
    path = tmp_path_factory.mktemp("members") / "a.jsonl.gz"
    path.write_bytes((b"\0" * 512 if is_padded else b"").join(members) + b"\0" * 512 * is_padded)
    assert outcome(read(path)) == ([row["text"] for row in rows], [])

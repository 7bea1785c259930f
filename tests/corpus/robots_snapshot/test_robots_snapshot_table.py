"""Robots snapshots: built for a day, the same from any order of files, looked up without loading the table."""

import gzip
import json
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.robots_snapshot import RobotsRecord, RobotsSnapshot, build_robots_snapshot, robots_state
from apertus_jax.corpus.robots_snapshot import responses as responses_module
from apertus_jax.corpus.robots_snapshot.responses import BODY_LIMIT, Response, ResponseStore, parse_time
from apertus_jax.corpus.robots_snapshot.table import KIND, TableWriter, snapshot_schema
from apertus_jax.corpus.robots_snapshot.warc import read_warc
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

CLOSED = b"User-agent: *\nDisallow: /\n"
OPEN = b"User-agent: *\nAllow: /\n"


def warc_record(
    url, body=b"", status="200 OK", date="2025-01-01T00:00:00Z", http="", kind="response", block=None, **warc
):
    if block is None:
        block = f"HTTP/1.1 {status}\r\n{http}\r\n".encode() + body
    headers = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": date, **warc, "Content-Length": len(block)}
    head = "WARC/1.0\r\n" + "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return head.encode() + b"\r\n" + block + b"\r\n\r\n"


def write_warc(path, records, compressed=True):
    path.write_bytes(b"".join(gzip.compress(record, 1, mtime=0) if compressed else record for record in records))
    return path


def snapshot_of(tmp_path, records, as_of="2025-01-31", name="snapshot"):
    write_warc(tmp_path / f"{name}.warc.gz", records)
    build_robots_snapshot(tmp_path / f"{name}.warc.gz", tmp_path / name, as_of)
    return RobotsSnapshot(tmp_path / name)


def test_the_newest_answer_at_or_before_the_day_counts(tmp_path):
    url = "https://example.com/robots.txt"
    records = [
        warc_record(url, b"# 2024", date="2024-06-01T00:00:00Z"),
        warc_record(url, b"# last second", date="2025-01-31T23:59:59Z"),
        warc_record(url, b"# day after", date="2025-02-01T00:00:00Z"),
        warc_record(url, b"# middle", date="2025-01-15T12:00:00.123Z"),
    ]
    found = snapshot_of(tmp_path, records).record("example.com", "https")
    assert found.body == b"# last second" and found.fetched_at == parse_time("2025-01-31T23:59:59Z")
    at_noon = snapshot_of(tmp_path, records, as_of="2025-01-15T12:00:00Z", name="noon")
    assert at_noon.record("example.com", "https").body == b"# middle"
    assert at_noon.as_of == "2025-01-15T12:00:00Z"
    with pytest.raises(UserError, match="no answer at or before 2020-01-01"):
        snapshot_of(tmp_path, records, as_of="2020-01-01", name="early")
    assert not (tmp_path / "early").exists()


def test_rows_are_those_of_a_straightforward_table(tmp_path):
    """Many answers of many hosts against a dictionary that keeps the newest."""
    chance = random.Random(5)
    records, newest = [], {}
    for number in range(400):
        host, scheme = f"h{chance.randrange(60)}.example", chance.choice(["http", "https"])
        day = f"2025-{chance.randrange(1, 3):02d}-{chance.randrange(1, 29):02d}"
        date = f"{day}T{number // 60:02d}:{number % 60:02d}:00Z"
        status, body = chance.choice([("200 OK", b"# %d" % number), ("404 Not Found", b""), ("503 Busy", b"")])
        records.append(warc_record(f"{scheme}://{host}/robots.txt", body, status, date))
        if date <= "2025-01-31T23:59:59Z":
            key = host, scheme
            candidate = (date, status, body)
            newest[key] = max(newest.get(key, candidate), candidate, key=lambda entry: entry[0])
    snapshot = snapshot_of(tmp_path, records)
    for host in {key[0] for key in newest} | {"h999.example", "a", "zzz"}:
        for scheme in ("http", "https"):
            found, expected = snapshot.record(host, scheme), newest.get((host, scheme))
            assert (found is None) == (expected is None)
            if found:
                assert (responses_module.format_time(found.fetched_at), found.body) == (expected[0], expected[2])
                assert found.http_status == int(expected[1][:3])


def test_same_bytes_from_any_order_and_names_of_files(tmp_path):
    records = [
        warc_record(f"https://h{n}.example/robots.txt", b"# %d" % n, date=f"2025-01-{1 + n % 3:02d}T00:00:00Z")
        for n in range(20)
    ]
    # Two answers in one second: their content must decide, not their order.
    same_second = "https://h0.example/robots.txt", "2025-01-20T00:00:00Z"
    records += [warc_record(same_second[0], body, date=same_second[1]) for body in (OPEN, CLOSED)]
    digests = set()
    for seed in range(3):
        folder = tmp_path / f"input{seed}"
        folder.mkdir()
        shuffled = random.Random(seed).sample(records, len(records))
        for part in range(2):
            chunk = [record for number, record in enumerate(records) if number % 2 == part]
            chunk = [record for record in shuffled if record in chunk] if seed == 2 else chunk
            write_warc(folder / f"{'ab'[part ^ (seed == 1)]}.warc.gz", chunk)
        build_robots_snapshot(folder, tmp_path / f"out{seed}", "2025-01-31")
        manifest = artifacts.verify(tmp_path / f"out{seed}", KIND)
        digests.add(json.dumps(manifest["files"], sort_keys=True))
    assert len(digests) == 1
    first, second = (artifacts.read_manifest(tmp_path / f"out{seed}", KIND)["digest"] for seed in (0, 1))
    assert first == second  # renamed files are the same input


def test_redirects_give_rules_to_the_host_that_was_asked(tmp_path):
    def hop(url, target, status="301 Moved"):
        return warc_record(url, b"moved", status, http=f"Location: {target}\r\n")

    records = [
        hop("http://a.example/robots.txt", "https://a.example/robots.txt"),
        hop("https://a.example/robots.txt", "/files/robots.txt", "302 Found"),
        warc_record("https://a.example/files/robots.txt", CLOSED),
        hop("https://gone.example/robots.txt", "https://elsewhere.example/robots.txt"),
        hop("https://loop.example/robots.txt", "https://loop.example/robots.txt"),
        warc_record("https://lost.example/robots.txt", b"", "301 Moved"),
        hop("https://odd.example/robots.txt", "http://[::1"),
        hop("https://to404.example/robots.txt", "/none"),
        warc_record("https://to404.example/none", b"no", "404 Not Found"),
    ]
    snapshot = snapshot_of(tmp_path, records)
    for scheme in ("http", "https"):
        found = snapshot.record("a.example", scheme)
        assert (
            found.body == CLOSED
            and found.http_status == 200
            and found.final_url == "https://a.example/files/robots.txt"
        )
    assert snapshot.record("a.example", "http").redirects == (
        "https://a.example/robots.txt",
        "https://a.example/files/robots.txt",
    )
    errors = {host: snapshot.record(f"{host}.example", "https") for host in ("gone", "loop", "lost", "odd", "to404")}
    assert {host: record.error_kind for host, record in errors.items()} == {
        "gone": "redirect_not_archived",
        "loop": "too_many_redirects",
        "lost": "redirect_without_target",
        "odd": "redirect_without_target",
        "to404": "",
    }
    assert {host: robots_state(record) for host, record in errors.items()} == {
        "gone": "missing",
        "loop": "unavailable",
        "lost": "unavailable",
        "odd": "unavailable",
        "to404": "unavailable",
    }
    assert all(record.body == b"" for record in errors.values())
    assert snapshot.record("elsewhere.example", "https") is None


def test_five_redirects_are_followed_as_the_rfc_asks(tmp_path):
    records = [
        warc_record(
            f"https://h{n}.example/robots.txt",
            status="301 M",
            http=f"Location: https://h{n + 1}.example/robots.txt\r\n",
        )
        for n in range(6)
    ]
    records.append(warc_record("https://h6.example/robots.txt", CLOSED))
    assert snapshot_of(tmp_path, records).record("h0.example", "https").body == CLOSED


def test_bodies_are_decoded_where_encoded_and_cut_at_the_limit(tmp_path):
    chunked = b"5;x=y\r\nUser-\r\n9\r\nagent: *\n\r\n0\r\n\r\n"
    bomb = gzip.compress(b"#" * (20 * BODY_LIMIT))
    records = [
        warc_record("http://gzip.example/robots.txt", gzip.compress(CLOSED), http="Content-Encoding: gzip\r\n"),
        warc_record("http://not.example/robots.txt", CLOSED, http="Content-Encoding: gzip\r\n"),
        warc_record("http://chunk.example/robots.txt", chunked, http="Transfer-Encoding: chunked\r\n"),
        warc_record("http://unchunk.example/robots.txt", CLOSED, http="Transfer-Encoding: chunked\r\n"),
        warc_record("http://bomb.example/robots.txt", bomb, http="Content-Encoding: gzip\r\n"),
        warc_record("http://exact.example/robots.txt", b"#" * BODY_LIMIT),
        warc_record("http://long.example/robots.txt", b"#" * (BODY_LIMIT + 1)),
        warc_record("http://huge.example/robots.txt", b"#" * (5 * BODY_LIMIT)),
        warc_record("http://cut.example/robots.txt", b"# cut", WARC_Truncated="length"),
        warc_record("http://junk.example/robots.txt", block=b"\x00\xffnot http"),
        warc_record("http://odd.example/robots.txt", block=b"HTTP/1.1 999999 X\r\n\r\nbody"),
        warc_record("http://%zz/robots.txt", CLOSED),
        warc_record("http://asked.example/robots.txt", kind="request", block=b"GET /robots.txt HTTP/1.1\r\n\r\n"),
    ]
    snapshot = snapshot_of(tmp_path, records)
    hosts = ["gzip", "not", "chunk", "unchunk", "junk", "odd", "cut"]
    found = {host: snapshot.record(f"{host}.example", "http") for host in hosts}
    bodies = [found[host].body for host in hosts[:4]]
    assert bodies == [CLOSED, CLOSED, b"User-agent: *\n", CLOSED]
    assert found["junk"].error_kind == found["odd"].error_kind == "answer_not_understood"
    assert robots_state(found["junk"]) == "unreachable" and found["cut"].truncated
    for host, truncated in (("bomb", True), ("exact", False), ("long", True), ("huge", True)):
        record = snapshot.record(f"{host}.example", "http")
        assert (len(record.body), record.truncated) == (BODY_LIMIT, truncated)
    assert snapshot.record("asked.example", "http") is None


@pytest.mark.parametrize("compressed", [True, False])
def test_half_a_warc_stops_the_build_and_leaves_nothing(tmp_path, compressed):
    records = [warc_record(f"https://h{n}.example/robots.txt", CLOSED * 20) for n in range(5)]
    whole = write_warc(tmp_path / "whole.warc.gz", records, compressed).read_bytes()
    assert len(list(read_warc(tmp_path / "whole.warc.gz"))) == 5
    for share in (0.3, 0.5, 0.77, 0.99):
        path = tmp_path / "half.warc.gz"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match="half.warc.gz, (after )?record"):
            build_robots_snapshot(path, tmp_path / "out", "2025-01-31")
        assert not (tmp_path / "out").exists()


def test_unusable_inputs_are_named_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.warc").write_bytes(b"hello\n" * 100)
    (tmp_path / "file").write_bytes(b"x")
    cases = [
        ((tmp_path / "none", "2025-01-31"), "does not exist"),
        ((tmp_path / "empty", "2025-01-31"), "is empty"),
        ((tmp_path / "text.warc", "2025-01-31"), "not a readable WARC"),
        ((tmp_path / "text.warc", "soon"), "as_of = 'soon'"),
        ((tmp_path / "text.warc", "2025-01-31", "zip"), "layout is 'zip'"),
        ((tmp_path / "empty", "2025-01-31", "warc"), "no .warc"),
        (([], "2025-01-31"), "no input"),
        (([tmp_path / "empty", tmp_path / "file"], "2025-01-31", "files"), "one folder"),
    ]
    for (given_input, *rest), message in cases:
        with pytest.raises(UserError, match=message) as caught:
            build_robots_snapshot(given_input, tmp_path / "out", *rest)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_a_folder_of_files_becomes_the_same_kind_of_table(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.example.txt").write_bytes(CLOSED)
    (folder / "Bücher.example").write_bytes(OPEN)
    (folder / "c.example:8080").write_bytes(CLOSED)
    (folder / "old.txt").write_bytes(OPEN)
    (folder / "new.txt").write_bytes(CLOSED)
    (folder / ".hidden").write_bytes(b"x")
    lines = [
        {"host": "d.example", "http_status": 404, "fetched_at": "2025-01-02T00:00:00Z"},
        {"host": "e.example", "error_kind": "timeout", "scheme": "http"},
        {"host": "f.example", "file": "old.txt", "fetched_at": "2024-01-01"},
        {
            "host": "f.example",
            "file": "new.txt",
            "fetched_at": "2025-01-01",
            "final_url": "https://www.f.example/robots.txt",
        },
        {"host": "f.example", "http_status": 500, "fetched_at": "2025-06-01"},
    ]
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    summary = build_robots_snapshot(str(folder), tmp_path / "out", "2025-01-31")
    snapshot = RobotsSnapshot(tmp_path / "out")
    assert summary["states"] == {"found": 4, "unavailable": 1, "unreachable": 1} and summary["authorities"] == 6
    assert snapshot.record("a.example", "https").body == CLOSED
    assert snapshot.record("xn--bcher-kva.example", "https").body == OPEN
    assert snapshot.record("c.example:8080", "https").fetched_at is None
    assert snapshot.record("d.example", "https").http_status == 404
    assert robots_state(snapshot.record("e.example", "http")) == "unreachable"
    newest = snapshot.record("f.example", "https")
    assert newest.body == CLOSED and newest.redirects == ("https://www.f.example/robots.txt",)
    assert build_robots_snapshot(str(folder), tmp_path / "out", "2025-01-31") == summary  # finished work
    with pytest.raises(UserError, match="made with other as_of"):
        build_robots_snapshot(str(folder), tmp_path / "out", "2025-01-30")


@pytest.mark.parametrize(
    "files, index, message",
    [
        ({"a.example": b"", "A.example.txt": b""}, None, "are both the file of https://a.example/robots.txt"),
        ({"not a host": b""}, None, "is not an address"),
        ({"sub/a.example": b""}, None, "folder of its own"),
        ({"a.example": b""}, "{", "line 1: not JSON"),
        ({"a.example": b""}, '{"hots": 1}', 'no "host"'),
        ({"a.example": b""}, '{"host": "b.example", "status": 200}', "unknown key 'status'"),
        ({"a.example": b""}, '{"host": "b.example"}', "no answer"),
        ({"a.example": b""}, '{"host": "b.example", "http_status": "200"}', "not a status"),
        ({"a.example": b""}, '{"host": "b.example", "file": "b.txt"}', "not a file of this folder"),
        ({"a.example": b""}, '{"host": "b.example", "http_status": 200, "fetched_at": "now"}', "not a time"),
        ({"a.example": b""}, '{"host": "b.example", "http_status": 200, "redirects": "x"}', "list of URLs"),
        ({"a.example": b""}, '{"host": "b example", "http_status": 200}', "is not an address"),
    ],
)
def test_a_folder_that_says_two_things_or_nothing_is_refused(tmp_path, files, index, message):
    folder = tmp_path / "files"
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    if index is not None:
        (folder / "index.jsonl").write_text(index + "\n")
    with pytest.raises(UserError, match=message):
        build_robots_snapshot(folder, tmp_path / "out", "2025-01-31")
    assert not (tmp_path / "out").exists()


def many_records(count):
    hosts = [(f"h{n}.example", scheme) for n in range(count) for scheme in ("http", "https")]
    names = sorted(key for n, key in enumerate(hosts) if n % 5)
    return [
        RobotsRecord(host, scheme, 1_700_000_000 + n, 200, (), f"{scheme}://{host}/robots.txt", b"# %d" % n, False, "")
        for n, (host, scheme) in enumerate(names)
    ]


def committed(folder, records, **sizes):
    with artifacts.build(folder, KIND, {}) as build:
        TableWriter(build.path, **sizes).write(records)
        build.summary["as_of"] = "2025-01-31T23:59:59Z"
    return RobotsSnapshot(folder)


def test_lookups_equal_a_dictionary_and_read_few_row_groups(tmp_path):
    records = many_records(300)
    snapshot = committed(tmp_path / "out", records, rows_per_group=7, groups_per_part=5)
    groups = -(-len(records) // 7)
    assert len(list((tmp_path / "out").glob("robots-*.parquet"))) == -(-groups // 5)
    assert snapshot.row_groups_read == 0
    by_key = {(record.authority, record.scheme): record for record in records}
    assert snapshot.record("h8.example", "https") == by_key["h8.example", "https"]
    assert snapshot.row_groups_read == 1
    for authority, scheme in sorted({*by_key, ("", "http"), ("h5", "http"), ("zz", "https"), ("h6.example", "ftp")}):
        assert snapshot.record(authority, scheme) == by_key.get((authority, scheme))
    assert snapshot.row_groups_read == 1 + groups  # in the order of the table, each once (the first had to go again)
    for key in random.Random(1).sample(sorted(by_key), 50):
        assert snapshot.record(*key) == by_key[key]


def test_memory_of_the_reader_is_bounded(tmp_path):
    snapshot = committed(tmp_path / "out", many_records(200), rows_per_group=2, groups_per_part=4)
    for number in range(200):
        snapshot.record(f"h{number}.example", "http")
    assert len(snapshot._kept) <= 32 and len(snapshot._open) <= 16


def test_the_table_has_the_columns_of_the_specification(tmp_path):
    import pyarrow.parquet

    committed(tmp_path / "out", many_records(3))
    table = pyarrow.parquet.read_table(tmp_path / "out" / "robots-00000.parquet")
    assert " ".join(table.schema.names) == (
        "authority scheme fetched_at http_status redirects final_url body_sha256 body truncated error_kind"
    )
    assert table.schema == snapshot_schema()
    keys = list(zip(table["authority"].to_pylist(), table["scheme"].to_pylist(), strict=True))
    assert keys == sorted(keys)


def test_a_damaged_snapshot_is_named(tmp_path):
    committed(tmp_path / "out", many_records(3))
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    (tmp_path / "copy" / "robots-00000.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="robots-00000.parquet has 12 bytes"):
        RobotsSnapshot(tmp_path / "copy")
    (tmp_path / "copy" / "index.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="index.parquet has 0 bytes"):
        RobotsSnapshot(tmp_path / "copy")
    (tmp_path / "copy" / artifacts.COMMIT_MARKER).unlink()
    with pytest.raises(UserError, match="not a complete robots_snapshot"):
        RobotsSnapshot(tmp_path / "copy")


answers = st.builds(
    Response,
    url=st.sampled_from(
        ["http://a/robots.txt", "https://a/robots.txt", "http://b/robots.txt", "http://b/x", "http://["]
    ),
    fetched_at=st.none() | st.integers(0, 4),
    http_status=st.sampled_from([None, 200, 301, 404, 500]),
    location=st.sampled_from(["", "/x", "http://b/robots.txt", "https://a/robots.txt", "//[", "\ud800"]),
    body=st.sampled_from([b"", OPEN, CLOSED]),
    truncated=st.booleans(),
    error_kind=st.sampled_from(["", "timeout"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(answers, max_size=8), st.randoms(use_true_random=False))
def test_any_answers_in_any_order_give_the_same_records(tmp_path_factory, found, chance):
    folder = tmp_path_factory.mktemp("store")
    results = []
    for name in ("one", "two"):
        store = ResponseStore(folder / name)
        store.add(found, not_after=3)
        results.append(list(store.records()))
        store.close()
        found = chance.sample(found, len(found))
    assert results[0] == results[1]
    keys = [(record.authority, record.scheme) for record in results[0]]
    assert keys == sorted(set(keys))
    assert all(robots_state(record) for record in results[0])
    shutil.rmtree(folder)


def test_flipped_bit_in_a_snapshot_is_noticed_before_verdicts(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.example").write_text("User-agent: *\nDisallow: /\n")
    build_robots_snapshot(str(tmp_path / "files"), str(tmp_path / "out"), as_of="2025-01-31", progress=False)
    for path in sorted((tmp_path / "out").rglob("*.parquet")):
        content = path.read_bytes()
        for position in range(0, len(content), 37):
            path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
            with pytest.raises(UserError, match="digest differs"):
                RobotsSnapshot(tmp_path / "out")
        path.write_bytes(content)
    assert RobotsSnapshot(tmp_path / "out").record("a.example", "https") is not None

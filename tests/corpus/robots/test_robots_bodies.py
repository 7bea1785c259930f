"""robots.txt answers in every form that bodies take: a refusal is heard, and what cannot be read is no consent."""

import gzip
import random
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.corpus.robots import RobotsPolicy
from apertus_jax.corpus.robots.body_text import utf8_body
from apertus_jax.corpus.robots_snapshot import (
    RobotsRecord,
    RobotsRule,
    RobotsScoring,
    RobotsSnapshot,
    build_robots_snapshot,
    robots_state,
)
from apertus_jax.corpus.robots_snapshot.responses import BODY_LIMIT
from apertus_jax.corpus.robots_snapshot.warc import read_warc
from apertus_jax.errors import UserError

CLOSED = b"User-agent: *\nDisallow: /\n"
OPEN = b"User-agent: *\nAllow: /\n"
NOISE = bytes(random.Random(3).choices(range(256), k=700))


def raw_deflate(body):
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(body) + coder.flush()


def coding(value):
    return f"Content-Encoding: {value}\r\n"


# name → (body as stored, header fields), for the body that the server meant.
STORED = {
    "plain": lambda body: (body, ""),
    "br": lambda body: (brotli.compress(body), coding("br")),
    "raw deflate": lambda body: (raw_deflate(body), coding("deflate")),
    "deflate": lambda body: (zlib.compress(body), coding("Deflate")),
    "zstd": lambda body: (zstandard.compress(body), coding("zstd")),
    "gzip twice": lambda body: (gzip.compress(gzip.compress(body)), coding("gzip, gzip")),
    "gzip once of two": lambda body: (gzip.compress(body), coding("gzip, gzip")),
    "gzip and identity": lambda body: (gzip.compress(body), coding("gzip, identity")),
    "two members": lambda body: (gzip.compress(body[:9]) + gzip.compress(body[9:]), coding("gzip")),
    "nothing announced": lambda body: (gzip.compress(body), ""),
    "a gzip file": lambda body: (gzip.compress(body), "Content-Type: application/gzip\r\n"),
    "two fields": lambda body: (brotli.compress(gzip.compress(body)), coding("gzip") + coding("BR")),
    "undone": lambda body: (body, coding("br")),
    "undone gzip": lambda body: (body, coding("gzip, br") + "Transfer-Encoding: chunked\r\n"),
    "unknown but undone": lambda body: (body, coding("compress")),
    "aws-chunked": lambda body: (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), coding("aws-chunked")),
    "chunked gzip": lambda body: (
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzip.compress(body)), gzip.compress(body)),
        coding("gzip") + "Transfer-Encoding: chunked\r\n",
    ),
    "UTF-16LE": lambda body: (b"\xff\xfe" + body.decode().encode("utf-16-le"), ""),
    "UTF-16BE": lambda body: (b"\xfe\xff" + body.decode().encode("utf-16-be"), ""),
    "UTF-16LE, no mark": lambda body: (body.decode().encode("utf-16-le"), ""),
    "UTF-16BE, no mark": lambda body: (body.decode().encode("utf-16-be"), ""),
    "UTF-16 in gzip": lambda body: (gzip.compress(body.decode().encode("utf-16")), coding("gzip")),
    "UTF-32": lambda body: (body.decode().encode("utf-32"), ""),
    "UTF-32BE": lambda body: (b"\0\0\xfe\xff" + body.decode().encode("utf-32-be"), ""),
    "UTF-8 with mark": lambda body: (b"\xef\xbb\xbf" + body, ""),
    "two marks": lambda body: (b"\xef\xbb\xbf" * 2 + body, ""),
    "padded": lambda body: (b"\0\0" + body + b"\0" * 100, ""),
    "Macintosh line ends": lambda body: (body.replace(b"\n", b"\r"), ""),
}


def record(url, body, head="", status="200 OK", extra="", length=None):
    block = f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body
    header = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2025-01-01T00:00:00Z\r\n{extra}"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return header.encode() + block + b"\r\n\r\n"


def host(name):
    return "".join(each if each.isalnum() else "-" for each in name.lower()) + ".example"


def snapshot(folder, answers):
    """Returns a scorer over a snapshot of answers: name → (body, header fields, further options)."""
    records = [
        record(f"https://{host(name)}/robots.txt", body, head, **(rest[0] if rest else {}))
        for name, (body, head, *rest) in answers.items()
    ]
    (folder / "robots.warc").write_bytes(b"".join(records))
    build_robots_snapshot(folder / "robots.warc", folder / "snapshot", "2025-01-31", progress=False)
    return RobotsScoring(snapshot=str(folder / "snapshot")).build()


def score(scorer, name):
    page = RawDocument(document_id="0" * 32, text="", source="s", file="f", row=1, url=f"https://{host(name)}/page")
    return scorer.score([page])[0]


def reasons(row):
    """Returns what the two policies say."""
    verdicts = [RobotsRule(policy=policy).verdict(row, {}) for policy in ("apertus", "strict")]
    return [None if verdict is None else verdict.reason for verdict in verdicts]


def test_a_refusal_is_heard_in_every_form_of_a_body(tmp_path):
    scorer = snapshot(tmp_path, {name: store(CLOSED) for name, store in STORED.items()})
    for name in STORED:
        row = score(scorer, name)
        assert (row["robots_verdict"], row["robots_rule"], row["robots_line"]) == ("deny", "Disallow: /", 2), name
        assert reasons(row) == [Reason.ROBOTS, Reason.ROBOTS], name


def test_an_invitation_is_heard_in_every_form_of_a_body(tmp_path):
    scorer = snapshot(tmp_path, {name: store(OPEN) for name, store in STORED.items()})
    for name in STORED:
        row = score(scorer, name)
        assert (row["robots_verdict"], row["robots_state"], reasons(row)) == ("allow", "found", [None, None]), name


NOT_UNDERSTOOD = {
    "noise": (NOISE, "", "undecodable"),
    "unknown coding": (b"\x1f\x9d" + NOISE, coding("compress"), "undecodable"),
    # What a decoder makes of it before it stops is its own affair.
    "damaged gzip": (gzip.compress(NOISE)[:20] + NOISE, coding("gzip"), None),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + NOISE, "Content-Type: text/plain\r\n", "undecodable"),
    "archive": (b"PK\x03\x04\x14\0\0\0\x08\0" + NOISE, "", "undecodable"),
    "NULs inside": (OPEN.replace(b"Allow", b"Al\0low"), "", "undecodable"),
    "UTF-7": (b"+/v8-User-agent: +ACo-\nDisallow: /\n", "", "undecodable"),
    "page": (b"<html><p>Not found</p>", "", "html"),
    "page in UTF-16": ("\ufeff<html><p>Not found".encode("utf-16-le"), "", "html"),
    "coded page": (brotli.compress(b"<!doctype html><p>Not found"), coding("br"), "html"),
    "prose": (b"Not found\n", "", "malformed"),
    "JSON": (b'{"error": "not found"}', "", "malformed"),
    "EBCDIC": (CLOSED.decode().encode("cp037"), "", None),
    "cut in the record": (OPEN, "", "incomplete", {"extra": "WARC-Truncated: length\r\n"}),
    "cut into segments": (OPEN, "", "incomplete", {"extra": "WARC-Segment-Number: 1\r\n"}),
    "cut by the network": (OPEN, "Content-Length: 5000\r\n", "incomplete"),
    "nothing of much": (b"", "Content-Length: 5000\r\n", "incomplete"),
    "cut gzip": (gzip.compress(OPEN * 50)[:-9], coding("gzip"), "incomplete"),
    "cut chunks": (b"%x\r\n%b\r\n" % (len(OPEN), OPEN), "Transfer-Encoding: chunked\r\n", "incomplete"),
    "a part": (OPEN, "", "incomplete", {"status": "206 Partial Content"}),
    "a challenge": (b"", "", "incomplete", {"status": "202 Accepted"}),
}


UNREADABLE = ("undecodable", "malformed", "incomplete")


def test_what_is_not_understood_is_no_consent(tmp_path):
    scorer = snapshot(tmp_path, {name: (body, head, *rest) for name, (body, head, _, *rest) in NOT_UNDERSTOOD.items()})
    for name, (_, _, state, *_) in NOT_UNDERSTOOD.items():
        row = score(scorer, name)
        assert row["robots_verdict"] == "unknown" and reasons(row) == [None, Reason.ROBOTS_UNREACHABLE], name
        assert row["robots_state"] == state or (state is None and row["robots_state"] in UNREADABLE), name


def test_a_refusal_in_what_is_not_whole_still_counts(tmp_path):
    answers = {
        "cut gzip": (gzip.compress(CLOSED * 50)[:-9], coding("gzip")),
        "cut": (CLOSED + b"Disal", "Content-Length: 5000\r\n"),
        "NULs": (b"#\0\n" + CLOSED, ""),
        "a part": (CLOSED, "", {"status": "206 Partial Content"}),
    }
    scorer = snapshot(tmp_path, answers)
    for name in answers:
        assert reasons(score(scorer, name)) == [Reason.ROBOTS, Reason.ROBOTS], name


def test_an_answer_that_says_there_is_no_file_is_not_read(tmp_path):
    answers = {
        "gone": (gzip.compress(NOISE)[:40], coding("gzip"), {"status": "404 Not Found"}),
        "empty": (b"", ""),
        "comments": (b"# nothing is forbidden here\n", ""),
        "empty and coded": (b"", coding("gzip")),
    }
    scorer = snapshot(tmp_path, answers)
    assert [score(scorer, name)["robots_state"] for name in answers] == ["unavailable", "found", "found", "found"]
    assert all(reasons(score(scorer, name)) == [None, None] for name in answers)


def test_files_in_a_folder_are_read_as_answers_are(tmp_path):
    (tmp_path / "files").mkdir()
    bodies = {name: store(CLOSED)[0] for name, store in STORED.items() if not store(CLOSED)[1]}
    for name, body in bodies.items():
        (tmp_path / "files" / host(name)).write_bytes(body)
    build_robots_snapshot(tmp_path / "files", tmp_path / "snapshot", "2025-01-31", progress=False)
    scorer = RobotsScoring(snapshot=str(tmp_path / "snapshot")).build()
    assert len(bodies) > 10
    assert all(score(scorer, name)["robots_verdict"] == "deny" for name in bodies)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff", b"\xef\xbb\xbf"]))
def test_any_bytes_are_a_body_with_a_state(body, mark):
    record = RobotsRecord("a", "https", 0, 200, (), "", mark + body, False, "")
    text, _ = utf8_body(record.body)
    assert b"\0" not in text and not text.startswith(b"\xef\xbb\xbf")
    state = robots_state(record)
    # Consent needs a known record, or nothing but blanks and comments.
    lines = [line.strip(b" \t\v\f\x1a") for line in text.replace(b"\r", b"\n").split(b"\n")]
    says_something = any(line and not line.startswith(b"#") for line in lines)
    assert state != "found" or not says_something or b"agent" in text.lower() or b":" in text or b"llow" in text.lower()
    RobotsPolicy.parse(record.body).allows("GPTBot", "/")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Allow", "Disallow"]), st.text(max_size=8)), max_size=8),
    st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]),
)
def test_rules_in_every_unicode_form_are_the_rules_in_utf_8(rules, codec):
    lines = "".join(f"{name}: /{path}\n" for name, path in rules if "\0" not in path).replace("\ufeff", "")
    text = f"User-agent: *\n{lines}Disallow: /end\n"
    try:
        stored = text.encode(codec)
    except UnicodeEncodeError:
        return
    if codec in ("utf-16-le", "utf-16-be") and sum(map(str.isascii, text)) < 0.9 * len(text):
        return  # without a mark only western text gives itself away
    one, other = RobotsPolicy.parse(text.encode()), RobotsPolicy.parse(stored)
    urls = ["/", "/end", *(f"/{path}" for _, path in rules)]
    assert [one.allows("GPTBot", url) for url in urls] == [other.allows("GPTBot", url) for url in urls]


def test_a_resource_is_an_answer_without_a_status(tmp_path):
    content = record("https://a.example/robots.txt", b"").replace(b"Type: response", b"Type: resource")
    head, _ = content.split(b"Content-Length")
    (tmp_path / "a.warc").write_bytes(head + b"Content-Length: %d\r\n\r\n%b\r\n\r\n" % (len(CLOSED), CLOSED))
    build_robots_snapshot(tmp_path / "a.warc", tmp_path / "snapshot", "2025-01-31", progress=False)
    found = RobotsSnapshot(tmp_path / "snapshot").record("a.example", "https")
    assert (found.body, found.http_status, robots_state(found)) == (CLOSED, None, "found")


def test_long_bodies_are_cut_where_the_standard_allows_it(tmp_path):
    long = CLOSED + b"# \n" * BODY_LIMIT
    scorer = snapshot(tmp_path, {"long": (long, ""), "coded": (brotli.compress(long, quality=1), coding("br"))})
    for name in ("long", "coded"):
        row = score(scorer, name)
        assert (row["robots_verdict"], row["robots_state"]) == ("deny", "found")
        kept = RobotsSnapshot(tmp_path / "snapshot").record(host(name), "https")
        assert (len(kept.body), kept.truncated) == (BODY_LIMIT, True)


@pytest.mark.parametrize("version", ["WARC/0.17", "WARC/0.18", "WARC/1.1"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_archives_of_every_version_and_compression_are_read(tmp_path, version, compress):
    content = record("https://a.example/robots.txt", CLOSED).replace(b"WARC/1.0", version.encode())
    (tmp_path / "a.warc").write_bytes(compress(content.replace(b"Content-Length", b"content-length")))
    assert [each.body for each in read_warc(tmp_path / "a.warc")] == [CLOSED]
    (tmp_path / "a.warc").write_bytes(compress(content) + compress(b"WARC/7\r\n\r\n"))
    with pytest.raises(UserError, match="record 2: not a readable WARC"):
        list(read_warc(tmp_path / "a.warc"))

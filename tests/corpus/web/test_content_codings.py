"""Codings around HTTP bodies: undone as far as they are really there, whatever was announced, within a limit."""

import functools
import gzip
import random
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.sources import Limits
from apertus_jax.corpus.web.content_codings import announced_codings, undo_codings
from apertus_jax.corpus.web.http_messages import parse_response
from tests.corpus.sources.web_archive_records import PAGE, read_bytes, record, response
from tests.processor_time import assert_bounded

LIMIT = 1 << 20
# Without the time, which would be in the names of the tests: workers must collect the same ones.
gzipped = functools.partial(gzip.compress, mtime=0)


def raw_deflate(body):
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(body) + coder.flush()


def chunked(body):
    pieces = [body[start : start + 700] for start in range(0, len(body), 700)]
    return b"".join(b"%x;n=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\n"


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]),  # two members
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": functools.partial(brotli.compress, quality=4),
    "zstd": zstandard.ZstdCompressor().compress,
    "chunked": chunked,
    "aws-chunked": chunked,
    "identity": bytes,
    "": bytes,
}
TEXT = "".join(f"User-agent: bot{number}\nDisallow: /{number * 7919 % 1000}/ä\n" for number in range(300)).encode()


def undo(body, value, limit=LIMIT):
    return undo_codings(body, announced_codings([("content-encoding", value)]), limit)


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("spelling", ["{}", " {} ", "{},", ", {}", "{}, identity", "none,{}"])
def test_a_coding_is_undone_in_every_spelling(name, spelling):
    for body in (TEXT, b"x", b"User-agent: *\nDisallow: /\n"):
        for value in (spelling.format(name), spelling.format(name).upper()):
            assert undo(CODINGS[name](body), value).body == body


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=40).map(lambda noise: random.Random(noise).choices(range(256), k=60)),
    st.lists(st.sampled_from(sorted(CODINGS)), max_size=4),
    st.data(),
)
def test_codings_are_undone_as_far_as_they_are_there(noise, names, data):
    """Any stack of codings, of which an archive undid the outer ones, or the inner ones were never applied."""
    body = "".join(chr(0x20 + each) for each in noise if each != 0x5F).encode()
    first = data.draw(st.integers(0, len(names)))
    last = data.draw(st.integers(first, len(names)))
    coded = body
    for name in names[first:last]:
        coded = CODINGS[name](coded)
    undone = undo(coded, ", ".join(names))
    assert (undone.body, undone.is_cut, undone.defect) == (body, False, "")


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=200),
    st.sampled_from(sorted(CODINGS)),
)
def test_text_whose_coding_was_undone_stays_as_it_is(text, name):
    if name not in ("chunked", "aws-chunked"):
        assert undo(text.encode(), name).body == text.encode()


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_what_nobody_announced_is_undone_by_its_first_bytes(compress):
    assert undo(compress(TEXT), "").body == TEXT
    assert undo(compress(compress(TEXT)), "gzip").body == TEXT


@pytest.mark.parametrize("value", ["compress", "x-compress", "br", "gzip", "deflate", "zstd", "dcb", "exi", "a, b"])
def test_bytes_in_no_known_coding_are_a_defect(value):
    noise = bytes(random.Random(value).choices(range(256), k=500))
    assert "cannot be undone" in undo(b"\x1f\x9d" + noise, value).defect
    assert undo(TEXT, value).defect == ""


@pytest.mark.parametrize("name", ["gzip", "deflate", "Deflate", "br", "zstd", "chunked"])
def test_body_that_ends_early_is_truncated_and_its_start_kept(name):
    coded = CODINGS[name](TEXT)
    for share in (0.4, 0.8):
        undone = undo(coded[: int(len(coded) * share)], name)
        assert undone.is_truncated and TEXT.startswith(undone.body)
        assert len(undone.body) > 100 or name == "zstd"


def test_damage_behind_the_first_bytes_is_a_defect():
    coded = bytearray(gzip.compress(TEXT))
    coded[-6] ^= 1  # of the check sum
    undone = undo(bytes(coded), "gzip")
    assert undone.defect and not undone.is_truncated
    assert undo(b"\x1f\x8b\x08bad", "gzip").defect
    assert undo(chunked(TEXT).replace(b"\r\n2bc", b"\r\nXYZ", 1), "chunked").defect
    assert undo(gzip.compress(TEXT) + b"\r\n", "gzip").body == TEXT  # what follows the last member is no part of it


@pytest.mark.parametrize("name", ["gzip", "deflate", "Deflate", "br", "zstd"])
def test_no_coding_makes_more_than_the_limit(name):
    undone = undo(CODINGS[name](b" " * (5 * LIMIT)), name)
    assert undone.is_cut and len(undone.body) == LIMIT
    twice = undo(CODINGS[name](CODINGS[name](b" " * (5 * LIMIT))), f"{name}, {name}")
    assert twice.is_cut and len(twice.body) == LIMIT


COMPRESSORS = pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress])


@COMPRESSORS
def test_many_members_are_undone_or_told(compress):
    assert undo(compress(b"x") * 9_000, "gzip").body == b"x" * 9_000
    assert undo(compress(b"") * 1_000_000, "gzip").defect


@pytest.mark.timed
@COMPRESSORS
def test_many_members_take_no_longer_than_their_size_allows(compress):
    many = compress(b"") * 1_000_000
    assert_bounded(lambda: undo(many, "gzip"), 10)


def test_codings_around_each_other_have_an_end():
    body = TEXT
    for _ in range(20):
        body = gzip.compress(body)
    assert "more than 8 codings" in undo(body, "gzip").defect


@pytest.mark.parametrize(
    "body, headers",
    [
        (b"\xef\xbb\xbf<p>x</p>", "Content-Encoding: gzip"),
        (gzipped(b"<p>x</p>"), "Content-Encoding: gzip, gzip"),
        (gzipped(gzipped(b"<p>x</p>")), "Content-Encoding: gzip, gzip"),
        (gzipped(b"<p>x</p>"), "content-encoding: x-gzip\r\ncontent-length: 8"),
        (gzipped(b"<p>") + gzipped(b"x</p>"), "Content-Encoding: gzip"),
        (gzipped(b"<p>x</p>"), ""),
        (raw_deflate(b"<p>x</p>"), "Content-Encoding: deflate"),
        (zlib.compress(b"<p>x</p>"), "CONTENT-ENCODING: DEFLATE"),
        (brotli.compress(gzipped(b"<p>x</p>")), "Content-Encoding: gzip\r\nContent-Encoding: br"),
        (gzipped(b"<p>x</p>"), "Content-Encoding: gzip, br"),  # only the outer of two was undone
        (chunked(zstandard.compress(b"<p>x</p>")), "Content-Encoding: zstd\r\nTransfer-Encoding: chunked"),
        (zstandard.compress(b"<p>x</p>"), "Content-Encoding: zstd\r\nTransfer-Encoding: chunked"),
        (b"<p>x</p>", "Content-Encoding: br"),
        (b"<p>x</p>", "Content-Encoding: compress"),
        (b"<p>x</p>", "Content-Encoding: utf-8"),
        ("\ufeff<p>x</p>".encode("utf-16-le"), "Content-Encoding: deflate"),
        ("<p>①x</p>".encode("cp932"), "Content-Encoding: br"),
    ],
)
def test_pages_are_read_under_the_codings_that_are_there(tmp_path, body, headers):
    head = f"Content-Type: text/html; charset=shift_jis\r\n{headers}{chr(13) + chr(10) if headers else ''}"
    (document,), quarantined = read_bytes(tmp_path, response("x", body, head))
    assert document.text.lstrip("①") == "x" and not quarantined


def test_plain_text_is_read_under_codings_and_marks(tmp_path):
    bodies = (b"Nur Text.", b"\xef\xbb\xbfNur Text.", gzipped(b"Nur Text."), "\ufeffNur Text.".encode("utf-16"))
    records = [
        response(f"{n}", body, "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n")
        for n, body in enumerate(bodies)
    ]
    documents, quarantined = read_bytes(tmp_path, b"".join(records))
    assert [each.text.strip("\ufeff") for each in documents] == ["Nur Text."] * 4 and not quarantined


def test_pages_that_no_coding_explains_are_set_aside(tmp_path):
    noise = bytes(random.Random(1).choices(range(256), k=900))
    limits = Limits(text_bytes=2_000, record_bytes=100_000, expansion_free_bytes=1 << 30, expansion=100)
    bomb = brotli.compress(b"<p>" + b" " * 3_000_000)
    cases = {
        "noise": response("a", noise, "Content-Type: text/html\r\nContent-Encoding: compress\r\n"),
        "bomb": response("b", bomb, "Content-Type: text/html\r\nContent-Encoding: br\r\n"),
        "image": response("c", noise, "Content-Type: image/png\r\nContent-Encoding: gzip\r\n"),
    }
    _, quarantined = read_bytes(tmp_path, b"".join(cases.values()), limits=limits)
    assert quarantined == [(1, "damaged_record"), (2, "decompression_bomb")]


@pytest.mark.parametrize("version", ["WARC/0.17", "WARC/0.18", "WARC/1.0", "WARC/1.1"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_every_version_of_warc_is_read(tmp_path, version, end):
    content = b""
    for name in "ab":
        whole = response(name, PAGE.format(f"Page {name}.")).replace(b"WARC/1.0", version.encode())
        head, block = whole.split(b"\r\n\r\n", 1)
        content += head.replace(b"Content-Length", b"content-length").replace(b"\r\n", end) + end * 2 + block
    documents, quarantined = read_bytes(tmp_path, content)
    assert [each.text for each in documents] == ["Page a.", "Page b."] and not quarantined
    documents, quarantined = read_bytes(tmp_path, b"WARC/9" + content, "b.warc")
    assert [each.text for each in documents] == ["Page b."] and quarantined == [(1, "damaged_record")]


def test_responses_are_read_whatever_their_line_ends():
    for block in (
        b"HTTP/1.1 200 OK\r\nA: 1\r\nB: x\r\n  y\r\na: 2\r\n\r\nbody",
        b"HTTP/1.1 200\nA: 1\nB: x\n\ty\na: 2\n\nbody",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/2 200\r\nA: 1\r\nB: x\r\n y\r\na: 2\r\n\r\nbody",
    ):
        found = parse_response(block)
        assert (found.status, found.fields, found.body) == (200, (("a", "1"), ("b", "x y"), ("a", "2")), b"body")
    for block in (b"", b"nothing like HTTP", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 99999\r\n\r\n", b"\x00\xff"):
        assert parse_response(block) is None


def test_resources_may_be_coded_too(tmp_path):
    content = record("r", gzip.compress(PAGE.format("A resource.").encode()), kind="resource", content_type="text/html")
    (document,), _ = read_bytes(tmp_path, content)
    assert document.text == "A resource."

"""Web archives: pages become text with what they say about consent; damaged records do not take others with them."""

import collections
import gzip

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from apertus_jax.corpus.documents import document_id
from apertus_jax.corpus.sources import Limits
from tests.corpus.sources.web_archive_records import PAGE, page, read_bytes, record, response
from tests.processor_time import assert_bounded


def read_page(folder, html, headers="Content-Type: text/html; charset=utf-8\r\n"):
    (document,), _ = read_bytes(folder, response("x", html, headers))
    return document


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "one-member.warc.gz", "crawl.warc"])
def test_pages_become_documents_and_other_records_are_counted(tmp_path, name):
    records = [
        record("i", b"software: by hand\r\n", kind="warcinfo", content_type="application/warc-fields"),
        record("q", b"GET /a HTTP/1.1\r\n\r\n", kind="request", content_type="application/http; msgtype=request"),
        page("a"),
        page("gone", status="404 Not Found"),
        response("image", b"\x89PNG", "Content-Type: image/png\r\n"),
        response("plain", "Nur Text.", "Content-Type: text/plain\r\n"),
        record("m", b"fetchTimeMs: 5\r\n", kind="metadata", content_type="application/warc-fields"),
        record("r", PAGE.format("A resource.").encode(), kind="resource", content_type="text/html"),
        page("a-again", extra="WARC-Unheard-Of: 1\r\n"),
    ]
    compress = gzip.compress if name.endswith(".gz") else bytes
    content = compress(b"".join(records)) if "one" in name else b"".join(map(compress, records))
    ignored = collections.Counter()
    documents, quarantined = read_bytes(tmp_path, content, name, ignored=ignored, version="3")
    assert [(each.row, each.text) for each in documents] == [
        *((3, "This is page a."), (6, "Nur Text."), (8, "A resource."), (9, "This is page a-again.")),
    ]
    assert not quarantined
    assert ignored == {
        "record_warcinfo": 1,
        "record_request": 1,
        "record_metadata": 1,
        "status_404": 1,
        "content_type": 1,
    }
    first = documents[0]
    assert first.document_id == document_id("crawl", "3", "<urn:uuid:a>")
    assert (first.url, first.crawl_date) == ("https://a.example/a", "2024-03-04")


def test_converted_records_are_taken_as_they_are(tmp_path):
    text = "Erste Zeile <b>kein Markup</b>\nзweite Zeile\n"
    content = record("w", text.encode(), kind="conversion", content_type="text/plain")
    bad = record("v", b"\xe9t\xe9", kind="conversion", content_type="text/plain")
    (document,), quarantined = read_bytes(tmp_path, gzip.compress(content) + gzip.compress(bad), "a.warc.wet.gz")
    assert document.text == text.strip() and document.url == "https://a.example/w"
    assert quarantined == [(2, "invalid_encoding")]


def test_consent_is_collected_from_headers_and_tags(tmp_path):
    html = """<html><head><meta name="Robots" content="noindex"><meta name="robots" content="noai">
      <meta name="tdm-reservation" content="1"><meta name="GPTBot" content="noml"><meta name="author" content="Ann">
      </head><body><p>Text.</p></body></html>"""
    headers = (
        "Content-Type: text/html\r\nX-Robots-Tag: noai\r\nx-robots-tag: gptbot: noindex\r\nTDM-Reservation: 1\r\n"
        "TDM-Policy: https://a.example/p.json\r\nContent-Usage: train-ai=n\r\nSet-Cookie: a=secret\r\nServer: x\r\n"
    )
    document = read_page(tmp_path, html, headers)
    assert document.headers == {
        "content-type": "text/html",
        "x-robots-tag": "noai, gptbot: noindex",
        "tdm-reservation": "1",
        "tdm-policy": "https://a.example/p.json",
        "content-usage": "train-ai=n",
    }
    assert document.meta_tags == {"robots": "noindex, noai", "tdm-reservation": "1", "gptbot": "noml"}


BY, ZERO = "https://creativecommons.org/licenses/by/4.0/", "//creativecommons.org/publicdomain/zero/1.0/"


@pytest.mark.parametrize(
    "html, links",
    [
        (f'<p>Text. <a rel="license" href="{BY}">licence</a></p>', (BY,)),
        ('<p>Text. <a rel="nofollow license" href="/terms">licence</a></p>', ("/terms",)),
        (f'<head><link rel="license" href="{ZERO}"></head><p>Text.</p>', (ZERO,)),
        (f'<head><meta name="dcterms.license" content="{BY}"></head><p>Text.</p>', (BY,)),
        (
            f'<p>Text under <a href="{BY}">BY</a> and <a href="{ZERO}">zero</a> and <a href="{BY}">BY</a></p>',
            (BY, ZERO),
        ),
        # A declaration may stand in a footer, a mere link there is not one.
        (f'<p>Text.</p><footer><a rel="license" href="{BY}">licence</a></footer>', (BY,)),
        (f'<p>Text.</p><footer><div><a href="{BY}">about</a></div></footer>', ()),
        (f'<nav><a rel="license" href="{BY}">our licence</a></nav><p>Text.</p>', ()),
        (f'<p>Text.</p><div class="comment-list comments"><p><a rel="license" href="{BY}">mine</a></p></div>', ()),
        ('<p>Text. <a href="https://other.example/creativecommons.org/licenses/by/4.0/">x</a></p>', ()),
        ('<p>Text. <a href="https://creativecommons.org/about">x</a> <a rel="licensee" href="/y">y</a></p>', ()),
    ],
)
def test_licences_are_collected_where_they_are_declared(tmp_path, html, links):
    assert read_page(tmp_path, f"<html>{html}</html>").licence_links == links


def test_licences_are_collected_from_link_headers(tmp_path):
    headers = f'Content-Type: text/html\r\nLink: </style.css>; rel=preload, <{BY}>; title="a"; rel="license"\r\n'
    assert read_page(tmp_path, PAGE.format("Text."), headers).licence_links == (BY,)


@pytest.mark.parametrize(
    "declared, body, expected",
    [
        ("utf-8", "Grüße, κόσμε".encode(), "Grüße, κόσμε"),
        ("ISO-8859-1", "Grüße".encode("latin-1"), "Grüße"),
        ("windows-1251", "Привет, мир".encode("cp1251"), "Привет, мир"),
        ("shift_jis", "こんにちは世界".encode("shift_jis"), "こんにちは世界"),
        ("gb2312", "你好,世界".encode("gb18030"), "你好,世界"),
        # A byte order mark beats what the header says.
        ("latin-1", "Grüße".encode("utf-8-sig"), "Grüße"),
        ("utf-8", b"\xff\xfe" + "<p>Grüße</p>".encode("utf-16-le"), "Grüße"),
        # Nothing, or nothing known, is declared.
        ("", "Привет, мир. Как дела? Это страница о погоде.".encode(), "Привет, мир. Как дела? Это страница о погоде."),
        ("no-such-charset", "Grüße".encode(), "Grüße"),
    ],
)
def test_pages_are_decoded_as_browsers_do(tmp_path, declared, body, expected):
    headers = f"Content-Type: text/html{'; charset=' if declared else ''}{declared}\r\n"
    assert read_page(tmp_path, body, headers).text == expected


def test_the_encoding_may_stand_in_the_page(tmp_path):
    html = '<html><head><meta charset="windows-1252"></head><body><p>Größe: 5 €</p></body></html>'.encode("cp1252")
    assert read_page(tmp_path, html, "Content-Type: text/html\r\n").text == "Größe: 5 €"


def test_boilerplate_is_left_out_unless_it_is_all_there_is(tmp_path):
    content = "<nav><a href='/'>Home</a></nav><main><p>The text.</p></main><footer>Imprint</footer>"
    assert read_page(tmp_path, f"<html><body>{content}</body></html>").text == "The text."
    (document,), _ = read_bytes(tmp_path, response("x", f"<body>{content}</body>"), main_content=False)
    assert "Home" in document.text and "Imprint" in document.text
    assert read_page(tmp_path, "<html><body><nav>Only this</nav></body></html>").text == "Only this"


@pytest.mark.parametrize(
    "coding, encode",
    [
        ("Content-Encoding: gzip", gzip.compress),
        ("Transfer-Encoding: chunked", lambda body: b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
        ("Content-Encoding: gzip", lambda body: body),  # a crawler that undid the coding and left the header
    ],
)
def test_codings_of_responses_are_undone(tmp_path, coding, encode):
    body = encode(PAGE.format("Coded text.").encode())
    assert read_page(tmp_path, body, f"Content-Type: text/html\r\n{coding}\r\n").text == "Coded text."


BROKEN_PLAIN = {
    "longer than it says": (record("x", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500, length=40), "damaged_record"),
    "shorter than it says": (page("x", length=5000), "damaged_record"),
    "a length that is no number": (page("x", length="many"), "damaged_record"),
    "no record at all": (b"not a record\r\n" * 50, "damaged_record"),
    "no response": (record("x", b"nothing like HTTP"), "damaged_record"),
    "coded badly": (response("x", b"\x1f\x8b\x08bad", "Content-Encoding: gzip\r\n"), "damaged_record"),
    "another encoding": (
        response("x", b"<p>" + b"\xff\xe9\x81" * 90, "Content-Type: text/html; charset=utf-8\r\n"),
        None,
    ),
    "no address": (page("x").replace(b"https://a.example/x", b"https:///x"), "url_without_host"),
    "from the future": (page("x").replace(b"2024-03-04", b"2031-03-04"), "future_date"),
    "nothing to read": (response("x", "<html><body><script>1</script></body></html>"), "empty_text"),
    "very many attributes": (response("x", f"<p {' '.join(map('a{}=1'.format, range(9999)))}>x"), "page_too_complex"),
}


@pytest.mark.parametrize("name", BROKEN_PLAIN)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_records_around_a_broken_one_are_read(tmp_path, name, suffix):
    broken, reason = BROKEN_PLAIN[name]
    compress = gzip.compress if suffix else bytes
    content = b"".join(map(compress, [page("a"), page("b"), broken, page("c"), page("d")]))
    documents, quarantined = read_bytes(tmp_path, content, f"a.warc{suffix}")
    texts = [each.text for each in documents if each.url != "https://a.example/x"]
    assert texts == [f"This is page {name}." for name in "abcd"]
    if reason is not None:
        assert quarantined == [(3, reason)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.data())
def test_a_damaged_member_costs_one_record(tmp_path_factory, victim, data):
    members = [gzip.compress(page(name)) for name in "abcde"]
    damaged = bytearray(members[victim])
    start = data.draw(st.integers(10, len(damaged) - 1))
    flipped = data.draw(st.lists(st.integers(1, 255), min_size=1, max_size=20))
    for offset, bits in enumerate(flipped):
        if start + offset < len(damaged):
            damaged[start + offset] ^= bits
    members[victim] = bytes(damaged)
    documents, quarantined = read_bytes(tmp_path_factory.mktemp("w"), b"".join(members), "a.warc.gz")
    expected = [f"This is page {name}." for name in "abcde"]
    del expected[victim]
    assert [each.text for each in documents] == expected
    # Where the end of the last member is damaged too, what it held is one line and that it does not end another.
    assert quarantined[0][0] == victim + 1 and len(quarantined) <= (2 if victim == 4 else 1)
    assert {reason for _, reason in quarantined} <= {"damaged_file", "damaged_record", "truncated_file"}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_a_cut_archive_gives_the_records_before_the_cut(tmp_path_factory, data, is_compressed):
    records = [page(name) for name in "abcde"]
    members = [gzip.compress(each) for each in records] if is_compressed else records
    content = b"".join(members)
    cut = data.draw(st.integers(1, len(content) - 1))
    name = f"a.warc{'.gz' if is_compressed else ''}"
    documents, quarantined = read_bytes(tmp_path_factory.mktemp("w"), content[:cut], name)
    # The blank lines behind a record are no loss, the check sum of a member is one.
    whole = [sum(map(len, members[: number + 1])) - (0 if is_compressed else 4) for number in range(5)]
    ends = [sum(map(len, members[: number + 1])) for number in range(5)]
    kept = sum(end <= cut for end in whole)
    assert [each.text[-2] for each in documents][:kept] == list("abcde"[:kept])
    assert len(documents) in (kept, kept + 1) if is_compressed else len(documents) == kept
    if cut in ends or (not is_compressed and any(end <= cut <= end + 4 for end in whole)):
        assert not quarantined
    else:
        assert len(quarantined) == 1 and quarantined[0][1] in ("truncated_file",)


def test_records_and_pages_that_are_too_large_are_passed_over(tmp_path):
    limits = Limits(text_bytes=2_000, record_bytes=1_000_000, expansion_free_bytes=1 << 30, expansion=100)
    huge = PAGE.format("x" * 3_000_000).encode()
    headers = "Content-Type: text/html\r\nContent-Encoding: gzip\r\n"
    records = [page("a"), response("x", huge), page("b"), response("y", gzip.compress(huge), headers), page("c")]
    records += [response("z", PAGE.format("x" * 3_000)), page("d")]
    for name, compress in (("a.warc", bytes), ("b.warc.gz", gzip.compress)):
        documents, quarantined = read_bytes(tmp_path, b"".join(map(compress, records)), name, limits=limits)
        assert [each.text[-2] for each in documents] == list("abcd")
        assert quarantined == [(2, "record_too_large"), (4, "decompression_bomb"), (6, "text_too_large")]


HOSTILE_PAGES = pytest.mark.parametrize(
    "html",
    [
        "<div>" * 100_000 + "hello",
        "<article><div>" * 50_000 + "hello",
        "<p>hello" + "<a href=x>" * 100_000,
        "hello" + "<" * 1_000_000,
        "hello<a b='" * 100_000,
        "hello" + "<a rel=license href=x>" * 100_000,
        "<p>hello <p " + "a " * 500_000,
    ],
)


@pytest.mark.timed
@HOSTILE_PAGES
def test_hostile_pages_take_no_longer_than_their_size_allows(tmp_path, html):
    assert_bounded(lambda: read_bytes(tmp_path, response("x", html) + page("a")), 10)


@HOSTILE_PAGES
def test_page_after_a_hostile_one_is_read(tmp_path, html):
    documents, quarantined = read_bytes(tmp_path, response("x", html) + page("a"))
    assert documents[-1].text == "This is page a."
    assert len(documents) + len(quarantined) == 2


LIKE_MEMBERS = b"\x1f\x8b\x08\x00" * 100_000


def test_bytes_that_look_like_members_do_not_stop_the_reader(tmp_path):
    content = gzip.compress(page("a")) + LIKE_MEMBERS + gzip.compress(page("b"))
    documents, quarantined = read_bytes(tmp_path, content, "a.warc.gz")
    assert documents[0].text == "This is page a." and quarantined[0] == (2, "damaged_file")


@pytest.mark.timed
def test_bytes_that_look_like_members_take_bounded_time(tmp_path):
    content = gzip.compress(page("a")) + LIKE_MEMBERS + gzip.compress(page("b"))
    assert_bounded(lambda: read_bytes(tmp_path, content, "a.warc.gz"), 10)

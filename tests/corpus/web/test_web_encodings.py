"""The encodings of the web, held against a browser: whole tables, malformed sequences, labels, and pages in them."""

import hashlib
import json
from pathlib import Path

import pytest
import webencodings.labels

from apertus_jax.corpus.web import encodings
from apertus_jax.corpus.web.page_encoding import decode_page, encoding_in_page
from tests.corpus.sources.web_archive_records import read_bytes, record, response
from tests.corpus.web import encoding_sequences as asked

DIGESTS = json.loads((Path(__file__).parent / "web_encodings" / "digests.json").read_text())
SAMPLE = {"shift_jis": "①番から", "euc-kr": "펲", "big5": "喺", "windows-874": "“ไทย”", "x-mac-cyrillic": "Привет"}


@pytest.fixture(scope="module")
def decoded():
    """Encoding → (every sequence that is asked, what we make of each)."""
    asked_of = {encoding: asked.sequences(encoding) for encoding in asked.ENCODINGS}
    return {name: (all_, [encodings.decode(each, name)[0] for each in all_]) for name, all_ in asked_of.items()}


def test_every_sequence_of_every_table_is_read_as_a_browser_does(decoded):
    found = {encoding: asked.digest_of(texts) for encoding, (_, texts) in decoded.items()}
    assert found == {encoding: digests["sequences"] for encoding, digests in DIGESTS["encodings"].items()}


def test_the_digests_notice_one_wrong_character(decoded):
    sequences, texts = decoded["big5"]
    place = sequences.index(b"\xa1\x45")
    texts = [*texts[:place], "\u2022", *texts[place + 1 :]]  # as Python's own codec has it
    assert asked.digest_of(texts) != DIGESTS["encodings"]["big5"]["sequences"]


def test_labels_mean_what_they_mean_to_a_browser():
    names = {label: encodings.find_encoding(label) for label in sorted(webencodings.labels.LABELS)}
    # A TextDecoder refuses the encoding that stands for dangerous ones.
    found = {label: None if name == encodings.REPLACEMENT else name for label, name in names.items()}
    text = json.dumps(found, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS["labels"]
    assert encodings.find_encoding("\tUTF8\n") == "utf-8" and encodings.find_encoding("no-such") is None


FORMS = {
    "header": ("", "; charset={}"),
    "meta": ('<meta charset="{}">', ""),
    "http-equiv": ("<META http-equiv='Content-Type' content='text/html; charset={}'>", ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_pages_in_every_encoding_are_read_whole(tmp_path, decoded, form):
    head, parameter = FORMS[form]
    chosen = [each for each in asked.ENCODINGS if form == "header" or each not in ("x-user-defined", *asked.UNICODE)]
    assert len(chosen) >= 15
    records = []
    for encoding in chosen:
        body = asked.page(encoding, asked.characters(*decoded[encoding]), head.format(encoding))
        records.append(response(encoding, body, f"Content-Type: text/html{parameter.format(encoding)}\r\n"))
    documents, quarantined = read_bytes(tmp_path, b"".join(records))
    assert not quarantined
    found = {each.url.rpartition("/")[2]: asked.digest_of([asked.without_layout(each.text)]) for each in documents}
    assert found == {encoding: DIGESTS["encodings"][encoding]["page"] for encoding in chosen}


@pytest.mark.parametrize("encoding", SAMPLE)
def test_plain_text_is_read_in_the_encodings_of_pages(tmp_path, encoding):
    body = SAMPLE[encoding].encode(
        {"windows-874": "cp874", "x-mac-cyrillic": "mac-cyrillic", "shift_jis": "cp932"}.get(
            encoding, {"euc-kr": "cp949", "big5": "big5hkscs"}.get(encoding, encoding)
        )
    )
    headers = f"Content-Type: text/plain; charset={encoding}\r\n"
    resource = record("r", body, kind="resource", content_type=f'text/plain;charset="{encoding.upper()}"')
    documents, _ = read_bytes(tmp_path, response("x", body, headers) + resource)
    assert [each.text for each in documents] == [SAMPLE[encoding]] * 2


@pytest.mark.parametrize(
    "mark, codec", [(b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")]
)
def test_a_byte_order_mark_beats_every_label(mark, codec):
    page = "<meta charset=koi8-r><p>Grüße</p>"
    assert decode_page(mark + page.encode(codec), "windows-1251", is_html=True) == page


@pytest.mark.parametrize(
    "head, expected",
    [
        (b"<meta charset=koi8-r>", "koi8-r"),
        (b"<META\nCHARSET = 'KOI8-R' >", "koi8-r"),
        (b'<meta content="text/html; charset=koi8-u" http-equiv="content-type">', "koi8-u"),
        (b'<meta name="x" content="charset=koi8-r"><meta charset="big5">', "big5"),
        (b"<!-- <meta charset=koi8-r> --><meta charset=big5>", "big5"),
        (b"<script>'<meta charset=koi8-r>'</script><meta charset=big5>", "big5"),
        (b"<meta charset=no-such><meta charset=big5>", "big5"),
        (b"<meta charset=big5 charset=koi8-r>", "big5"),
        (b"<meta charset=utf-16>", "utf-8"),
        (b"<meta charset=x-user-defined>", "windows-1252"),
        (b'<?xml version="1.0" encoding="ISO-8859-2"?><html>', "iso-8859-2"),
        (b"<?xml version='1.0' encoding='ISO-8859-2'?><meta charset=big5>", "big5"),
        (b"<\0?\0x\0m\0l\0", "utf-16le"),
        (b"<p>charset=koi8-r", None),
    ],
)
def test_a_page_says_its_encoding_as_the_html_standard_reads_it(head, expected):
    assert encoding_in_page(head) == expected


@pytest.mark.parametrize(
    "body, charset, expected",
    [
        # One malformed sequence does not change the encoding, and takes no markup with it.
        (("日本語の文章。" * 400).encode("shift_jis") + b"\x81<p>", "shift_jis", "日本語の文章。" * 400 + "\ufffd<p>"),
        (b"<p>" + b"a" * 2000 + b"\xe4\xb8<b>", "utf-8", "<p>" + "a" * 2000 + "\ufffd<b>"),
        # The bytes that vendors left free are control characters, unless the text is valid UTF-8.
        (b"a\x81b\xe9", "windows-1252", "a\x81bé"),
        ("“Größe”".encode(), "iso-8859-1", "“Größe”"),
        ("Größe".encode("cp1252"), "us-ascii", "Größe"),
        ("<p>Größe</p>".encode(), "utf-16", "<p>Größe</p>"),
        # Nothing is declared.
        ("Grüße, Welt".encode("utf-16-le"), "", "Grüße, Welt"),
        ("<p>plain</p>".encode("utf-16-be"), "", "<p>plain</p>"),
        (("日本語の文章。" * 40).encode("iso-2022-jp"), "", "日本語の文章。" * 40),
        (("한국어 문장입니다. 안녕하세요. " * 40).encode("cp949"), "", "한국어 문장입니다. 안녕하세요. " * 40),
        # Encodings that browsers do not read, for what they would hide, and bytes that are in none.
        (b"abc", "iso-2022-kr", None),
        (b"\xff\xe9\x81" * 90, "utf-8", None),
    ],
)
def test_bodies_are_read_as_declared_and_as_they_are(body, charset, expected):
    assert decode_page(body, charset, is_html=True) == expected


@pytest.mark.parametrize(
    "sequence, encoding, expected",
    [
        # Where Chromium errs: the two code points of Big5, the flag of EUC-JP, and escape sequences that are none.
        (b"\x88\x62\x88\x64\x88\xa3\x88\xa5", "big5", "\xca\u0304\xca\u030c\xea\u0304\xea\u030c"),
        (b"\x8f\xa1\x30\xa1\xa1", "euc-jp", "\ufffd0\u3000"),
        (b"\x8f\xa1\xff\xa4\xa2", "euc-jp", "\ufffd\u3042"),
        (b"a\x1b(\xbe$", "iso-2022-jp", "a\ufffd(\ufffd$"),
        (b"\x1b(I!\x1b\x18A", "iso-2022-jp", "\uff61\ufffd\ufffd\uff81"),
        (b"\x1b$B\x1b(B", "iso-2022-jp", "\ufffd"),
        (b"\x1b", "iso-2022-jp", "\ufffd"),
    ],
)
def test_the_standard_counts_where_the_browser_errs(sequence, encoding, expected):
    assert encodings.decode(sequence, encoding)[0] == expected


def test_malformed_sequences_are_counted():
    assert encodings.decode(b"a\xffb\xef\xbf\xbd", "utf-8") == ("a\ufffdb\ufffd", 1)
    assert encodings.decode(b"\x84\x31\xa4\x37\xff", "gb18030") == ("\ufffd\ufffd", 1)
    assert encodings.decode(b"\x00\xd8a\x00\x00", "utf-16le") == ("\ufffda\ufffd", 2)

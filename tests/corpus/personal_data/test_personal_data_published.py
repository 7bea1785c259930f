"""Mode `apertus` equals a literal re-statement of the published formatter, faults included."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.personal_data import PersonalDataPolicy, rewrite

APERTUS = PersonalDataPolicy("apertus")

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
OCTET = r"25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?"
EXPRESSIONS = {
    "email": rf"\b{ATOM}(?:\.{ATOM})*@(?:(?:{LABEL}\.)+{LABEL}"
    rf"|\[(?:(?:{OCTET})\.){{3}}(?:{OCTET}|[A-Za-z0-9-]*[A-Za-z0-9]:)])",
    "ip": rf"(?:(?:{OCTET})\.){{3}}(?:{OCTET})",
    "iban": r"[A-Z]{2}[0-9]{2}(?: [0-9]{4}){4} [A-Z0-9]{1,2}",
}


def formatter(text):
    """Finds all of one kind, replaces hit after hit in the whole text, and goes on to the next kind."""
    counts = {}
    for kind, expression in EXPRESSIONS.items():
        hits = list(dict.fromkeys(re.findall(expression, text)))
        for hit in hits:
            text = text.replace(hit, f"<{kind}-pii>")
        counts[kind] = len(hits)
    return text, counts


VECTORS = [
    ("1.2.3.4.5", "<ip-pii>.5"),
    ("999.1.2.3", "9<ip-pii>"),
    ("section 3.14.15.92", "section <ip-pii>"),
    ("10.0.0.1 and 127.0.0.1", "<ip-pii> and <ip-pii>"),
    ("2001:4860:4860::8888", "2001:4860:4860::8888"),
    ("DE00 3704 0044 0532 0130 00", "<iban-pii>"),
    ("CH93 0076 2011 6238 5295 7", "<iban-pii>"),
    ("ES91 2100 0418 4502 0005 1332", "<iban-pii>32"),
    ("GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 32"),
    ("DE89370400440532013000", "DE89370400440532013000"),
    ("müller@x.de mueller@x.de", "müller@x.de <email-pii>"),
    ("a@b.co and a@b.com", "<email-pii> and <email-pii>m"),
    ("1.1.1.1 in 21.1.1.12", "<ip-pii> in 2<ip-pii>2"),
    ("a@[10.0.0.1] a@[1.1.1.tag:]", "<email-pii> <email-pii>"),
]

PIECES = [
    *(
        "a@b.co",
        "a@b.com",
        "xa@b.co",
        "@",
        ".",
        "..",
        "a",
        "é",
        "-",
        "_",
        "b.co",
        "@c.de",
        "[",
        "]",
        "a@[1.1.1.1]",
        "x:]",
    ),
    *("1.1.1.1", "21.1.1.12", "1.2.3.4.5", "256", "25", "199.", "1", "9.9", ".1.1", " ", "<", "<email-pii>", "٣"),
    *("CH93 0076 2011 6238 5295 7", "DE00 3704 0044 0532 0130 00", "DE00 3704", " 0044", "A7", " 5295 7", "12 3456"),
]
texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PIECES), max_size=16).map("".join),
    st.text(alphabet="a@b.é-[]: ", max_size=30),
    st.text(alphabet="125.69 ", max_size=60),
)


@pytest.mark.parametrize(("text", "expected"), VECTORS)
def test_published_faults_are_reproduced(text, expected):
    assert rewrite(text, APERTUS).text == expected == formatter(text)[0]


@settings(max_examples=1000, deadline=None)
@given(texts)
def test_apertus_mode_equals_the_literal_formatter(text):
    result = rewrite(text, APERTUS)
    assert (result.text, result.counts) == formatter(text)


@settings(max_examples=500, deadline=None)
@given(texts)
def test_apertus_spans_are_offsets_of_the_given_text(text):
    result = rewrite(text, APERTUS)
    rebuilt, position = "", 0
    for span in result.spans:
        assert position <= span.start < span.end
        rebuilt += text[position : span.start] + f"<{span.kind}-pii>"
        position = span.end
    assert rebuilt + text[position:] == result.text


def test_counts_are_of_distinct_values():
    assert rewrite("8.8.8.8 8.8.8.8 9.9.9.9", APERTUS).counts == {"email": 0, "ip": 2, "iban": 0}

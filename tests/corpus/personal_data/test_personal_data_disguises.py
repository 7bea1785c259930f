"""No spelling hides a value: invisible characters, look-alikes, digits of other scripts, escapes."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.personal_data import KINDS, PersonalDataPolicy, rewrite
from apertus_jax.corpus.personal_data.disguises import FoldedText
from apertus_jax.corpus.personal_data.spans import Span
from tests.processor_time import assert_linear, repeated

EVERYTHING = PersonalDataPolicy(kinds=KINDS)
VALUES = {
    "email": "anna@example.org",
    "ip": "8.8.4.4",
    "iban": "CH9300762011623852957",
    "ahv": "756.9217.0769.85",
    "card": "4111111111111111",
    "phone": "+41446681800",
}
INVISIBLE = [*"\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202c\u2060\u2063\u2066\u2069\ufeff\ufe0f\u034f\u061c\u180e"]


@pytest.mark.parametrize("kind", VALUES)
def test_invisible_characters_hide_no_value(kind):
    value = VALUES[kind]
    for hidden in INVISIBLE:
        for place in range(1, len(value)):
            assert rewrite(f"a {value[:place]}{hidden}{value[place:]}, b", EVERYTHING).text == f"a <{kind}-pii>, b"
        everywhere = hidden.join(value)
        assert rewrite(everywhere, EVERYTHING).text == f"<{kind}-pii>"
        around = rewrite(f"{hidden}{value}{hidden}", EVERYTHING).text
        assert around.strip(hidden) == f"<{kind}-pii>"  # a combining mark is a part of an address


@pytest.mark.parametrize("kind", VALUES)
def test_wide_letters_and_digits_hide_no_value(kind):
    wide = "".join(chr(ord(character) + 0xFEE0) for character in VALUES[kind])
    assert unicodedata.normalize("NFKC", wide) == VALUES[kind]
    assert rewrite(f"連絡先：{wide} です", EVERYTHING).text == f"連絡先：<{kind}-pii> です"


@pytest.mark.parametrize("kind", ["ip", "ahv", "card", "phone"])
@pytest.mark.parametrize("zero", ["\u0660", "\u06f0", "\u0966", "\u09e6", "\u0e50", "\uff10", "\U0001d7ce"])
def test_digits_of_any_script_hide_no_value(kind, zero):
    digits = VALUES[kind].translate({48 + value: chr(ord(zero) + value) for value in range(10)})
    assert rewrite(f"x: {digits}.", EVERYTHING).text == f"x: <{kind}-pii>."


@pytest.mark.parametrize("gap", [*"\u2002\u2007\u2009\u200a\u205f\u3000\u2010\u2011\u2012\u2013\u2212"])
@pytest.mark.parametrize(
    "kind, grouped",
    [("iban", "CH93 0076 2011 6238 5295 7"), ("card", "4111 1111 1111 1111"), ("card", "3782 822463 10005")]
    + [("ahv", "756 9217 0769 85"), ("phone", "+41 44 668 18 00"), ("phone", "044 668 18 00")],
)
def test_unusual_gaps_hide_no_number(kind, grouped, gap):
    assert rewrite(f"x {grouped.replace(' ', gap)}.", EVERYTHING).text == f"x <{kind}-pii>."


@pytest.mark.parametrize(
    "kind, grouped", [("iban", "CH93\u00a00076 2011 6238 5295 7"), ("card", "4111\u00a01111 1111 1111")]
)
def test_mixed_gaps_hide_no_number(kind, grouped):
    assert rewrite(grouped, PersonalDataPolicy()).text == f"<{kind}-pii>"


@pytest.mark.parametrize(
    "text",
    ["anna%40example.org", "anna&#64;example.org", "anna&#x40;example.org", "anna&commat;example.org"]
    + ["anna\uff20example.org", "anna\ufe6bexample.org", "anna@example\uff0eorg", "anna@example\u3002org"]
    + ["an\u200bna@example.org", "jürgen\u00ad.müller@bücher\u00ad.example", "анна\u200b@пример.рф"],
)
def test_disguised_signs_hide_no_address(text):
    assert rewrite(f"to {text} now", EVERYTHING).text == "to <email-pii> now"


@pytest.mark.parametrize(
    "text",
    ["Soft\u00adware im Jahr 1990–1995, 12\u202f000\u202f000 Stück", "می\u200cشود و نمی\u200cخواهم", "٢٠٢٤-٠١-٠٥"]
    + [
        "今日は＠ホーム。楽しい",
        "２０２４年１月１日",
        "8\u2013\u20098\u200b5\u20134",
        "tel\u00ad:\u00ad12",
        "a%40b",
        "&#64;",
    ],
)
def test_ordinary_text_with_such_characters_stays(text):
    assert rewrite(text, EVERYTHING).text == text


PIECES = [
    *INVISIBLE[:6],
    "%40",
    "&#64;",
    "\uff20",
    "\u3002",
    "\uff0e",
    "\u2009",
    "\u2013",
    "\u00a0",
    "\u0661",
    "\uff11",
]
PIECES += ["anna@example.org", "8.8.4.4", "CH93", "0076", "2011", "6238", "5295", "7", "4111", "1111", "756", ".9217"]
PIECES += [".0769.85", "+41", "44", " ", "a", "@", ".", "-", ":", "<ip-pii>", "<email-pii>", "2400:cb00::9", "版"]
texts = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)


@settings(max_examples=2000, deadline=None)
@given(texts)
def test_disguised_values_are_replaced_once_for_all(text):
    once = rewrite(text, EVERYTHING)
    assert rewrite(once.text, EVERYTHING).text == once.text
    assert sum(once.counts.values()) == len(once.spans)


@settings(max_examples=500, deadline=None)
@given(texts)
def test_spans_of_folded_text_lead_back(text):
    folded = FoldedText(text)
    for start in range(len(folded.text)):
        span = folded.span(Span(start, start + 1, "ip"))
        assert 0 <= span.start < span.end <= len(text)
        assert FoldedText(text[span.start : span.end]).text in (folded.text[start], text[span.start : span.end])


@pytest.mark.parametrize(
    "piece", ["\u200b", "a\u200b", "1\u200b", "@\u200b", "\uff20", "1\u2013", "\u0661.", "%40", "&#64;"]
)
@pytest.mark.timed
def test_time_is_linear_on_disguises(piece):
    assert_linear(lambda text: rewrite(text, EVERYTHING), repeated(piece), 10_000)

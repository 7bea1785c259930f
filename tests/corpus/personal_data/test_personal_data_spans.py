"""Properties of the rewriting: idempotent, offsets right, overlaps as by brute force, linear, nothing left behind."""

import itertools
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.personal_data import KINDS, MARKERS, PersonalDataPolicy, Span, rewrite, rewrite_url
from apertus_jax.corpus.personal_data.rewriting import FINDERS
from apertus_jax.corpus.personal_data.spans import resolve_overlaps
from tests.processor_time import assert_linear, repeated

EVERYTHING = PersonalDataPolicy(kinds=KINDS)
STRICT = PersonalDataPolicy()

# Pieces that make candidates of every kind, glued in every way, among separators, markers and digits of other scripts.
PIECES = [
    *(
        "anna@x.org",
        "a@b.com",
        "@",
        "@c.com",
        "x.y",
        "foo",
        ".com",
        "user@[",
        "]",
        "müller",
        "用户",
        "@例子.公司",
        "xn--p1",
    ),
    *("8.8.8.8", "9.9.9", ".9", "1.2.3.4.5", "10.0.0.1", "2001:4860:4860::8888", "2a00:", "::", ":1", "fe80"),
    *("CH93 0076 2011 6238 5295 7", "BE68539007547034", "BE68", " 5390 0754 7034", "DE89-3704-0044-0532-0130-00"),
    *("756.9217.0769.85", "7569217076985", "756", ".9217.0769.85", "4111 1111 1111 1111", "4111", " 1111", "-1111"),
    *("5500-0000-0000-0004", "378282246310005", "+41 44 668 18 00", "0041", "079 123 45 67", "+1", "(212)", "555"),
    *(
        " ",
        ".",
        "-",
        "_",
        "/",
        ":",
        ",",
        "\n",
        "\u00a0",
        "\u202f",
        "+",
        "(",
        "<",
        ">",
        "..",
        "version ",
        "§ ",
        "٣",
        "𝟗",
    ),
    *("foo==", "ip==", ".so.", "[", "Figure ", "git@", ":a/b.git", ":b/", "ssh://", '"', "::93.184.216.34", "%eth0"),
    *(
        "2400:cb00",
        "IPv6:",
        "foo-",
        "Chrome/",
        ".tar.gz",
        "-beta",
        " and ",
        "anna@",
        "from x.org ",
        "anna@8.8.8.8",
        "==",
    ),
    *MARKERS.values(),
]
texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=14).map("".join),
    st.text(alphabet="0123456789 .:-@abXx<>+\u00a0", max_size=60),
)


@settings(max_examples=1000, deadline=None)
@given(texts)
def test_rewriting_twice_is_rewriting_once(text):
    once = rewrite(text, EVERYTHING)
    twice = rewrite(once.text, EVERYTHING)
    assert twice.text == once.text
    assert twice.spans == ()


@settings(max_examples=300, deadline=None)
@given(texts, st.sets(st.sampled_from(KINDS)))
def test_rewriting_twice_is_rewriting_once_for_all_kinds(text, kinds):
    policy = PersonalDataPolicy(kinds=tuple(kinds))
    once = rewrite(text, policy).text
    assert rewrite(once, policy).text == once


@settings(max_examples=300, deadline=None)
@given(texts)
def test_spans_are_offsets_of_the_given_text(text):
    result = rewrite(text, EVERYTHING)
    rebuilt, position = [], 0
    for span in result.spans:
        assert position <= span.start < span.end <= len(text)
        rebuilt += [text[position : span.start], MARKERS[span.kind]]
        position = span.end
    assert "".join([*rebuilt, text[position:]]) == result.text
    assert result.counts == {kind: sum(span.kind == kind for span in result.spans) for kind in KINDS}


@settings(max_examples=300, deadline=None)
@given(texts)
def test_nothing_that_a_finder_accepts_is_left(text):
    covered = {place for span in rewrite(text, EVERYTHING).spans for place in range(span.start, span.end)}
    for find in FINDERS.values():
        for span in find(text):
            assert covered.issuperset(range(span.start, span.end))


spans = st.builds(
    lambda start, length, kind: Span(start, start + length, kind),
    st.integers(0, 30),
    st.integers(1, 8),
    st.sampled_from(KINDS),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(spans, max_size=9))
def test_overlap_resolution_equals_brute_force(candidates):
    # Brute force: grow groups until no two share a character; the longest, then first, member names the group.
    groups = [[candidate] for candidate in candidates]
    places = [set(range(candidate.start, candidate.end)) for candidate in candidates]
    while pair := next(
        ((a, b) for a, b in itertools.combinations(range(len(groups)), 2) if places[a] & places[b]), None
    ):
        a, b = pair
        groups[a] += groups.pop(b)
        places[a] |= places.pop(b)
    expected = []
    for group, place in zip(groups, places, strict=True):
        winner = min(group, key=lambda span: (-(span.end - span.start), span.start, KINDS.index(span.kind)))
        expected.append(Span(min(place), max(place) + 1, winner.kind))
    assert resolve_overlaps(candidates) == sorted(expected)


@settings(max_examples=300, deadline=None)
@given(st.one_of(texts, st.lists(st.sampled_from([*PIECES, "%40", "%2540", "%20", "?", "=", "&", "#"])).map("".join)))
def test_url_rewriting_twice_is_rewriting_once(text):
    for url in (text, "https://h.org/" + text, "https://h.org/?q=" + text):
        once = rewrite_url(url, STRICT)
        assert rewrite_url(once, STRICT) == once


def test_planted_values_are_nowhere_in_the_result():
    planted = ["anna.muster@example.org", "8.8.4.4", "DE89 3704 0044 0532 0130 00", "756.9217.0769.85"]
    text = "ä🎉 Zeile\n" + " und ".join(planted) + " Ende"
    result = rewrite(text, STRICT)
    assert [text[span.start : span.end] for span in result.spans] == planted
    assert not any(value in repr(result) for value in planted)


HOSTILE = {
    "at signs": "@",
    "halves of addresses": "a@",
    "almost addresses": "a@b.",
    "addresses": "anna@example.org ",
    "one long word": "a.",
    "dots and digits": "1.",
    "digits": "4",
    "groups of four": "4111 ",
    "colons": ":",
    "groups of an address": "2001:",
    "account heads": "BE68",
    "plus signs": "+4",
    "zeros": "001 ",
    "markers": "<ip-pii>",
    "756": "756",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("mode", ["strict", "apertus"])
@pytest.mark.timed
def test_time_is_linear_on_hostile_text(name, mode):
    policy = PersonalDataPolicy(mode, kinds=KINDS if mode == "strict" else None)
    assert_linear(lambda text: rewrite(text, policy), repeated(HOSTILE[name]), 8_000)


@pytest.mark.slow
def test_a_hundred_megabytes_in_one_document():
    text = "Ein Satz ohne Besonderheiten, und dann anna@example.org oder 8.8.8.8. " * 1_450_000
    assert len(text) > 100_000_000
    result = rewrite(text, STRICT)
    assert result.counts["email"] == result.counts["ip"] == 1_450_000
    assert re.search("[@0-9]", result.text) is None


@given(st.text(string.ascii_letters + "_.~-", max_size=40), st.sampled_from(["strict", "apertus"]))
def test_letters_alone_hide_no_personal_data_in_an_address(component, mode):
    policy = PersonalDataPolicy(
        mode=mode, kinds=KINDS if mode == "strict" else ("email", "ip")
    )  # rewrite_url passes such parts of an address over
    assert rewrite(component, policy).spans == ()

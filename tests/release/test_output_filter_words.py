"""Words of the output filter: the same however a text is spelled, spaced and cut."""

import sys
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.release.output_filter import words as filter_words
from apertus_jax.release.output_filter.words import LONGEST_CHUNK, ChunkReader, fold, is_unspaced, words_of

ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\ufe0f\u202a\u2066\u200e\U000e0041"
SPACES = " \t\n\r\u00a0\u1680\u2003\u2028\u202f\u3000"
# Where cases, forms and scripts are least alike, mixed with all the rest of Unicode.
ODD = (
    "aAßẞſﬃﬀIıİiŉǰΣσςΆάᾳᾼᾷ\u0345\u0301\u0307\u0323\u0342\u0327éÅÅKµΩ½™㎏①Ⅷ…ﬁﷺ"
    "中文漢かガｶﾞﾟハ゛กำน้ำລຳမြန်ខ្មែរ한글ᄒ\u1161\u11ab한अनि\u093c٣'’-_.,=≠😀🏽 \n"
)
TEXTS = st.text(
    st.one_of(st.sampled_from(ODD + ZERO_WIDTH + SPACES), st.characters(exclude_categories=["Cs"])), max_size=40
)
QUICK = settings(max_examples=400, deadline=None)


def cut(text, places):
    """Pieces of a text, cut at the given places modulo its length."""
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in zip(edges, edges[1:], strict=False)]


def read(pieces):
    reader = ChunkReader()
    chunks = [chunk for piece in pieces for chunk in reader.feed(piece)]
    return [*chunks, *reader.finish()]


@st.composite
def spellings(draw):
    """A text and another spelling of it: case, form, spaces, zero-width characters."""
    text = draw(TEXTS)
    other = unicodedata.normalize("NFC", text)
    other = draw(st.sampled_from([str.upper, str.lower, str.title, str.swapcase, str.casefold, str]))(other)
    other = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"])), other)
    pieces = []
    for character in other:
        if character.isspace():
            character = draw(st.text(st.sampled_from(SPACES), min_size=1, max_size=3))
        pieces.append(character + draw(st.text(st.sampled_from(ZERO_WIDTH), max_size=1)))
    return text, "".join(pieces)


@QUICK
@given(spellings())
def test_words_are_the_same_in_any_case_form_and_spacing(pair):
    text, other = pair
    assert words_of(other) == words_of(text)


@QUICK
@given(TEXTS, st.lists(st.integers(0, 100), max_size=8))
def test_words_do_not_depend_on_where_a_stream_is_cut(text, places):
    chunks = read(cut(text, places))
    assert "".join(chunk.text for chunk in chunks) == text
    assert [word for chunk in chunks for word in chunk.words] == words_of(text)
    with_words = [chunk for chunk in chunks if chunk.words]
    assert with_words == [chunk for chunk in read([text]) if chunk.words]


def plain_words(text):
    """The definition, read off character by character from the whole text normalised at once."""
    words, is_open = [], False  # whether the last word may go on, and by what
    for character in fold(text):
        kind = unicodedata.category(character)[0]
        if is_unspaced(character):
            words.append(character)
            is_open = "marks"
        elif kind == "M" and is_open or kind in "LN" and is_open == "all":
            words[-1] += character
        elif kind in "LN":
            words.append(character)
            is_open = "all"
        else:
            is_open = False
    return words


@QUICK
@given(TEXTS)
def test_words_are_those_of_the_whole_text_normalised_at_once(text):
    # The two libraries know different versions of Unicode: what is a letter to only one of them is left out.
    text = "".join(character for character in text if unicodedata.category(character) != "Cn")
    assert words_of(text) == plain_words(text)


def test_each_letter_of_unicode_is_the_same_in_every_case():
    for code in range(sys.maxunicode + 1):
        character = unicodedata.normalize("NFC", chr(code))
        folded = fold(character)
        cases = {character.upper(), character.lower(), character.title(), character.casefold(), folded}
        assert {fold(case) for case in cases} == {folded}, hex(code)


def test_chunks_may_be_cut_there_in_all_of_unicode():
    """What begins a chunk never composes with, or sorts before, a character that came earlier."""
    seconds = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(chr(int(parts[1], 16)))
    head = regex.compile(rf"{filter_words._SEPARATOR}|{filter_words._UNSPACED_HEAD}", regex.VERSION1)
    separator = regex.compile(filter_words._SEPARATOR, regex.VERSION1)
    heads = [chr(code) for code in range(sys.maxunicode + 1) if head.match(chr(code))]
    assert len(heads) > 100_000
    for character in heads:
        whole = unicodedata.normalize("NFKD", character)
        assert not unicodedata.combining(whole[0]) and whole[0] not in seconds, hex(ord(character))
        if separator.match(character):
            assert words_of(character) == [], hex(ord(character))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't  STOP—Straße,\u00a0ﬁn.", ["don", "t", "stop", "strasse", "fin"]),
        ("KAPI kapı İstanbul ıstanbul", ["kapi", "kapi", "istanbul", "istanbul"]),
        ("中文abc 12かガ", ["中", "文", "abc", "12", "か", "ガ"]),
        ("so\u00adft\u200b\u0301 hy-phen", ["soft\u0301", "hy", "phen"]),
        ("x" * (LONGEST_CHUNK + 5), ["x" * LONGEST_CHUNK, "x" * 5]),
        ("😀 \u0301 … = ", []),
    ],
)
def test_examples(text, words):
    assert words_of(text) == [unicodedata.normalize("NFC", word) for word in words]

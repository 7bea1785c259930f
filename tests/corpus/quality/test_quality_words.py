"""Words, the same rule in every language; fingerprints of stretches."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.quality import segment
from apertus_jax.corpus.quality.fingerprints import BASE, Fingerprints
from apertus_jax.mix64 import mix64

UNSPACED_NAMES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI CHARACTER", "KHMER LETTER", "LAO LETTER", "MYANMAR")
ALPHABET = list("abÀßжДअक1٣½'-./,#…•!\"—  \n\t\r漢字のー😀")
# Marks, joiners, a zero-width space, a variation selector, Thai and Khmer letters with theirs.
ALPHABET += ["\u0301", "\u093c", "\u200d", "\u200b", "\ufe0f", "\u0e01", "\u0e31", "\u1780", "\u17d2"]


def kind(character):
    """What a character is, from its Unicode name and category."""
    category = unicodedata.category(character)
    if character in "'’-.,:/@":
        return "inner"
    if character.isspace() or category == "Cc" or character == "\u200b":
        return "space"
    if category.startswith("M") or category == "Cf":
        return "attached"
    name = unicodedata.name(character, "")
    if category.startswith("L") and name.startswith((*UNSPACED_NAMES, "KATAKANA-HIRAGANA")):
        return "unspaced"
    return "word" if category[0] in "LN" else "symbol"


def reference_words(text):
    """Returns (start, end, units) of the words of one text, character by character."""
    runs, previous = [], "space"
    for i, character in enumerate(text):
        own = kind(character)
        base = own != "attached"
        now = own if base else previous
        if now == "inner":
            following = kind(text[i + 1]) if i + 1 < len(text) else "space"
            now = "word" if previous == "word" and following == "word" else "symbol"
        if runs and now == previous and not (now == "unspaced" and base):
            runs[-1][1] = i + 1
        else:
            runs.append([i, i + 1, now])
        previous = now
    words = []
    for i, (start, end, run) in enumerate(runs):
        if run == "symbol":
            before = runs[i - 1][2] if i else "space"
            after = runs[i + 1][2] if i + 1 < len(runs) else "space"
            if before != "space" or after != "space":
                continue
        if run != "space":
            words.append((start, end, 1 if run == "unspaced" else 2))
    return words


def found_words(words, document):
    first, last = words.first[document], words.first[document + 1]
    offset = words.document_start[document]
    columns = words.start[first:last] - offset, words.end[first:last] - offset, words.units[first:last]
    return [tuple(map(int, word)) for word in zip(*columns, strict=True)]


@settings(max_examples=250, deadline=None)
@given(st.lists(st.text(st.sampled_from(ALPHABET), max_size=24), min_size=1, max_size=4))
def test_words_equal_a_reference_character_by_character(texts):
    words = segment(texts)
    for document, text in enumerate(texts):
        assert found_words(words, document) == reference_words(text), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, well-known friend!", ["Don't", "stop", "well-known", "friend"]),
        ("3.14 is (about) pi…", ["3.14", "is", "about", "pi"]),
        ("a - b ... c", ["a", "-", "b", "...", "c"]),
        ("mail me@here.org now", ["mail", "me@here.org", "now"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("می‌خواهم بروم", ["می‌خواهم", "بروم"]),
        ("漢字です。", ["漢", "字", "で", "す"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("iPhone手机", ["iPhone", "手", "机"]),
        ("ཀ་ཁ་ག", ["ཀ", "ཁ", "ག"]),
        ("", []),
        ("—", ["—"]),
    ],
)
def test_words_by_hand(text, expected):
    words = segment([text])
    offset = int(words.document_start[0])
    assert [text[s - offset : e - offset] for s, e in zip(words.start, words.end, strict=True)] == expected


def test_symbols_and_letters_are_told_apart():
    words = segment(["a 1 - 漢"])
    assert words.symbol.tolist() == [False, False, True, False]
    assert words.letter.tolist() == [True, False, False, True]
    assert words.units.tolist() == [2, 2, 2, 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 0x10FFFF), min_size=1, max_size=30), st.data())
def test_fingerprint_is_the_polynomial_of_the_stretch(values, data):
    start = data.draw(st.integers(0, len(values)))
    end = data.draw(st.integers(start, len(values)))
    expected = sum(value * pow(BASE, i, 1 << 64) for i, value in enumerate(values[start:end])) % (1 << 64)
    found = Fingerprints(np.array(values, np.uint32)).of(np.array([start]), np.array([end]))
    assert found[0] == mix64(np.array([expected], np.uint64))[0]


def test_fingerprints_are_equal_just_for_equal_stretches():
    values = np.random.default_rng(0).integers(1, 50, 300_000).astype(np.uint32)
    values[200_000:200_500] = values[100:600]
    prints = Fingerprints(values)
    assert prints.of(np.array([100]), np.array([600])) == prints.of(np.array([200_000]), np.array([200_500]))
    starts = np.arange(0, 290_000)
    assert len(np.unique(prints.of(starts, starts + 12))) == len({values[i : i + 12].tobytes() for i in starts})

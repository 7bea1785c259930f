"""Units of 13-grams against one regular expression, the way their definition reads."""

import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.bundled import bundled_documents
from apertus_jax.data.store.ngrams import LONGEST_WORD, text_ngram_hashes, text_units
from apertus_jax.unspaced_scripts import NGRAM_UNITS_1, script_pattern

UNSPACED = script_pattern(NGRAM_UNITS_1)
UNIT = regex.compile(rf"[{UNSPACED}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+", regex.VERSION1)


def units_by_definition(text):
    for word in UNIT.findall(unicodedata.normalize("NFKC", text).casefold()):
        yield from [word] if len(word) <= LONGEST_WORD else word


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.text(st.sampled_from("aZß Éé́ 1٣²ⅷ字ㄅひカกຂខမꦲ𗀀𓀀𒀀꘎,.-_\u200b\u3000\n\u2028\ud800"), max_size=80)
    | st.text(max_size=60)
)
def test_units_are_those_of_the_definition(text):
    assert text_units(text) == list(units_by_definition(text))


@pytest.mark.parametrize("text", ["", " ", "a" * 24, "a" * 25, "字" * 30, "ab字cd", "字ab", "1字.字2", "x" * 24 + "字"])
def test_units_at_their_edges_are_those_of_the_definition(text):
    assert text_units(text) == list(units_by_definition(text))


def test_units_of_700_languages_are_those_of_the_definition():
    texts = [document.text for document in bundled_documents()][::40]
    assert [text_units(text) for text in texts] == [list(units_by_definition(text)) for text in texts]


def test_every_code_point_is_the_unit_that_it_was():
    for start in range(0, 0x110000, 0x8000):
        text = "".join(map(chr, range(start, start + 0x8000)))
        assert text_units(text) == list(units_by_definition(text))


def test_grams_are_one_fewer_by_twelve_than_units():
    assert [len(text_ngram_hashes("word " * count)) for count in (0, 12, 13, 14, 40)] == [0, 0, 1, 2, 28]

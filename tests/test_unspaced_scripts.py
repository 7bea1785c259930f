"""Scripts without spaces: lists that decided kept digests are frozen, and are what Unicode knows."""

import hashlib

import pytest
import regex

from apertus_jax import unspaced_scripts
from apertus_jax.unspaced_scripts import WORDS_1, script_pattern

# A digest that differs means keys, splits or filters that no longer meet those of last year: make a list of the next
# number instead.
FROZEN = {
    "WORDS_1": "92fe1b960a1304bf",
    "NGRAM_UNITS_1": "2d7acb9441ac9581",
    "DUPLICATE_WORDS_1": "e2d7dc3dd1eda724",
    "QUALITY_WORDS_1": "5485af888aacd21b",
    "PASSAGE_CHARACTERS_1": "3deccb0846c94a7a",
    "EMAIL_CHARACTERS_1": "1e2dd33999748859",
}


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_list_of_scripts_is_never_changed(name):
    value = getattr(unspaced_scripts, name)
    content = value if isinstance(value, str) else " ".join(sorted(value))
    assert hashlib.blake2b(content.encode(), digest_size=8).hexdigest() == FROZEN[name]


def test_every_list_of_scripts_is_in_the_table():
    lists = {name for name in vars(unspaced_scripts) if name.isupper()}
    assert lists == {"COMMON", *FROZEN}


def test_pattern_of_scripts_matches_their_letters_alone():
    letters = regex.compile(f"[{script_pattern(WORDS_1)}]", regex.VERSION1)
    assert all(map(letters.fullmatch, "漢ひカกລខမ"))
    assert not any(map(letters.fullmatch, "aж한אع1 "))

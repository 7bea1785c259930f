"""Folding of words: the short ways for common pieces give what the five steps give, for every character."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from apertus_jax.corpus.duplicates import words


def general_fold(piece: str) -> str:
    """Folds a piece by the steps of the module's docstring, without the short ways for common pieces."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", piece).casefold())
    composed = unicodedata.normalize("NFC", words._diacritics().sub("", decomposed))
    return " ".join(words.UNICODE_WORDS.findall(words.DIGIT_SEPARATORS.sub("", composed)))


def test_fold_of_every_character_follows_the_five_steps():
    for point in (*range(0x20000), *range(0xE0000, 0xE0200)):
        character = chr(point)
        if not 0xD800 <= point < 0xE000 and not character.isspace():
            for piece in (character, f"a{character}1", f"{character}é", f"я{character}"):
                assert words.fold(piece) == general_fold(piece), (hex(point), piece)


@given(st.text(st.characters(max_codepoint=0x1FFF, exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc")), max_size=12))
def test_fold_of_any_piece_follows_the_five_steps(piece):
    assert words.fold(piece) == general_fold(piece)

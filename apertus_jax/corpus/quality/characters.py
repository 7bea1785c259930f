"""Character classes for the segmentation into words and lines: one byte for each code point."""

from __future__ import annotations

import functools

import numpy as np

from apertus_jax.corpus.language.scripts import character_table
from apertus_jax.unspaced_scripts import QUALITY_WORDS_1, script_pattern

# The low three bits: exactly one of these.
SYMBOL, SPACE, WORD, UNSPACED, ATTACHED, INNER = range(6)
KIND = 7
# Flags above them.
LETTER, TERMINAL, BULLET = 8, 16, 32

# One of these between two letters or figures belongs to their word: don't, well-known, 3.14, name@host.
INNER_CHARACTERS = "'’-‐‑.,:/@&_+·״׳"
BULLETS = "•‣◦▪●○■*-"


@functools.cache
def kinds_and_flags() -> np.ndarray:
    """Returns uint8[0x110000]: the kind of each code point and its flags.

    - SPACE: white space, control characters, and U+200B, which marks word boundaries in Khmer and Thai.
    - UNSPACED: a letter of a script that is written without spaces. WORD: every other letter, and numbers.
    - ATTACHED: marks and format characters, which belong to what they follow. INNER: see INNER_CHARACTERS.
    - SYMBOL: the rest, code points without a character included.
    """
    unspaced = script_pattern(QUALITY_WORDS_1, "Script_Extensions")
    space = r"\p{White_Space}\p{Cc}\u200b"
    kinds = {
        "unassigned": r"[\p{Cn}\p{Co}\p{Cs}]+",
        "space": f"[{space}]+",
        "attached": rf"[[\p{{M}}\p{{Cf}}]--[{space}]]+",
        "unspaced": rf"[[\p{{L}}\p{{Nl}}]&&[{unspaced}]]+",
        "word": r"[\p{L}\p{N}]+",
    }
    values = {"unassigned": SYMBOL, "space": SPACE, "attached": ATTACHED, "unspaced": UNSPACED, "word": WORD}
    table = character_table(kinds, values)
    flags = {"letter": r"\p{L}+", "terminal": r"\p{Sentence_Terminal}+", "rest": r"[^\p{L}\p{Sentence_Terminal}]+"}
    table |= character_table(flags, {"letter": LETTER, "terminal": TERMINAL, "rest": 0})
    for character in INNER_CHARACTERS:
        table[ord(character)] = (table[ord(character)] & ~np.uint8(KIND)) | INNER
    for character in BULLETS:
        table[ord(character)] |= BULLET
    return table

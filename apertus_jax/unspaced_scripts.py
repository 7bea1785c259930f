"""Scripts without spaces between words: Han, kana, Thai, Khmer, … by the names that Unicode gives them.

Every list below decided digests, keys or scores that are kept, so that each is frozen under its name: a change is a new
list with the next number, and whoever uses it raises a version of its own. They agree on `COMMON`; new code takes
`WORDS_1`, all scripts that are in use.
"""

from __future__ import annotations

from collections.abc import Sequence

COMMON = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Tangut", "Nushu", "Thai", "Lao", "Khmer", "Myanmar"),
    *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Javanese", "Balinese"),
)
# Words of the output filter (release/output_filter): its files hold hashes of them.
WORDS_1 = (
    *COMMON,
    *("Yi", "Ahom", "Khitan_Small_Script", "Kawi", "Batak", "Rejang", "Makasar", "Buginese", "Cham"),
)
# Units of the 13-grams by which held-out text is kept apart (data/store): the split of a store depends on them.
NGRAM_UNITS_1 = (
    *WORDS_1,
    *("Egyptian_Hieroglyphs", "Anatolian_Hieroglyphs", "Cuneiform", "Linear_A", "Linear_B", "Cypriot"),
)
# Words of the search for duplicates and contamination (corpus/duplicates): keys of documents depend on them.
DUPLICATE_WORDS_1 = (*COMMON, "Yi", "Ahom", "Sundanese")
# Half words of the quality measures (corpus/quality), by Script_Extensions: scores in ledgers depend on them.
QUALITY_WORDS_1 = (*COMMON, "Khitan_Small_Script", "Egyptian_Hieroglyphs", "Cuneiform")
# Characters that count as a word where training texts are compared with benchmarks (corpus/classifiers): which texts a
# classifier was trained on depends on them.
PASSAGE_CHARACTERS_1 = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
# Characters that are left out of an e-mail address which has other letters (corpus/personal_data), lest it swallow the
# sentence around it; Hangul too, which writes particles behind the name. What is rewritten in a corpus depends on them.
EMAIL_CHARACTERS_1 = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u318f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)


def script_pattern(scripts: Sequence[str], property: str = "Script") -> str:
    """Returns what stands between [ and ] in a pattern of `regex` that matches the characters of these scripts."""
    return "".join(rf"\p{{{property}={script}}}" for script in scripts)

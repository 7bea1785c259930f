"""Script detection, labels and language codes."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.bundled import language_documents
from apertus_jax.corpus.language.models import language_and_script
from apertus_jax.corpus.language.scripts import SCRIPT_CODES, detect_scripts, script_table
from apertus_jax.corpus.language_codes import language_label, scripts_of, usual_script

# The first word of a letter's Unicode name tells its script, independently of the property tables.
NAMES = {
    "LATIN": "Latn",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "ARABIC": "Arab",
    "HEBREW": "Hebr",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "THAI": "Thai",
    "ETHIOPIC": "Ethi",
    "GEORGIAN": "Geor",
    "ARMENIAN": "Armn",
    "TAMIL": "Taml",
    "KHMER": "Khmr",
    "CHEROKEE": "Cher",
    "ADLAM": "Adlm",
}
LETTERS = [
    chr(code)
    for code in range(0x1F000)
    if unicodedata.category(chr(code)).startswith("L") and unicodedata.name(chr(code), "-").split()[0] in NAMES
]


def test_script_of_every_named_letter_is_the_one_its_name_says():
    table = script_table()
    wrong = []
    for letter in LETTERS:
        number = table[ord(letter)]
        script = SCRIPT_CODES[number - 1] if number else "Zyyy"
        if script != NAMES[unicodedata.name(letter).split()[0]]:
            wrong.append(letter)
    # Unicode counts a few letters that several scripts share as Common (such as the micro sign's kin).
    assert len(wrong) < 30, wrong[:40]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*LETTERS[::37], " ", "\n", ".", "3", "😀", "́"]), max_size=40))
def test_majority_script_equals_a_count_by_unicode_names(characters):
    text = "".join(characters)
    counts = Counter(NAMES[unicodedata.name(c).split()[0]] for c in characters if c in LETTERS)
    script, share = detect_scripts([text])[0]
    if not counts:
        assert (script, share) == ("Zyyy", 0.0)
        return
    best = max(counts.values())
    assert counts[script] == best and script == min(s for s in counts if counts[s] == best)
    assert share == round(best / sum(counts.values()), 6)


def test_declared_scripts_of_the_bundled_corpus_are_detected():
    documents = list(language_documents())
    found = detect_scripts([document.text for document in documents])
    declared = [usual_script(document.language.split("_")[1]) for document in documents]
    right = sum(script.script == name for script, name in zip(found, declared, strict=True))
    assert len({*declared}) > 150
    assert right / len(documents) >= 0.995


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("吾輩は猫である。名前はまだ無い。", "Jpan"),
        ("カタカナ", "Jpan"),
        ("東京都", "Hani"),
        ("人人生而自由，在尊严和权利上一律平等。" * 5 + "の", "Hani"),
        ("모든 인간은 태어날 때부터 자유로우며", "Hang"),
        ("大韓民國의 主權은 國民에게 있고", "Hang"),
        ("大韓民國의 主權은 國民에게 있고 の", "Hang"),  # one kana beside more Hangul
        ("ㄅㄆㄇ注音", "Hani"),
        ("12:30 — €!", "Zyyy"),
        ("", "Zyyy"),
        ("a\ud800b", "Latn"),
    ],
)
def test_east_asian_mixtures_have_one_script(text, script):
    assert detect_scripts([text])[0].script == script


@pytest.mark.parametrize(
    ("tag", "script", "label"),
    [
        ("de", "Latn", "deu_Latn"),
        ("DE-ch", "Latn", "deu_Latn"),
        ("zh-Hant-TW", "Hani", "cmn_Hani"),
        ("zho_Hans", "Hani", "cmn_Hani"),
        ("cmn_Hani", "Hani", "cmn_Hani"),
        ("ja", "Hani", "jpn_Jpan"),
        ("kor_Kore", "Hang", "kor_Hang"),
        ("sr", "Cyrl", "srp_Cyrl"),
        ("sr", "Latn", "srp_Latn"),
        ("sr", "Grek", "srp_Cyrl"),
        ("gsw_Latn", "Latn", "gsw_Latn"),
        ("als_Latn", "Latn", "als_Latn"),
        ("xyz", "Cans", "xyz_Cans"),
        ("et", "Latn", "ekk_Latn"),
        ("und", "Latn", "und"),
        ("zxx", "Latn", "und"),
        ("", "Latn", "und"),
        ("someone@example.org", "Latn", "und"),
        ("english", "Latn", "und"),
    ],
)
def test_tags_of_every_spelling_become_one_label(tag, script, label):
    assert language_label(tag, script) == label


def test_labels_are_their_own_spelling():
    for document in language_documents():
        label = language_label(document.language)
        assert language_label(label) == label


def test_labels_of_models_are_understood():
    assert language_and_script("als") == ("gsw", "")  # a Wikipedia code
    assert language_and_script("als_Latn") == ("als", "Latn")
    assert language_and_script("zh") == ("cmn", "")
    assert language_and_script("kor_Hang") == ("kor", "Hang")
    assert language_and_script("zxx_Arab") == ("und", "Arab")


def test_scripts_of_languages_are_the_ones_of_the_bundled_corpus():
    declared = {}
    for document in language_documents():
        language, script = language_label(document.language).split("_")
        declared.setdefault(language, set()).add(script)
    compared = {language for language in declared if scripts_of(language)}
    assert len(compared) > 120
    for language in compared:
        assert set(scripts_of(language)) & declared[language], language

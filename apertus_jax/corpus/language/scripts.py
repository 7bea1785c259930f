"""Script of a text: the majority among its letters by the Unicode property Script."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import regex

# ISO 15924 codes of every script that has letters in Unicode, in alphabetic order: ties go to the first.
_CODES = (
    "Adlm Aghb Ahom Arab Armi Armn Avst Bali Bamu Bass Batk Beng Berf Bhks Bopo Brah Brai Bugi Buhd Cakm Cans Cari "
    "Cham Cher Chrs Copt Cpmn Cprt Cyrl Deva Diak Dogr Dsrt Dupl Egyp Elba Elym Ethi Gara Geor Glag Gong Gonm Goth "
    "Gran Grek Gujr Gukh Guru Hang Hani Hano Hatr Hebr Hira Hluw Hmng Hmnp Hung Ital Java Kali Kana Kawi Khar Khmr "
    "Khoj Kits Knda Krai Kthi Lana Laoo Latn Lepc Limb Lina Linb Lisu Lyci Lydi Mahj Maka Mand Mani Marc Medf Mend "
    "Merc Mero Mlym Modi Mong Mroo Mtei Mult Mymr Nagm Nand Narb Nbat Newa Nkoo Nshu Ogam Olck Onao Orkh Orya Osge "
    "Osma Ougr Palm Pauc Perm Phag Phli Phlp Phnx Plrd Prti Rjng Rohg Runr Samr Sarb Saur Sgnw Shaw Shrd Sidd Sidt "
    "Sind Sinh Sogd Sogo Sora Soyo Sund Sunu Sylo Syrc Tagb Takr Tale Talu Taml Tang Tavt Tayo Telu Tfng Tglg Thaa "
    "Thai Tibt Tirh Tnsa Todr Tols Toto Tutg Ugar Vaii Vith Wara Wcho Xpeo Xsux Yezi Yiii Zanb"
)
SCRIPT_CODES = tuple(_CODES.split())
NO_SCRIPT = "Zyyy"  # a text without letters
# Scripts whose characters Unicode does not class as letters.
SCRIPTS_WITHOUT_LETTERS = ("Brai", "Sgnw")
# Chinese quotes a Japanese name now and then; Japanese text has far more kana than one letter in twenty.
SMALLEST_MIXTURE = 20
ALL_CODE_POINTS = 0x110000

_INDEX = {code: index for index, code in enumerate(SCRIPT_CODES, start=1)}
_LATIN_LETTER = regex.compile("[A-Za-z]")


class ScriptShare(NamedTuple):
    """A script (ISO 15924, as labels spell it) and the share of a text's letters that are written in it."""

    script: str
    share: float


def detect_scripts(texts: Sequence[str]) -> list[ScriptShare]:
    """Returns the majority script of each text; `Zyyy` with share 0 for a text without letters.

    Han, Bopomofo and kana are counted together: as `Jpan` where at least one letter in twenty is kana, as `Hani`
    otherwise. Han beside Hangul counts for `Hang` by the same rule. Linear in the length of the text.
    """
    return [_detect(text) for text in texts]


def _detect(text: str) -> ScriptShare:
    if text.isascii():
        return ScriptShare("Latn", 1.0) if _LATIN_LETTER.search(text) else ScriptShare(NO_SCRIPT, 0.0)
    counts = np.bincount(script_table()[code_points(text)], minlength=len(SCRIPT_CODES) + 1)
    counts[0] = 0
    letters = int(counts.sum())
    if not letters:
        return ScriptShare(NO_SCRIPT, 0.0)
    _merge_east_asian(counts)
    best = int(counts.argmax())
    script = SCRIPT_CODES[best - 1]
    return ScriptShare("Jpan" if script in ("Hira", "Kana") else script, round(int(counts[best]) / letters, 6))


def _merge_east_asian(counts: np.ndarray) -> None:
    """Gives the counts of Han and its companions to the one script that labels name the mixture by, in place."""
    han = counts[_INDEX["Hani"]] + counts[_INDEX["Bopo"]]
    kana = counts[_INDEX["Hira"]] + counts[_INDEX["Kana"]]
    hangul = counts[_INDEX["Hang"]]
    for code in ("Hani", "Bopo", "Hira", "Kana"):
        counts[_INDEX[code]] = 0
    if kana and kana * SMALLEST_MIXTURE >= han + kana and kana >= hangul:
        counts[_INDEX["Hira"]] = han + kana
    elif hangul and hangul * SMALLEST_MIXTURE >= han + hangul:
        counts[_INDEX["Hang"]] += han
        counts[_INDEX["Hira"]] = kana
    else:
        counts[_INDEX["Hani"]] = han + kana


def code_points(text: str) -> np.ndarray:
    """Returns the code points of a text, uint32[characters]; halves of surrogate pairs stay what they are."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@functools.cache
def script_table() -> np.ndarray:
    """Returns uint8[0x110000]: for each code point 1 + the index of its script in `SCRIPT_CODES`, 0 for no letter."""
    letters = "".join([r"\p{L}", *(rf"\p{{Script={code}}}" for code in SCRIPTS_WITHOUT_LETTERS)])
    names = {"none": f"[^{letters}]+"}  # first, so that most of Unicode is passed over in a few runs
    names.update({code: rf"[\p{{Script={code}}}&&[{letters}]]+" for code in SCRIPT_CODES})
    return character_table(names, {**_INDEX, "none": 0})


def character_table(patterns: dict[str, str], values: dict[str, int]) -> np.ndarray:
    """Returns uint8[0x110000] that holds `values[name]` where the pattern of that name matches, 0 elsewhere.

    Patterns are tried in their order; each matches a run of single code points.
    """
    table = np.zeros(ALL_CODE_POINTS, np.uint8)
    alternatives = "|".join(f"(?P<{name}>{pattern})" for name, pattern in patterns.items())
    everything = np.arange(ALL_CODE_POINTS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for match in regex.finditer(alternatives, everything, flags=regex.V1):
        table[match.start() : match.end()] = values[match.lastgroup]
    return table

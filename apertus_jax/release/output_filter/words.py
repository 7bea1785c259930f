"""Word normalisation of the output filter, over a stream of text.

Normalisation, in this order:

1. Characters that show nothing are dropped: default ignorable code points (zero-width spaces and joiners, soft hyphens,
   variation selectors, …) and the other format characters. This comes first, so that none stands between a letter and
   its accent.
2. Compatibility decomposition, full case folding, then composition: the text is in NFKC, and NFC and NFD input, halves
   and wholes of width, ligatures, sharp and final s come out the same. Folding what is decomposed is what the Unicode
   Standard's compatibility caseless match (D146) does; folding NFKC would part the cases of ᾷ. `ı` and `i̇` become `i`,
   without which Turkish and Azeri words would change with their case.
3. A word is a run of letters, marks and digits that begins with a letter or digit. All else, white space and
   punctuation alike, only separates words, and how much of it there is makes no difference.
4. Scripts that put no spaces between words (Han, kana, Thai, Khmer, …) have no such runs: there each letter or digit
   with its marks is a word.

The reader cuts a stream at places where nothing on one side changes the other, so the words do not depend on how the
stream was cut into pieces. It needs a bounded memory, for which a run of more than `LONGEST_CHUNK` characters without
any such place is cut there; beyond that length spellings with more or fewer characters need not meet.

Source: docs/reference/data.md §13.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

import regex

from apertus_jax.unspaced_scripts import WORDS_1, script_pattern

NORMALIZATION = "apertus-words-1: without ignorable characters, NFKC, case folded, dotless i as i"
LONGEST_CHUNK = 1024
_CACHED_CHUNKS = 1 << 14
_IGNORED = r"\p{Default_Ignorable_Code_Point}\p{Cf}"
_SCRIPTS = script_pattern(WORDS_1)
# Letters that decompose into something that belongs to the letter before: Thai and Lao sara am.
_JOINING_LETTERS = "\u0e33\u0eb3"
_UNSPACED = rf"[[{_SCRIPTS}]&&[\p{{L}}\p{{N}}]]"
# What an unspaced letter takes along: marks, the half-width voicing marks of kana, and what is dropped anyway.
_ATTACHED = rf"[\p{{M}}{_IGNORED}\uff9e\uff9f{_JOINING_LETTERS}]"
# Symbols such as ™ or ㎏ decompose into letters; all other symbols are no part of any word.
_SEPARATOR = rf"[[^\p{{L}}\p{{N}}\p{{M}}{_IGNORED}]--[[\p{{So}}\p{{Sc}}]--\p{{Decomposition_Type=None}}]]"
_UNSPACED_HEAD = rf"[{_UNSPACED}--[{_JOINING_LETTERS}]]"

_IGNORED_CHARACTERS = regex.compile(rf"[{_IGNORED}]+", regex.VERSION1)
_DOTTED_I = re.compile("i\u0307+")
_WORDS = regex.compile(
    rf"{_UNSPACED}\p{{M}}*+|[[\p{{L}}\p{{N}}]--{_UNSPACED}][[\p{{L}}\p{{N}}\p{{M}}]--{_UNSPACED}]*+", regex.VERSION1
)
# Every character is in one of the three. Between two chunks nothing composes and no word goes on: a separator or head
# begins with a character of combining class 0 that composes with none before it.
_CHUNKS = regex.compile(
    rf"(?P<gap>{_SEPARATOR}++)"
    rf"|{_UNSPACED_HEAD}{_ATTACHED}{{0,{LONGEST_CHUNK - 1}}}+"
    rf"|[[^{_SEPARATOR}]--{_UNSPACED_HEAD}]{{1,{LONGEST_CHUNK}}}+",
    regex.VERSION1,
)


def unicode_versions() -> str:
    """Returns which character tables decide. They can differ in characters that the older one does not know yet."""
    return f"unicodedata {unicodedata.unidata_version}, regex {regex.__version__}"


class Chunk(NamedTuple):
    """A piece of text as it stood, and the words in it; most have one, gaps have none."""

    text: str
    words: tuple[str, ...]


class ChunkReader:
    """Cuts a stream of text into chunks; the same chunks with words, wherever the stream was cut before."""

    def __init__(self) -> None:
        """Begins a stream."""
        self._pending = ""

    def feed(self, text: str) -> list[Chunk]:
        """Returns the chunks that are complete with `text`. At most `LONGEST_CHUNK` characters wait for more."""
        buffer = self._pending + text
        chunks: list[Chunk] = []
        end = 0
        for found in _CHUNKS.finditer(buffer):
            is_gap = found["gap"] is not None
            if found.end() == len(buffer) and not is_gap and found.end() - found.start() < LONGEST_CHUNK:
                break
            chunks.append(Chunk(found[0], () if is_gap else _words_of_chunk(found[0])))
            end = found.end()
        self._pending = buffer[end:]
        return chunks

    def finish(self) -> list[Chunk]:
        """Ends the stream and returns what was waiting."""
        pending, self._pending = self._pending, ""
        return [Chunk(pending, _words_of_chunk(pending))] if pending else []


def words_of(text: str) -> list[str]:
    """Returns the words of a whole text, normalised."""
    reader = ChunkReader()
    return [word for chunk in (*reader.feed(text), *reader.finish()) for word in chunk.words]


def is_unspaced(word: str) -> bool:
    """Returns whether a word is one letter or digit of a script without spaces."""
    return _UNSPACED_LETTER.match(word) is not None


def fold(text: str) -> str:
    """Returns `text` after steps 1 and 2 above."""
    if text.isascii():
        return text.lower()
    text = _IGNORED_CHARACTERS.sub("", text)
    text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFKD", text).replace("ı", "i")
    return unicodedata.normalize("NFKC", _DOTTED_I.sub("i", text))


_UNSPACED_LETTER = regex.compile(_UNSPACED, regex.VERSION1)


def _words_of_chunk(text: str) -> tuple[str, ...]:
    return (text.lower(),) if text.isascii() else _folded_words(text)


@functools.lru_cache(_CACHED_CHUNKS)
def _folded_words(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(fold(text)))

"""Line and paragraph heuristics: bullets, ellipses, closing punctuation, short lines, repetition."""

from __future__ import annotations

import numpy as np

from apertus_jax.corpus.quality.characters import BULLET, KIND, SPACE, TERMINAL
from apertus_jax.corpus.quality.repetition import duplicates
from apertus_jax.corpus.quality.words import Words

SHORT_LINE = 30  # characters
ELLIPSIS = ord("…")
FULL_STOP = ord(".")
NEWLINE = ord("\n")


def line_features(words: Words) -> dict[str, np.ndarray]:
    """Returns name → value of each document: counts int64[documents] and shares float64[documents].

    A line is what stands between two newlines, stripped; blank lines are not counted. A paragraph is a run of lines
    without a blank line. Shares of an empty document are 0.

    - newlines, lines; bullet_line_share, ellipsis_line_share, terminal_line_share, short_line_share (of the lines)
    - duplicate_line_share: of the lines, those that repeat an earlier line; duplicate_line_character_share: their
      characters, of the text without newlines (FineWeb)
    - duplicate_paragraph_share, duplicate_paragraph_character_share: the same of paragraphs, of the whole text
    """
    number = len(words.document_start)
    newline = np.flatnonzero(words.codes == NEWLINE)
    start, end = newline[:-1] + 1, newline[1:]
    newlines = np.bincount(words.document_of(start), minlength=number) - 1
    start, end, index = _stripped(words, start, end)
    document = words.document_of(start)
    lines = np.bincount(document, minlength=number)
    last = words.codes[end - 1]
    dots = (end - start >= 3) & (last == FULL_STOP) & (words.codes[end - 2] == FULL_STOP)
    dots &= words.codes[np.maximum(end - 3, 0)] == FULL_STOP
    length = words.document_end - words.document_start
    repeated = duplicates(words.fingerprints.of(start, end), document)

    def share(chosen: np.ndarray) -> np.ndarray:
        return _ratio(np.bincount(document[chosen], minlength=number), lines)

    features = {
        "newlines": newlines,
        "lines": lines,
        "bullet_line_share": share((words.kinds[start] & BULLET) != 0),
        "ellipsis_line_share": share((last == ELLIPSIS) | dots),
        "terminal_line_share": share((words.kinds[end - 1] & TERMINAL) != 0),
        "short_line_share": share(end - start <= SHORT_LINE),
        "duplicate_line_share": share(repeated),
        "duplicate_line_character_share": _ratio(
            _characters(start[repeated], end[repeated], document[repeated], number), length - newlines
        ),
    }
    opens = np.ones(len(start), bool)
    opens[1:] = (np.diff(index) != 1) | (np.diff(document) != 0)
    opening = np.flatnonzero(opens)
    start, end = start[opening], end[np.append(opening[1:], len(end)) - 1] if len(end) else end
    document = document[opening]
    repeated = duplicates(words.fingerprints.of(start, end), document)
    features["duplicate_paragraph_share"] = _ratio(
        np.bincount(document[repeated], minlength=number), np.bincount(document, minlength=number)
    )
    features["duplicate_paragraph_character_share"] = _ratio(
        _characters(start[repeated], end[repeated], document[repeated], number), length
    )
    return features


def ellipses(words: Words) -> np.ndarray:
    """Returns how many ellipses each document has: "…", and three full stops in a row, int64[documents]."""
    number = len(words.document_start)
    single = np.flatnonzero(words.codes == ELLIPSIS)
    counts = np.bincount(words.document_of(single), minlength=number)
    stops = np.flatnonzero(words.codes == FULL_STOP)
    if not len(stops):
        return counts
    opening = np.flatnonzero(np.append(True, np.diff(stops) != 1))
    run = np.diff(np.append(opening, len(stops)))
    return counts + np.bincount(words.document_of(stops[opening]), weights=run // 3, minlength=number).astype(np.int64)


def count_character(words: Words, character: str) -> np.ndarray:
    """Returns how often a character occurs in each document, int64[documents]."""
    positions = np.flatnonzero(words.codes == ord(character))
    return np.bincount(words.document_of(positions), minlength=len(words.document_start))


def _stripped(words: Words, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the bounds of the lines that are not blank, without the spaces at both ends, and their line numbers."""
    solid = np.flatnonzero((words.kinds & KIND) != SPACE)
    low = np.searchsorted(solid, start)
    high = np.searchsorted(solid, end)
    index = np.flatnonzero(high > low)
    return solid[low[index]], solid[high[index] - 1] + 1, index


def _characters(start: np.ndarray, end: np.ndarray, document: np.ndarray, number: int) -> np.ndarray:
    return np.bincount(document, weights=end - start, minlength=number).astype(np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, 0 where there is nothing."""
    return part / np.maximum(whole, 1)

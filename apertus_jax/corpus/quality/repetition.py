"""Repetition heuristics: repeated lines, paragraphs and word n-grams.

The measures of Gopher (arXiv 2112.11446, table A1), each as the share of the document's characters that the repeated
stretches cover; stretches are taken from the text, spaces and punctuation inside them included.

Two deliberate differences from datatrove 0.10.1:
- Duplicate n-grams. datatrove glues the words of an n-gram together without a separator, so that "ab c" equals "a bc";
  after a hit it leaps over n words, so that the rest of a repeated passage shorter than n is not counted and n-grams
  that begin inside the passage are never remembered; and it divides characters without spaces by characters with
  spaces, so that no text can reach 1. Here a word is repeated when it lies in an n-gram that has occurred before, and
  what is covered counts once. The share can then only fall as n grows.
- Top n-gram. Where the most frequent n-gram overlaps itself ("ha ha ha ha"), its characters count once, so that the
  share stays below 1; and where no n-gram occurs twice, the share is 0 and not that of the first n-gram.
"""

from __future__ import annotations

import numpy as np

from apertus_jax.corpus.quality.fingerprints import Fingerprints
from apertus_jax.corpus.quality.words import UNITS_PER_WORD, Words
from apertus_jax.mix64 import mix64

TOP_N_GRAMS = (2, 3, 4)
DUPLICATE_N_GRAMS = (5, 6, 7, 8, 9, 10)


def duplicates(fingerprints: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Returns which items repeat an earlier one of the same document, bool[items].

    Args:
      fingerprints: uint64[items], in the order of the text.
      document: int64[items], the document of each item.
    """
    order, group_start = _grouped(fingerprints + _salt(document))
    return _repeats(order, group_start)


def n_gram_characters(words: Words) -> dict[int, np.ndarray]:
    """Returns n → characters of each document, int64[documents].

    For n = 2, 3, 4: characters covered by the most frequent n-gram of the document (the first of them, where several
    are equally frequent), 0 where none occurs twice. For n = 5 … 10: characters covered by n-grams that have occurred
    before in the document.
    """
    number = len(words.document_start)
    result = {n: np.zeros(number, np.int64) for n in (*TOP_N_GRAMS, *DUPLICATE_N_GRAMS)}
    sequence = Fingerprints(words.fingerprints.of(words.start, words.end) | np.uint64(1))
    units = np.concatenate(([0], np.cumsum(words.units)))
    all_whole = bool(np.all(words.units == UNITS_PER_WORD))
    document = np.repeat(np.arange(number), np.diff(words.first))
    last = words.first[1:][document]  # where the document's words end, for each word
    begin = np.arange(len(words.start))
    for n in result:
        begin, end = _n_gram_ends(begin, n, units, all_whole, last)
        if not len(begin):
            break
        order, group_start = _grouped(sequence.of(begin, end) + _salt(document[begin]))
        count = np.diff(np.append(group_start, len(order)))
        several = count > 1
        if n in TOP_N_GRAMS:
            found = _most_frequent(order, group_start, count, document[begin])
        else:
            found = np.flatnonzero(_repeats(order, group_start))
        result[n] = _covered(words.start[begin[found]], words.end[end[found] - 1], document[begin[found]], number)
        # An n-gram can only be repeated where its first n − 1 words are.
        begin = np.sort(begin[order[np.repeat(several, count)]])
    return result


def _n_gram_ends(
    begin: np.ndarray, n: int, units: np.ndarray, all_whole: bool, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the beginnings whose n-gram ends inside the document, and those ends (word indices, exclusive)."""
    end = begin + n if all_whole else np.searchsorted(units, units[begin] + n * UNITS_PER_WORD)
    inside = end <= last[begin]
    return begin[inside], end[inside]


def _grouped(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns an order in which equal keys are neighbours, and where each group of them starts in it.

    The order inside a group is any: NumPy's unstable sort is five times faster than its stable one.
    """
    order = np.argsort(keys)
    ordered = keys[order]
    is_start = np.ones(len(keys), bool)
    is_start[1:] = ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(is_start)


def _repeats(order: np.ndarray, group_start: np.ndarray) -> np.ndarray:
    """Returns which items are not the first of their group, bool[items]."""
    repeated = np.ones(len(order), bool)
    if len(order):
        repeated[np.minimum.reduceat(order, group_start)] = False
    return repeated


def _most_frequent(order: np.ndarray, group_start: np.ndarray, count: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Returns, ascending, the items of each document's most frequent group, the first of them where several are.

    Groups of one item do not count; `document` is that of each item.
    """
    first = np.minimum.reduceat(order, group_start)
    several = np.flatnonzero(count > 1)
    if not len(several):
        return several
    owner = document[first[several]]
    ranking = np.lexsort((first[several], -count[several], owner))
    best = several[ranking[np.append(True, np.diff(owner[ranking]) != 0)]]
    chosen = np.zeros(len(count), bool)
    chosen[best] = True
    return np.sort(order[np.repeat(chosen, count)])


def _covered(start: np.ndarray, end: np.ndarray, document: np.ndarray, number: int) -> np.ndarray:
    """Returns how many characters of each document the stretches cover; both bounds ascend."""
    previous_end = np.concatenate((start[:1], end[:-1]))
    covered = end - np.maximum(start, previous_end)
    return np.bincount(document, weights=covered, minlength=number).astype(np.int64)


def _salt(document: np.ndarray) -> np.ndarray:
    """Returns a number for each document that keeps its keys apart from those of its neighbours in the batch."""
    return mix64(document.astype(np.uint64) + np.uint64(1))

"""Near-duplicates: copies of a text as the web makes them, and what their masks reveal between them.

Every copy has the same words but for one, and another mask under a hash of token ids: a line end or a token more moves
all windows that reach over it. A word that one copy leaves out is then taught by the next one.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import textwrap
from collections.abc import Sequence

import numpy as np

from apertus_jax.data import Tokenizer
from apertus_jax.objectives import normalized

SPLIT_SHARE = 0.25  # of the tokens of a re-tokenised copy that can be cut in two


@dataclasses.dataclass(frozen=True)
class Leak:
    """Of the suffix labels of the first copy: what it leaves out itself, and what every copy leaves out.

    `revealed` is the share of its holes that some copy fills; nan when it has no hole.
    """

    labels: int
    masked_here: int
    masked_everywhere: int

    @property
    def revealed(self) -> float:
        return 1 - self.masked_everywhere / self.masked_here if self.masked_here else float("nan")


def near_copies(text: str, tokenizer: Tokenizer, seed: int, length: int) -> dict[str, np.ndarray]:
    """Returns edit → ids int32[n] without boundary tokens; the first is the text as it is.

    The one word that is changed lies a quarter into the first `length` tokens.
    """
    rng = np.random.default_rng(seed)
    words = text.split(" ")
    quarter = tokenizer.decode(tokenizer.encode(text)[: length // 4]).count(" ")
    texts = {
        "as it is": text,
        "lines of 60": textwrap.fill(text, 60),
        "lines of 43": textwrap.fill(text, 43),
        "a paragraph a sentence": re.sub(r"([.:;?!]) ", "\\1\n\n", text),
        "double spaces": " ".join(word + (" " if rng.random() < 0.15 else "") for word in words),
        "a leading space": " " + text,
        "one word changed": " ".join(_with_other_word(words, quarter, rng)),
    }
    copies = dict(zip(texts, tokenizer.encode_batch(list(texts.values())), strict=True))
    copies["re-tokenised"] = split_tokens(copies["as it is"], tokenizer, rng)
    return copies


def _with_other_word(words: Sequence[str], place: int, rng: np.random.Generator) -> list[str]:
    """The words with the one at `place` replaced by another of them."""
    changed = list(words)
    changed[place] = next(word for word in rng.permutation(words) if word != words[place])
    return changed


def split_tokens(ids: np.ndarray, tokenizer: Tokenizer, rng: np.random.Generator) -> np.ndarray:
    """The same bytes in other tokens: some ids are replaced by two shorter ones."""
    known = {tokenizer.decode_bytes([each]): each for each in range(tokenizer.bod_id, tokenizer.vocab_size)}
    result: list[int] = []
    for token in ids.tolist():
        piece = tokenizer.decode_bytes([token])
        cuts = [cut for cut in range(1, len(piece)) if piece[:cut] in known and piece[cut:] in known]
        if cuts and rng.random() < SPLIT_SHARE:
            cut = int(rng.choice(cuts))
            result += [known[piece[:cut]], known[piece[cut:]]]
        else:
            result.append(token)
    return np.array(result, np.int32)


def measure_leak(
    copies: Sequence[np.ndarray], drops: Sequence[np.ndarray], pieces: Sequence[bytes], first: int
) -> Leak:
    """Compares the masks of copies (ids int32[n], drops bool[n] each) on the labels `first` … of the first one.

    Copies are aligned by their normalised bytes. A label is masked in a copy when one of its bytes lies in a dropped
    label there; a copy in which the words themselves are others says nothing about the label. Labels without text
    (line ends, spaces) are left out.
    """
    texts, masks = zip(
        *(_bytes_and_mask(ids, dropped, pieces) for ids, dropped in zip(copies, drops, strict=True)), strict=True
    )
    spans = np.cumsum([0, *(len(normalized(pieces[token])) for token in copies[0].tolist())])
    everywhere = np.ones(len(copies[0]), bool)
    for text, mask in zip(texts, masks, strict=True):
        there = _counterparts(texts[0], text)
        for label in range(first, len(copies[0])):
            places = there[spans[label] : spans[label + 1]]
            if len(places) and (places >= 0).all():
                everywhere[label] &= mask[places].any()
    judged = np.flatnonzero(np.diff(spans) > 0)
    judged = judged[judged >= first]
    here = np.asarray(drops[0])[judged]
    return Leak(len(judged), int(here.sum()), int((here & everywhere[judged]).sum()))


def _bytes_and_mask(ids: np.ndarray, dropped: np.ndarray, pieces: Sequence[bytes]) -> tuple[bytes, np.ndarray]:
    texts = [normalized(pieces[token]) for token in ids.tolist()]
    return b"".join(texts), np.repeat(np.asarray(dropped, bool), [len(text) for text in texts])


def _counterparts(text: bytes, other: bytes) -> np.ndarray:
    """int[len(text)]: where each byte stands in the other text, -1 where it has no counterpart."""
    places = np.full(len(text), -1)
    for match in difflib.SequenceMatcher(None, text, other, autojunk=False).get_matching_blocks():
        places[match.a : match.a + match.size] = np.arange(match.b, match.b + match.size)
    return places

"""Synthetic prose: paragraphs of grammatical sentences that do not repeat within a text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from apertus_jax.corpus.overlay.phrases import INSULTS, PHRASES

SENTENCES_PER_PARAGRAPH = 4


class Prose:
    """A writer in one language; the same random state writes the same text."""

    def __init__(self, language: str, generator: random.Random):
        self.language = language
        self._generator = generator
        phrases = PHRASES[language]
        # Every list is used up before a phrase comes again, so that a text does not repeat itself.
        self._decks = {
            "s": _deck(phrases.subjects, generator),
            "v": _deck(phrases.verbs, generator),
            "o": _deck(phrases.objects, generator),
            "p": _deck(phrases.places, generator),
            "t": _deck(phrases.times, generator),
        }
        self._patterns = _deck(phrases.patterns, generator)
        self._insults = _deck(INSULTS[language][0], generator) if language in INSULTS else iter(())

    def sentence(self) -> str:
        """Returns one sentence."""
        pattern = next(self._patterns)
        words = {
            name: next(self._decks[name[0]])
            for name in ("s", "v", "o", "p", "t", "s2", "v2", "o2")
            if f"{{{name}}}" in pattern
        }
        return _capital(pattern.format(**words))

    def sentences(self, count: int) -> list[str]:
        """Returns several sentences."""
        return [self.sentence() for _ in range(count)]

    def insult(self) -> str:
        """Returns a sentence that insults its reader with words that do not exist; see `INSULTS` for the languages."""
        _, adjectives, nouns = INSULTS[self.language]
        choose = self._generator.choice
        return _capital(next(self._insults).format(a=choose(adjectives), n=choose(nouns))) + "!"


def paragraphs(sentences: Sequence[str]) -> str:
    """Returns sentences as a text of paragraphs."""
    groups = [sentences[at : at + SENTENCES_PER_PARAGRAPH] for at in range(0, len(sentences), SENTENCES_PER_PARAGRAPH)]
    return "\n\n".join(" ".join(group) for group in groups)


def _deck(phrases: Sequence[str], generator: random.Random) -> Iterator[str]:
    """Yields phrases in shuffled rounds for ever."""
    while True:
        shuffled = list(phrases)
        generator.shuffle(shuffled)
        yield from shuffled


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]

"""Streaming matcher of the output filter: finds what is listed, and redacts, stops or logs.

What is found does not depend on where the stream was cut. Memory is bounded by the longest n-gram or string of the
filter, whatever the length of the text: text is held back until nothing listed can begin in it any more.

Source: docs/reference/data.md §13.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import logging
from typing import Any

from apertus_jax.release.output_filter.filter_file import ProtectedContent
from apertus_jax.release.output_filter.words import Chunk, ChunkReader

# Between two words of one occurrence; after a longer gap the words before it are let go, and only what follows is
# redacted.
LONGEST_GAP = 4096
_log = logging.getLogger(__name__)


class Action(enum.StrEnum):
    """Action on an occurrence: it is replaced, or ends the text, or is only counted."""

    REDACT = "redact"
    STOP = "stop"
    LOG = "log"


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """An occurrence that ends with the latest word: what it is of, and the number of its first word."""

    kind: str
    first_word: int


class WordMatcher:
    """Finds the n-grams and strings that end with each word of a stream."""

    def __init__(self, protected: ProtectedContent):
        """Begins a stream of words."""
        self._protected = protected
        self._sizes = protected.header.ngram_sizes
        self._lengths = protected.header.string_lengths
        self.max_words = max(self._sizes, default=0)
        self.max_characters = max(self._lengths, default=0)
        self.num_words = 0
        self.num_characters = 0  # of all words so far
        self._words: collections.deque[str] = collections.deque(maxlen=self.max_words)
        self._tail = ""  # the last `max_characters` of them
        self._starts: collections.OrderedDict[int, int] = collections.OrderedDict()  # character → number of its word

    def add(self, word: str) -> list[Match]:
        """Feeds the next word; returns the occurrences that end with it."""
        self.num_words += 1
        self._words.append(word)
        matches = self._strings(word) if self._lengths else []
        words = list(self._words)
        for size in self._sizes:
            if size <= len(words) and self._protected.has_ngram(words[-size:]):
                matches.append(Match("passages", self.num_words - size))
        return matches

    def _strings(self, word: str) -> list[Match]:
        self._starts[self.num_characters] = self.num_words - 1
        self.num_characters += len(word)
        self._tail = (self._tail + word)[-self.max_characters :]
        while next(iter(self._starts)) < self.num_characters - self.max_characters:
            self._starts.popitem(last=False)
            if not self._starts:  # the word alone is longer than any string
                return []
        return [
            Match("strings", self._starts[self.num_characters - length])
            for length in self._lengths
            if self.num_characters - length in self._starts and self._protected.has_string(self._tail[-length:])
        ]


@dataclasses.dataclass(slots=True)
class _Held:
    """A chunk with words that is held back, and the gap before it."""

    gap: str
    text: str
    end_word: int  # number of the first word after it
    last_start: int  # characters of all words before its last one
    hidden: bool = False


class FilteredText:
    """One stream of text through a filter: `feed` pieces, then `finish`; both return what may be shown by then."""

    def __init__(self, protected: ProtectedContent, action: Action, replacement: str, context: str = ""):
        """Begins a stream.

        Args:
          protected: the opened filter.
          action: what happens to an occurrence.
          replacement: what stands in its place under `Action.REDACT`.
          context: text that comes before the stream and is known to who reads it, such as a prompt. An occurrence may
            begin in it; what lies in it wholly is not counted, and none of it is ever returned.
        """
        self.stopped = False
        self._protected, self._action, self._replacement = protected, action, replacement
        self._reader = ChunkReader()
        self._matcher = WordMatcher(protected)
        self._held: collections.deque[_Held] = collections.deque()
        self._gap = ""
        self._shown: list[str] = []
        self._in_hidden = False  # whether what came out last was a replacement
        self._read, self._context = 0, len(context)
        self._context_left = len(context)
        self._counts = {"passages": 0, "strings": 0}
        self._redactions = 0
        self.feed(context)

    def feed(self, text: str) -> str:
        """Feeds the next piece of the text; returns what may be shown of it and of what was held back."""
        return self._take_all([] if self.stopped else self._reader.feed(text))

    def finish(self) -> str:
        """Ends the text and returns the rest of what may be shown."""
        shown = self._take_all([] if self.stopped else self._reader.finish())
        if not self.stopped:
            self._release(len(self._held))
            self._shown.append(self._after_context(self._gap))
            self._gap = ""
        found = sum(self._counts.values())
        if found and self._action == Action.LOG:
            _log.warning("output filter version %d: %d listed in a text", self._protected.header.version, found)
        return shown + self._take_shown()

    def report(self) -> dict[str, Any]:
        """Returns what was done so far: counts, and which filter did it; nothing of the text."""
        return {
            "version": self._protected.header.version,
            "digest": self._protected.digest,
            "action": str(self._action),
            "matches": dict(self._counts),
            "redactions": self._redactions,
            "stopped": self.stopped,
        }

    def _take_all(self, chunks: list[Chunk]) -> str:
        for chunk in chunks:
            self._read += len(chunk.text)
            if chunk.words:
                self._take_words(chunk)
            else:
                self._take_gap(chunk.text)
            if self.stopped:
                break
        return self._take_shown()

    def _take_gap(self, text: str) -> None:
        self._gap += text
        if len(self._gap) > LONGEST_GAP:
            self._release(len(self._held))
            self._shown.append(self._after_context(self._gap))
            self._gap, self._in_hidden = "", False

    def _take_words(self, chunk: Chunk) -> None:
        before = self._matcher.num_characters + sum(map(len, chunk.words[:-1]))
        self._held.append(_Held(self._gap, chunk.text, self._matcher.num_words + len(chunk.words), before))
        self._gap = ""
        matches = [match for word in chunk.words for match in self._matcher.add(word)]
        if matches and self._read > self._context:
            self._act(matches)
        if not self.stopped:
            self._release(self._num_safe())

    def _act(self, matches: list[Match]) -> None:
        for match in matches:
            self._counts[match.kind] += 1
        first = min(match.first_word for match in matches)
        if self._action == Action.REDACT:
            for held in reversed(self._held):
                if held.end_word <= first:
                    break
                held.hidden = True
        elif self._action == Action.STOP:
            self._release(sum(held.end_word <= first for held in self._held))
            self._shown.append(self._after_context(self._held[0].gap))
            self._held.clear()
            self._gap, self.stopped = "", True

    def _num_safe(self) -> int:
        """Returns how many of the held chunks no occurrence can reach any more that ends with a later word."""
        matcher = self._matcher
        first_word = matcher.num_words - max(matcher.max_words, 1) + 1
        first_start = matcher.num_characters - matcher.max_characters
        safe = 0
        for held in self._held:
            if held.end_word > first_word or held.last_start > first_start:
                break
            safe += 1
        return safe

    def _release(self, count: int) -> None:
        for _ in range(count):
            held = self._held.popleft()
            gap, text = self._after_context(held.gap), self._after_context(held.text)
            if not held.hidden:
                self._shown.append(gap + text)
                self._in_hidden = False
            elif text and not self._in_hidden:
                self._shown.append(gap + self._replacement)
                self._redactions += 1
                self._in_hidden = True

    def _after_context(self, text: str) -> str:
        """Returns what of the next characters of the text is not context."""
        skipped = min(self._context_left, len(text))
        self._context_left -= skipped
        return text[skipped:]

    def _take_shown(self) -> str:
        shown = "".join(self._shown)
        self._shown.clear()
        return shown

"""Listing of protected content: what people write, and the n-grams and strings made from it.

    {"text": "A passage that somebody asked to have removed …"}
    {"string": "Erika Muster"}

One JSON object per line; other fields are ignored, so that what `tombstoned` writes is a listing as it stands. A
listing is personal data: no message repeats a value of it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.release.output_filter.words import is_unspaced, words_of
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json
from apertus_jax.storage.listing import regular_file
from apertus_jax.validation import fields_by_annotation

# A string shorter than this would be found in every other text. Letters of scripts without spaces say more.
SHORTEST_STRING = 4
SHORTEST_UNSPACED_STRING = 2
# A passage too short for n-grams is kept as a string, unless it says as little as "Contact us".
SHORTEST_PASSAGE = 24
SHORTEST_UNSPACED_PASSAGE = 8
# The filter holds back as much text as its longest string.
LONGEST_STRING = 1024
TOMBSTONED = "tombstoned_documents"  # the kind of folder that the command of this name writes
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class NgramPlan:
    """Rule by which passages become n-grams.

    Attributes:
      sizes: lengths in words; a passage is protected by the longest that it is as long as.
      unspaced_sizes: the same for passages that are mostly in scripts without spaces, where a word is one letter.
      stride: how many words one n-gram begins after the last; 0 means side by side. A passage's last n-gram ends with
        it. Whole passages are covered either way; a part of one is found when it has stride + n − 1 words or more.
    """

    sizes: Sequence[int] = (8,)
    unspaced_sizes: Sequence[int] = (20,)
    stride: int = 0

    def __post_init__(self) -> None:
        for name, sizes in (("sizes", self.sizes), ("unspaced_sizes", self.unspaced_sizes)):
            if not sizes or any(not isinstance(size, int) or not 2 <= size <= 64 for size in sizes):
                raise UserError(f"NgramPlan.{name} = {list(sizes)!r} must be whole numbers of words from 2 to 64")
        if not 0 <= self.stride <= min(*self.sizes, *self.unspaced_sizes):
            raise UserError(
                f"NgramPlan.stride = {self.stride} must be from 1 to the smallest n-gram size, or 0 for side by side; "
                "a larger one would leave words between n-grams unprotected"
            )

    def size_for(self, words: Sequence[str]) -> int | None:
        """Returns the length of the n-grams of a passage, None for one that is too short."""
        sizes = self.unspaced_sizes if 2 * sum(map(is_unspaced, words)) > len(words) else self.sizes
        return max((size for size in sizes if size <= len(words)), default=None)

    def ngrams(self, words: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yields the n-grams that protect a passage that is long enough."""
        size = self.size_for(words)
        assert size is not None  # the passage is long enough
        last = len(words) - size
        for start in (*range(0, last, self.stride or size), last):
            yield tuple(words[start : start + size])


@dataclasses.dataclass
class Listing:
    """N-grams and strings made from a listing.

    Attributes:
      ngrams: tuples of words.
      strings: words put together, without anything between.
      passages, short_passages, listed_strings: how many lines there were of each; short passages are kept as strings.
      unprotected: passages that are too short for that as well, and are not protected at all.
    """

    ngrams: set[tuple[str, ...]] = dataclasses.field(default_factory=set)
    strings: set[str] = dataclasses.field(default_factory=set)
    passages: int = 0
    short_passages: int = 0
    listed_strings: int = 0
    unprotected: int = 0

    def add_passage(self, text: str, plan: NgramPlan) -> bool:
        """Adds a passage; returns whether it could be protected."""
        words = words_of(text)
        if plan.size_for(words) is not None:
            self.ngrams.update(plan.ngrams(words))
            self.passages += 1
        elif _why_no_string(words, SHORTEST_PASSAGE, SHORTEST_UNSPACED_PASSAGE) is None:
            self.strings.add("".join(words))
            self.short_passages += 1
        else:
            self.unprotected += 1
            return False
        return True

    def add_string(self, text: str) -> None:
        """Adds a string.

        Raises:
          UserError: it is too short or too long; the message does not repeat it.
        """
        words = words_of(text)
        if why := _why_no_string(words):
            raise UserError(why)
        self.strings.add("".join(words))
        self.listed_strings += 1


def read_listing(inputs: Sequence[epath.PathLike], plan: NgramPlan) -> Listing:
    """Reads every line of the inputs.

    Raises:
      UserError: an input is missing, a line is neither a passage nor a string, a string is too short or too long, or
        nothing is left to protect.
    """
    listing = Listing()
    for path in inputs:
        for place, kind, text in read_rows(path):
            if kind == "text":
                if not listing.add_passage(text, plan):
                    _log.warning(
                        "%s: this text is too short to be protected; list it as a string if it has to be", place
                    )
                continue
            try:
                listing.add_string(text)
            except UserError as error:
                raise UserError(f"{place}: {error}") from error
    if not listing.ngrams and not listing.strings:
        if not listing.unprotected and all(map(_is_of_tombstoned, inputs)):
            _log.warning("tombstoned has found nothing in the older store: the filter is valid and lists nothing")
            return listing
        named = ", ".join(str(path) for path in inputs)
        raise UserError(f'{named} lists nothing to protect; write lines {{"text": …}} or {{"string": …}}')
    return listing


def _is_of_tombstoned(path: epath.PathLike) -> bool:
    return artifacts.is_complete(path) and artifacts.kind_of(path) == TOMBSTONED


def read_rows(path: epath.PathLike) -> Iterator[tuple[str, str, str]]:
    """Yields (place, "text" or "string", value) of every line of a JSONL file, or of those in a complete folder.

    Raises:
      UserError: there is no such file, or a line is not an object with one of the two; the message names file and row.
    """
    root = epath.Path(path)
    if not root.exists():
        raise UserError(f"listing {root} does not exist; give a JSONL file, or the folder that tombstoned wrote")
    files = [root]
    if root.is_dir():
        if not artifacts.is_complete(root):
            raise UserError(
                f"listing {root} is a folder that no command has finished; run the one that writes it again"
            )
        artifacts.verify(root, artifacts.kind_of(root))
        files = [root / name for name in artifacts.list_files(root) if name.endswith(".jsonl")]
        if not files:
            raise UserError(f"listing {root} holds no .jsonl file; give the folder that tombstoned wrote")
    for file in files:
        with regular_file(file, "listing").open("rb") as lines:
            for row, line in enumerate(lines, start=1):
                if line.strip():
                    place = f"{file}, row {row}"
                    yield place, *_parsed(line, place)


def _parsed(line: bytes, place: str) -> tuple[str, str]:
    fields: Any = parse_json(line, place)
    given = [name for name in ("text", "string") if isinstance(fields, dict) and fields.get(name) is not None]
    if len(given) != 1:
        raise UserError(f'{place}: an object with either "text" or "string" is expected')
    value = fields[given[0]]
    if not isinstance(value, str):
        raise UserError(f"{place}: {given[0]} must be a string, found {type(value).__name__}")
    return given[0], value


def _why_no_string(
    words: Sequence[str], shortest: int = SHORTEST_STRING, shortest_unspaced: int = SHORTEST_UNSPACED_STRING
) -> str | None:
    """Returns what is wrong with words as a string, or None; lengths are in letters and digits."""
    characters = sum(map(len, words))
    if not words or characters < (shortest_unspaced if all(map(is_unspaced, words)) else shortest):
        return f"a string of {characters} letters and digits would be found in too many texts; list more of it"
    if characters > LONGEST_STRING:
        return f"a string of {characters} letters and digits is longer than {LONGEST_STRING}; list it as a text"
    return None

"""PII spans of a text, and their replacement in one pass."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Sequence

from apertus_jax.corpus.personal_data.policy import KINDS, MARKERS


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters `start` to `end` (exclusive) of the text before the rewriting; the value itself is not kept."""

    start: int
    end: int
    kind: str


@dataclasses.dataclass(frozen=True, slots=True)
class Rewrite:
    """A text without personal data, how many values of each kind of the policy it held, and where they were."""

    text: str
    counts: dict[str, int]
    spans: tuple[Span, ...]


def end_of(pattern: re.Pattern[str], text: str, start: int, end: int = sys.maxsize) -> int:
    """Returns where the match of a pattern ends that begins at `start`; the pattern matches there, be it nothing."""
    found = pattern.match(text, start, end)
    assert found is not None
    return found.end()


def resolve_overlaps(candidates: Iterable[Span]) -> list[Span]:
    """Returns disjoint spans, in order: candidates that overlap, directly or through others, become one.

    The longest decides the kind (then the first, then the order of `KINDS`), and the span covers all of them: what is
    left of a shorter candidate would still be a piece of somebody's data. Candidates that only touch stay apart.
    """
    resolved: list[Span] = []
    longest: Span | None = None
    start = end = 0
    for candidate in sorted(candidates):
        if longest is not None and candidate.start < end:
            end = max(end, candidate.end)
            longest = max(longest, candidate, key=_precedence)
            continue
        if longest is not None:
            resolved.append(Span(start, end, longest.kind))
        start, end, longest = candidate.start, candidate.end, candidate
    if longest is not None:
        resolved.append(Span(start, end, longest.kind))
    return resolved


def replace_spans(text: str, spans: Sequence[Span]) -> str:
    """Returns the text with each of the disjoint, sorted spans replaced by the marker of its kind."""
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces += (text[position : span.start], MARKERS[span.kind])
        position = span.end
    pieces.append(text[position:])
    return "".join(pieces)


def _precedence(span: Span) -> tuple[int, int, int]:
    """Orders overlapping candidates: longest, then first, then by kind."""
    return span.end - span.start, -span.start, -KINDS.index(span.kind)

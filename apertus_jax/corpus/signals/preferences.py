"""Usage preferences on training: yes, no, nothing, or not understood.

A statement is understood as a whole or not at all. Whoever writes `ai_train=no` or `train-ai=never` wanted something
said about use, so that a word which is no known one, or has no known value, is never taken for silence; it is a
preference of its own (`not_understood`), and the rule decides what it means. An unknown word with the value for
consent takes nothing away and is passed over. Of words that are said twice the most restrictive counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from apertus_jax.corpus.signals.signal import ALLOW, DENY, NOT_UNDERSTOOD, UNKNOWN
from apertus_jax.corpus.signals.structured_fields import Token, parse_members

_PAIR = re.compile(r"([^\s=]+)\s*=\s*([^\s=]+)")
_SIGNAL_CATEGORIES = ("ai-train", "ai-input", "search")
_USAGE_CATEGORIES = ("train-ai", "ai-use", "search")


def ai_train(pairs: str) -> tuple[str, str]:
    """Returns (verdict, words for the evidence) of a Content-Signal: `name=yes|no` pairs with commas, in any case."""
    members: list[tuple[str, str]] = []
    for piece in re.split("[,;]", pairs.lower()):
        if piece.strip():
            pair = _PAIR.fullmatch(piece.strip())
            members.append((pair[1], pair[2]) if pair else (piece.strip(), ""))
    return _verdict(members, _SIGNAL_CATEGORIES, "yes", "no")


def train_ai(dictionary: str) -> tuple[str, str]:
    """Returns (verdict, words for the evidence) of a Content-Usage: a structured dictionary, in its exact spelling."""
    try:
        found = parse_members(dictionary)
    except ValueError:
        return NOT_UNDERSTOOD, "not a dictionary"
    members = [(name, value if isinstance(value, Token) else "") for name, value in found]
    return _verdict(members, _USAGE_CATEGORIES, "y", "n")


def _verdict(members: Iterable[tuple[str, str]], categories: tuple[str, ...], yes: str, no: str) -> tuple[str, str]:
    """Judges (name, value) pairs; `categories` are the known names, first the one about training.

    The evidence repeats known words only: others are text of strangers.
    """
    training = categories[0]
    said = set()
    understood = True
    for name, value in members:
        if name == training:
            said.add(value)
        if value != yes and not (name in categories and value == no):
            understood = False
    if no in said:
        return DENY, f"{training}={no}"
    if not understood:
        return NOT_UNDERSTOOD, f"{training} not understood" if said else "not understood"
    if said:
        return ALLOW, f"{training}={yes}"
    return UNKNOWN, f"no {training}"

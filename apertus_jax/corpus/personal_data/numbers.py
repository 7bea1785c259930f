"""PII numbers: cheap searches for the shapes of accounts, cards and persons, then the checks.

Each search anchors on something rare (`756`, a plus sign) or on the first digit of a
long number, looks at a bounded piece of text, and is therefore linear.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.personal_data.boundaries import ends_with_marker, stands_alone
from apertus_jax.corpus.personal_data.checks import iban_shapes, is_ahv, is_card, is_iban
from apertus_jax.corpus.personal_data.spans import Span

_GAP = " \u00a0\u202f"  # space, no-break space, narrow no-break space

_IBAN_HEAD = re.compile(rf"[0-9](?<=[A-Za-z]{{2}}[0-9])[0-9](?=[{_GAP}\-]?[A-Za-z0-9]{{4}})")
_AHV = re.compile(rf"756([.\-{_GAP}]?)[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{2}}(?![0-9])")
# The first two digits that some issuer has; years in tables are none of them.
_CARD_HEAD = re.compile(
    rf"[2-6](?<![0-9][2-6])(?:(?<=2)[2-7]|(?<=3)[04-9]|(?<=4)[0-9]|(?<=5)[0-58]|(?<=6)[0234567])[0-9]{{2}}(?=[0-9]{{8}}|[\-{_GAP}][0-9]{{4}})"
)
_CARD_SHAPES = (
    re.compile(rf"[0-9]{{4}}([\-{_GAP}])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{3}}"),
    re.compile(rf"[0-9]{{4}}([\-{_GAP}])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}"),
    re.compile(rf"[0-9]{{4}}([\-{_GAP}])[0-9]{{6}}\1[0-9]{{5}}"),
    re.compile(rf"[0-9]{{4}}([\-{_GAP}])[0-9]{{6}}\1[0-9]{{4}}"),
    re.compile(r"[0-9]{14,19}"),
)
_NOT_DIGITS = re.compile(r"[^0-9]+")


def find_ibans(text: str) -> list[Span]:
    """Returns the account numbers (IBAN) of a text, compact or in groups of four; letters of either case."""
    found = []
    for match in _IBAN_HEAD.finditer(text):
        start = match.start() - 2
        shape = iban_shapes().get(text[start : start + 2].upper())
        if shape is None:
            continue
        length, separator = shape[0], text[match.end()]
        if separator.isalnum():
            end = start + length
            number = text[start:end]
        else:
            end = start + length + (length - 1) // 4
            number = text[start:end]
            if any(character != separator for character in number[4::5]):
                continue
            number = number.replace(separator, "")
        before = start - 4 if text[max(0, start - 4) : start].upper() == "IBAN" else start  # the word glued to it
        if is_iban(number.upper()) and number.isascii() and stands_alone(text, before, end, ""):
            found.append(Span(start, end, "iban"))
    return found


def find_ahv_numbers(text: str) -> list[Span]:
    """Returns the Swiss social insurance numbers of a text, compact or grouped 3-4-4-2 by one kind of separator."""
    return [
        Span(*match.span(), "ahv")
        for match in _AHV.finditer(text)
        if is_ahv(_NOT_DIGITS.sub("", match.group())) and stands_alone(text, *match.span(), ".-")
    ]


def find_cards(text: str) -> list[Span]:
    """Returns the payment card numbers of a text, compact or grouped as they are printed.

    Groups that continue a row of groups belong to that (an account number with a wrong check digit, say), unless the
    row before is a card.
    """
    found: list[Span] = []
    for head in _CARD_HEAD.finditer(text):
        for shape in _CARD_SHAPES:
            match = shape.match(text, head.start())
            if match is None or not is_card(_NOT_DIGITS.sub("", match.group())):
                continue
            start, end = match.span()
            after_card = bool(found) and found[-1].end == start - 1
            if stands_alone(text, start, end, ".-") and (after_card or not _continues_groups(text, match)):
                found.append(Span(start, end, "card"))
                break
    return found


def _continues_groups(text: str, match: re.Match[str]) -> bool:
    """Returns whether the separator of a grouped number also stands before it, behind a digit or a marker."""
    before = match.start() - 1
    if not match.re.groups or before < 1 or text[before] != match.group(1):
        return False
    return text[before - 1].isdecimal() or ends_with_marker(text, before)

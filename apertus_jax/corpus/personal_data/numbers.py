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

# Groups of an account number are of any length, and what stands between two of them is at most a line end and blanks.
_BETWEEN = rf"(?:[\-./_]|[{_GAP}]{{0,2}}\t?(?:\r?\n)?[{_GAP}]{{0,2}})"
_IBAN_HEAD = re.compile(
    rf"[0-9](?:(?<=[A-Za-z]{{2}}[0-9])|(?<=[A-Z]{{2}}[{_GAP}][0-9]))[0-9](?={_BETWEEN}[A-Za-z0-9]{{2}})"
)
_IBAN_GROUP = re.compile(rf"{_BETWEEN}([A-Za-z0-9]{{1,31}})")
MOST_GROUPS = 10
_AHV = re.compile(rf"756([.\-\t{_GAP}]?)[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{2}}(?![0-9])")
_CARD_GAP = rf"\-./_\t{_GAP}"
# The first two digits that some issuer has; years in tables are none of them.
_CARD_HEAD = re.compile(
    rf"[2-6](?<![0-9][2-6])(?:(?<=2)[2-7]|(?<=3)[04-9]|(?<=4)[0-9]|(?<=5)[0-58]|(?<=6)[0234567])[0-9]{{2}}(?=[0-9]{{8}}|[{_CARD_GAP}][0-9]{{4}})"
)
_CARD_SHAPES = (
    re.compile(rf"[0-9]{{4}}([{_CARD_GAP}])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{3}}"),
    re.compile(rf"[0-9]{{4}}([{_CARD_GAP}])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}"),
    re.compile(rf"[0-9]{{4}}([{_CARD_GAP}])[0-9]{{6}}\1[0-9]{{5}}"),
    re.compile(rf"[0-9]{{4}}([{_CARD_GAP}])[0-9]{{6}}\1[0-9]{{4}}"),
    re.compile(r"[0-9]{14,19}"),
)
_NOT_DIGITS = re.compile(r"[^0-9]+")


def find_ibans(text: str) -> list[Span]:
    """Returns the account numbers (IBAN) of a text, compact or in groups of any length; letters of either case.

    Structure and check digits make sure that groups which only stand beside each other are none.
    """
    found = []
    for match in _IBAN_HEAD.finditer(text):
        start = match.start() - 2 if text[match.start() - 1].isalpha() else match.start() - 3
        country = text[start : start + 2].upper()
        shape = iban_shapes().get(country)
        if shape is None:
            continue
        number, end = _grouped(text, match.end(), shape[0] - 4)
        before = start - 4 if text[max(0, start - 4) : start].upper() == "IBAN" else start  # the word glued to it
        if is_iban(country + match.group() + number.upper()) and stands_alone(text, before, end, ""):
            found.append(Span(start, end, "iban"))
    return found


def _grouped(text: str, start: int, length: int) -> tuple[str, int]:
    """Returns characters of groups until there are enough, and where the last one ends; fewer where they end before."""
    number, end = "", start
    for _ in range(MOST_GROUPS):
        group = _IBAN_GROUP.match(text, end)
        if len(number) >= length or group is None:
            break
        missing = length - len(number)
        number += group[1][:missing]
        end = min(group.end(), group.start(1) + missing)
    return number, end


def find_ahv_numbers(text: str) -> list[Span]:
    """Returns the Swiss social insurance numbers of a text, compact or grouped 3-4-4-2 by one kind of separator."""
    found = []
    for match in _AHV.finditer(text):
        start, end = match.span()
        before = start - 3 if text[max(0, start - 3) : start].upper() in ("AHV", "AVS") else start
        if is_ahv(_NOT_DIGITS.sub("", match.group())) and stands_alone(text, before, end, ".-"):
            found.append(Span(start, end, "ahv"))
    return found


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

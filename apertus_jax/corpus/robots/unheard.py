"""Refusals in robots.txt that no parser hears: lines that somebody meant as rules, written so that they are none.

Two ways out. A value of `Disallow` that names paths in a way of its own is read as those paths as well
(`meant_paths`): a refusal counts in either reading. Where a line cannot be read at all (`looks_meant`), the file is not
understood, and the policy decides what that means (state `malformed`).
"""

from __future__ import annotations

import functools
import re
import unicodedata

LONGEST_LOOKED_AT = 200  # octets of a line; the name of a field stands at its beginning
_ABSOLUTE = re.compile(rb"https?://[^/\s]+(?=/)", re.IGNORECASE)
_WRAPPED = re.compile(rb"[\"'`<(\[{^.\\]+(?=/)")
_SLASHES = re.compile(rb"(?:%2[Ff]|\xef\xbc\x8f|\\)")
_BETWEEN_PATHS = re.compile(rb"[,;]?[ \t]+(?=[/*])|(?<=\A/)[ \t][^*]*\Z")
_CLOSING = b"\"'`>)]}"
_EVERYTHING = frozenset((b"all", b"any", b"everything", b"yes", b"true", b".", b"./", b"on"))
# Groups of nobody in particular; the standard knows `*` alone.
GENERIC_NAMES = frozenset(
    ("all", "any", "anyone", "every", "everyone", "everybody", "bots", "robots", "crawlers", "ai")
)

_FIELDS = ("disallow", "useragent")
_SYNONYMS = frozenset(("deny", "denied", "block", "forbid", "refuse", "agent", "agents", "robot", "bot"))
# Refusals of training under other names than those that are read (`DisallowAITraining` stands in a draft), and what
# takes nothing away.
_TRAINING = re.compile(
    r"no(?:ai|ml|llms?|tdm|train(?:ing)?)|(?:gen)?ai(?:train(?:ing)?|disallow|use|usage|input|access)|trainai"
    r"|tdm(?:reservation)?|usagepref(?:erence)?s?"
)
_CONSENT = frozenset(("y", "yes", "true", "allow", "allowed", "all", "0", "?1"))
_SIGNAL = re.compile(r"content(?:signal|usage)s?")
_NOT_LETTERS = re.compile(r"[^a-z]+")
_NAME = re.compile(r"(?:[\W\d_]*)((?:[^\W\d_]|[-_ \u2010-\u2015])+)")
# Of plain lines: a beginning as of a field, or one word (perhaps of two parts) and what stands for a colon.
_MAY_BE_MEANT = re.compile(
    rb"[^A-Za-z]{0,8}(?:dis|use|[A-Za-z]+(?:[_ -]+[A-Za-z]+)?[^A-Za-z]{0,3}[:=;])", re.IGNORECASE
)
_RECORD_INSIDE = re.compile(rb"(?:dis?s?all?ow|user[ _-]?agents?)[ \t]*:", re.IGNORECASE)
# Letters of other scripts that look like ours.
_LOOK_ALIKES = str.maketrans(
    "абсԁеһіјӏорѕтухԝѡАВСЕНІЈКМОРЅТХαεινορτυΑΒΕΗΙΚΜΝΟΡΤΧ", "abcdehijlopstuxwwABCEHIJKMOPSTXaeivoptuABEHIKMNOPTX"
)


def meant_paths(value: bytes) -> list[bytes]:
    """Returns the paths that a value of `Disallow` means besides the one it is; nothing for one that is a plain path.

    An address of another host is not told from one of this host, so that one without a path closes nothing; and a
    path of stars among others is a slip.
    """
    is_path = value[:1] in (b"/", b"*")
    if is_path and b" " not in value and b"\t" not in value:
        return []
    parts = _BETWEEN_PATHS.split(value)
    if is_path and len(parts) == 1:
        return []
    if value.lower().strip(_CLOSING) in _EVERYTHING:
        return [b"/"]
    found = []
    for part in parts:
        if absolute := _ABSOLUTE.match(part):
            part = part[absolute.end() :]
            part = part if part.strip(b"/*") else b""
        elif (wrapped := _WRAPPED.match(part)) and part[:1] != b"/":
            part = part[wrapped.end() :].rstrip(_CLOSING)
        elif slash := _SLASHES.match(part):
            part = b"/" + part[slash.end() :]
        is_slip = not part.strip(b"/*") and b"*" in value
        if part[:1] in (b"/", b"*") and part != value and not is_slip:
            found.append(part)
    return found


def looks_meant(line: bytes) -> bool:
    """Returns whether a line that is no record of RFC 9309 was meant to be a rule or to name an agent."""
    if line.isascii() and not _MAY_BE_MEANT.match(line):
        return False
    text = plain_letters(line[:LONGEST_LOOKED_AT].decode("utf-8", "replace")).lower()
    named = _NAME.match(text)
    if named is None:
        return False
    name = _NOT_LETTERS.sub("", named[1])
    rest = text[named.end() :].lstrip()
    if _SIGNAL.fullmatch(name):
        return not line.isascii()  # else it is read
    if _TRAINING.fullmatch(name):
        value = rest[1:] if rest[:1] in tuple(":=;") else None
        return value is not None and value.strip() not in _CONSENT
    if name in _SYNONYMS:
        return rest[:1] == ":"
    if any(name.startswith(field) for field in _FIELDS):
        return len(name) <= 24 or rest[:1] in tuple(":=;") or holds_a_record(line)
    return rest[:1] in tuple(":=;") and any(_is_near(name, field) for field in _FIELDS)


def plain_letters(text: str) -> str:
    """Returns a text with compatibility characters and letters that look like ours written as ours."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKES)


def holds_a_record(value: bytes) -> bool:
    """Returns whether the name of a field stands within the value of another."""
    return _RECORD_INSIDE.search(value) is not None


@functools.lru_cache(maxsize=1 << 12)
def _is_near(name: str, field: str) -> bool:
    """Returns whether at most two insertions, removals, replacements or swaps of neighbours lie between two words."""
    if abs(len(name) - len(field)) > 2 or name == "allow":
        return False
    before: list[int] = []
    row = list(range(len(field) + 1))
    for i, letter in enumerate(name, start=1):
        before, last, row = row, before, [i]
        for j, other in enumerate(field, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if last and j > 1 and letter == field[j - 2] and name[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1] <= 2

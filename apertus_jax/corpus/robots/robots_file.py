"""Parser of robots.txt into groups of agents and rules (RFC 9309 §2.1-2.2), in time linear in its length.

A block is a run of `user-agent` lines and the lines that follow. Agents share their block's rules instead of each
holding a copy: ten thousand agents before ten thousand rules cost their sum, not their product.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from apertus_jax.corpus.robots.body_text import decode_wide
from apertus_jax.corpus.robots.unheard import (
    GENERIC_NAMES,
    LONGEST_LOOKED_AT,
    holds_a_record,
    looks_meant,
    meant_paths,
    plain_letters,
)

BODY_LIMIT = 512_000  # octets; RFC 9309 §2.5 asks for at least 500 KiB
LINE_LIMIT = 16_663  # octets; Google's parser has a buffer of eight times 2,083, the last of it for its end

_DISALLOW = (b"disallow", b"dissallow", b"dissalow", b"disalow", b"diasllow", b"disallaw")
_USER_AGENT = (b"user-agent", b"useragent", b"user agent")
_FIELDS = {
    **dict.fromkeys(_USER_AGENT, "user-agent"),
    **dict.fromkeys(_DISALLOW, "disallow"),
    b"allow": "allow",
}
_TOKEN = re.compile(rb"[A-Za-z_-]*")
_TOKEN_WITH_DIGITS = re.compile(rb"[A-Za-z0-9_-]*")
# Usage preferences stand in groups beside the rules. Their names are read in any spelling, as those of rules are.
SIGNAL_FIELDS = ("content-signal", "content-usage")
_SIGNAL_NAME = re.compile(rb"content[ \t_-]*(signal|usage)s?")
_SIGNAL_WITHOUT_COLON = re.compile(rb"(content[ _-]?(?:signal|usage)s?)[ \t=]+(.+)", re.IGNORECASE)
# As Google's parser, which compares how names begin: `Disallowed`, `User-agents`. Permissions are taken more narrowly.
_BEGINS_LIKE = re.compile(
    rb"(?:(%s)|(%s))[a-z_ -]{0,16}|allow(?:ed|s)?" % (b"|".join(_USER_AGENT + (b"user_agent",)), b"|".join(_DISALLOW))
)
_INVISIBLE = re.compile(
    rb"(?:[ \t]|\xc2\xa0|\xe3\x80\x80|\xef\xbb\xbf|\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xa4])+"
)
MAX_LOOSE_NAMES, LONGEST_AGENTS, MAX_SUSPECTS = 1000, 2000, 10_000
_PLAIN_AGENT = re.compile(rb"[A-Za-z0-9_-]*(?:/[^,;|*]*)?|\*")
_LOOSE_NAME = re.compile(rb"[a-z0-9_*-]+")
_AROUND_NAMES = b" \t\"'`<>()[]{}.\xc2\xa0\xe2\x80\x8b"
_PATH_BEGINS = (b"/", b"*")
_BLANK_OR_NUL = b" \t\v\f\x00"
# What else ends a line in Unicode, and where an editor or a web server wrote one out.
_OTHER_LINE_ENDS = re.compile(
    rb"\xe2\x80[\xa8\xa9]|\xc2\x85|[\v\f\x1c-\x1e]|<br[ \t]*/?>"
    rb"|(?:\\r)?\\n(?=[ \t]*(?:user|dis|allow|site|crawl|content|\\|\Z))",
    re.IGNORECASE,
)
_SIGNS_OF_OTHER_LINE_ENDS = (
    b"<br",
    b"<BR",
    b"<Br",
    b"\\n",
    b"\v",
    b"\f",
    b"\x1c",
    b"\x1d",
    b"\x1e",
    b"\xe2\x80",
    b"\xc2\x85",
)
_OTHER_FIELDS = frozenset(
    (b"sitemap", b"crawl-delay", b"host", b"clean-param", b"request-rate", b"visit-time", b"noindex")
)
# Google's parser passes over whatever part of a mark a file begins with.
_BYTE_ORDER_MARK = re.compile(rb"(?:\xef\xbb\xbf)*(?:\xef\xbb?)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One line of the file: its number from 1 and its value without comment and surrounding white space."""

    line: int
    value: str


class RuleLine(NamedTuple):
    """An allow or disallow line with a value, as octets of the file; `written` is the value that it was read out of."""

    line: int
    allow: bool
    value: bytes
    written: bytes = b""

    @property
    def text(self) -> str:
        """Returns the rule for people to read."""
        value = self.written or self.value
        return f"{'Allow' if self.allow else 'Disallow'}: {value.decode('utf-8', 'replace')}"


@dataclasses.dataclass(slots=True)
class Block:
    """Records after one run of user-agent lines; `other` has those that RFC 9309 does not know."""

    rules: list[RuleLine] = dataclasses.field(default_factory=list)
    other: list[tuple[str, Record]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class RobotsFile:
    """A parsed file: agent key (lower-case, see `agent_key`) → its blocks in order, which together are its group.

    `loose` are names that user-agent lines hold in ways of their own (see `_loose_names`), with their blocks.
    `preamble` is what stands before the first group: its rules are nobody's (RFC 9309 §2.2.1), its other records are
    said to everybody. `unknown_lines` counts lines that are no record of RFC 9309. `suspects` are those that
    may have been meant as one, `nameless` blocks behind user-agent lines in which nobody is named.
    """

    groups: dict[str, list[Block]]
    truncated: bool
    preamble: Block
    unknown_lines: int = 0
    loose: dict[str, list[Block]] = dataclasses.field(default_factory=dict)
    nameless: Sequence[Block] = ()
    suspects: Sequence[bytes] = ()

    @property
    def has_unheard(self) -> bool:
        """Whether somebody wanted something closed and nobody can tell what, or to whom.

        That are rules of no group or of a group that is nobody in particular, and lines that were meant as rules.
        """
        blocks = [self.preamble, *self.nameless]
        blocks += [block for name in GENERIC_NAMES & self.groups.keys() for block in self.groups[name]]
        return any(not rule.allow for block in blocks for rule in block.rules) or any(map(looks_meant, self.suspects))

    @property
    def is_understood(self) -> bool:
        """Whether the file says nothing, or each of its rules has an agent and a path that a URL can have.

        Whoever reads robots.txt passes over lines that are no records; a protocol without a grammar cannot.
        """
        if self.has_unheard:
            return False
        if not self.groups and not self.loose:
            return not (self.unknown_lines or self.preamble.rules)
        blocks = {id(block): block for group in (*self.groups.values(), *self.loose.values()) for block in group}
        rules = (rule for block in (self.preamble, *blocks.values()) for rule in block.rules)
        return not self.preamble.rules and all(rule.allow or rule.value[:1] in (b"/", b"*") for rule in rules)

    def readings_of(self, agent: str) -> list[tuple[str, list[Block]]]:
        """Returns what speaks to an agent: its group; where it is only named loosely, that as well as the group of `*`.

        Whoever writes `GPT*` or `foo, GPTBot` means GPTBot, and nobody reads it so: a refusal counts in either reading.
        """
        key, blocks = self.group_of(agent)
        own = agent_key(agent)
        if not self.loose or key == own != "*" or own == "*":
            return [(key, blocks)]
        named = {id(block): block for name, found in self.loose.items() if _is_named(own, name) for block in found}
        return [(own, list(named.values())), (key, blocks)] if named else [(key, blocks)]

    def group_of(self, agent: str) -> tuple[str, list[Block]]:
        """Returns the key and the blocks that speak to an agent: its own group, else `*`, else ("", [])."""
        for key in (agent_key(agent), "*"):
            if key and key in self.groups:
                return key, self.groups[key]
        return "", []


@functools.lru_cache(maxsize=1024)
def agent_key(agent: str) -> str:
    """Returns the key under which an agent's group is filed: its product token in lower case, or `*`.

    The token ends at the first illegal character, so `CCBot/2.0` asks for `ccbot`. RFC 9309 knows no digits in
    tokens; a name that has them (AI2Bot) is compared with them, for cut at the digit it would be another's name.
    """
    octets = agent.strip().encode("utf-8", "surrogatepass")
    if octets == b"*":
        return "*"
    return _beginning(_TOKEN_WITH_DIGITS, octets)


def _beginning(token: re.Pattern[bytes], value: bytes) -> str:
    """Returns what a value begins with that is a token, in lower case; empty where nothing is."""
    found = token.match(value)
    return found[0].lower().decode("ascii") if found else ""


def _loose_names(value: bytes) -> list[str]:
    """Returns the names in a user-agent line that is more than one name: in quotes, with wildcards, in a list.

    A star among words of one list item is decoration; one that is an item is everybody.
    """
    value = value[:LONGEST_AGENTS]
    if not value.isascii():
        value = plain_letters(value.decode("utf-8", "replace")).encode()
    names = []
    for item in re.split(rb"[,;|&]", value):
        words = [each.strip(_AROUND_NAMES).lower() for each in item.split()]
        names += words if len(words) < 2 else [word for word in words if word.strip(b"*")]
    whole = [_LOOSE_NAME.match(each) for each in names]
    return [found[0].decode("ascii") for found in whole if found]


@functools.lru_cache(maxsize=1 << 12)
def _is_named(key: str, name: str) -> bool:
    """Returns whether a name with wildcards stands for the key of an agent."""
    first, *rest = name.split("*")
    if not rest:
        return key == name
    last = rest.pop()
    if len(key) < len(first) + len(last) or not (key.startswith(first) and key.endswith(last)):
        return False
    place, end = len(first), len(key) - len(last)
    for part in rest:
        place = key.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _line_keys(value: bytes) -> tuple[str, ...]:
    """Returns the keys of agents that a user-agent line names: the token cut at a digit, and the one with digits."""
    if value[:1] == b"*":
        return ("*",) if value[1:2] in (b"", b" ", b"\t") else ()
    whole, token = _beginning(_TOKEN_WITH_DIGITS, value), _beginning(_TOKEN, value)
    return tuple(dict.fromkeys(key for key in (token, whole) if key))


def limited(body: bytes | str, truncated: bool) -> tuple[bytes, bool]:
    """Returns at most BODY_LIMIT octets of UTF-8 and whether the body was longer.

    The line at the cut is given up: half a rule is a broader rule than anybody wrote. A line that ends just there is
    whole.
    """
    if isinstance(body, str):
        truncated = truncated or len(body) > BODY_LIMIT
        body = body[: BODY_LIMIT + 1].encode("utf-8", "surrogatepass")
    wide = decode_wide(body)
    if wide is not None:
        body = wide[0]
    if len(body) > BODY_LIMIT:
        whole = body[BODY_LIMIT : BODY_LIMIT + 1] in (b"\n", b"\r")
        body = body[:BODY_LIMIT]
        if whole:
            return body, True
        truncated = True
    if truncated:
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    return body, truncated


def _field_and_value(line: bytes) -> tuple[bytes, bytes]:
    """Returns the lower-case field name and the value of a stripped line; a colon may be missing between two words."""
    field, colon, value = line.partition(b":")
    if colon:
        return field.strip().lower(), value.strip()
    words = line.split(None, 2)
    if len(words) == 2:
        return words[0].lower(), words[1]
    return b"", b""


def _field_like(name: bytes) -> str | None:
    """Returns the field that a name in another form stands for, None for no field of RFC 9309."""
    found = _BEGINS_LIKE.fullmatch(name) if name[:1] in b"uda" else None
    return found and ("user-agent" if found[1] else "disallow" if found[2] else "allow")


def _other_record(line: bytes, name: bytes, value: bytes) -> tuple[str, str]:
    """Returns name and value of a line that is no record of RFC 9309; signals go by one spelling.

    After the name of a signal the colon may be missing, and the value may have several words and a colon of its own.
    """
    if line[:7].lower() == b"content":
        signal = _SIGNAL_NAME.fullmatch(name)
        if not signal and (bare := _SIGNAL_WITHOUT_COLON.fullmatch(line)):
            signal, value = _SIGNAL_NAME.fullmatch(bare[1].lower()), bare[2]
        if signal:
            name = b"content-" + signal[1]
    return name.decode("utf-8", "replace"), value.decode("utf-8", "replace")


def _is_page(body: bytes) -> bool:
    """Returns whether a body is HTML, of which nobody reads the lines as rules."""
    return body.lstrip()[:1] == b"<"


def _lines(body: bytes) -> Iterable[tuple[int, bytes]]:
    """Returns the lines with their numbers; what lies between other ends of lines has the number of the whole.

    Google's parser knows CR and LF. No path holds any other, and a refusal behind one was meant.
    """
    lines = enumerate(body.splitlines(), start=1)
    if _is_page(body) or not any(sign in body for sign in _SIGNS_OF_OTHER_LINE_ENDS):
        return lines
    return _finer(lines)


def _finer(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Cuts lines at the other ends of lines."""
    for number, line in lines:
        for part in _OTHER_LINE_ENDS.split(line):
            yield number, part


def parse_robots_file(body: bytes | str, truncated: bool = False) -> RobotsFile:
    """Returns the groups of a robots.txt. Any octets are a file; lines that make no sense are skipped one by one.

    `truncated` says that whoever stored the body had already cut it.
    """
    body, truncated = limited(body, truncated)
    mark = _BYTE_ORDER_MARK.match(body)
    if mark:
        body = body[mark.end() :]
    has_nul = b"\x00" in body
    groups: dict[str, list[Block]] = {}
    loose: dict[str, list[Block]] = {}
    preamble = block = Block()
    agents_may_follow = False
    nameless: dict[int, Block] = {}
    suspects: list[bytes] = []
    longest_list = 0 if _is_page(body) else MAX_SUSPECTS
    unknown_lines = 0
    for number, line in _lines(body):
        line = line[:LINE_LIMIT]
        if has_nul:
            # For Google's parser a line ends at a NUL. What comes after leading ones is read: it may be a refusal.
            line = line.lstrip(_BLANK_OR_NUL).partition(b"\x00")[0]
        line = line.partition(b"#")[0].strip()
        if not line.isascii() and (hidden := _INVISIBLE.match(line)):
            line = line[hidden.end() :].strip()  # the mark of a file that was appended, say
        if not line:
            continue
        name, value = _field_and_value(line)
        if not value.isascii() and (hidden := _INVISIBLE.match(value)):
            value = value[hidden.end() :]
        field = _FIELDS.get(name) or _field_like(name)
        if field is None:
            unknown_lines += 1
            if name not in _OTHER_FIELDS and len(suspects) < longest_list:
                suspects.append(line[:LONGEST_LOOKED_AT])
            other, text = _other_record(line, name, value)
            if other and text:
                block.other.append((other, Record(number, text)))
        elif field == "user-agent":
            if not agents_may_follow:
                block = Block()
                nameless[id(block)] = block
                agents_may_follow = True
            keys, is_plain = _line_keys(value), _PLAIN_AGENT.fullmatch(value)
            for key in keys:
                blocks = groups.setdefault(key, [])
                if not blocks or blocks[-1] is not block:
                    blocks.append(block)
            loose_names = [] if is_plain or len(loose) >= MAX_LOOSE_NAMES else _loose_names(value)
            for loose_name in loose_names:
                loose.setdefault(loose_name, []).append(block)
            if keys or loose_names:
                nameless.pop(id(block), None)
            if not is_plain and holds_a_record(value):
                suspects.append(line[:LONGEST_LOOKED_AT])
        else:
            agents_may_follow = False
            if value:
                block.rules.append(RuleLine(number, field == "allow", value))
                if field == "disallow" and (value[:1] not in _PATH_BEGINS or b" " in value or b"\t" in value):
                    block.rules += [RuleLine(number, False, path, value) for path in meant_paths(value)]
    return RobotsFile(groups, truncated, preamble, unknown_lines, loose, list(nameless.values()), suspects)

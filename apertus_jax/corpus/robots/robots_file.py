"""The text of a robots.txt as blocks of agents and rules (RFC 9309 §2.1-2.2), in time linear in its length.

A block is a run of `user-agent` lines and the lines that follow. Agents share their block's rules instead of each
holding a copy: ten thousand agents before ten thousand rules cost their sum, not their product.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import NamedTuple

BODY_LIMIT = 512_000  # octets; RFC 9309 §2.5 asks for at least 500 KiB
LINE_LIMIT = 16_664  # octets; the eightfold of the longest URL that browsers took, as Google's parser reads

_DISALLOW = (b"disallow", b"dissallow", b"dissalow", b"disalow", b"diasllow", b"disallaw")
_USER_AGENT = (b"user-agent", b"useragent", b"user agent")
_FIELDS = {
    **dict.fromkeys(_USER_AGENT, "user-agent"),
    **dict.fromkeys(_DISALLOW, "disallow"),
    b"allow": "allow",
}
_TOKEN = re.compile(rb"[A-Za-z_-]*")
_TOKEN_WITH_DIGITS = re.compile(rb"[A-Za-z0-9_-]*")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One line of the file: its number from 1 and its value without comment and surrounding white space."""

    line: int
    value: str


class RuleLine(NamedTuple):
    """An allow or disallow line with a value, as the octets in the file."""

    line: int
    allow: bool
    value: bytes

    @property
    def text(self) -> str:
        """Returns the rule for people to read."""
        return f"{'Allow' if self.allow else 'Disallow'}: {self.value.decode('utf-8', 'replace')}"


@dataclasses.dataclass(slots=True)
class Block:
    """What follows one run of user-agent lines; `other` has the records that RFC 9309 does not know."""

    rules: list[RuleLine] = dataclasses.field(default_factory=list)
    other: list[tuple[str, Record]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class RobotsFile:
    """A parsed file: agent key (lower-case, see `agent_key`) → its blocks in order, which together are its group."""

    groups: dict[str, list[Block]]
    truncated: bool

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
    return _TOKEN_WITH_DIGITS.match(octets)[0].lower().decode("ascii")


def _line_keys(value: bytes) -> tuple[str, ...]:
    """Returns the keys of agents that a user-agent line names: the token cut at a digit, and the one with digits."""
    if value[:1] == b"*":
        return ("*",) if value[1:2] in (b"", b" ", b"\t") else ()
    whole = _TOKEN_WITH_DIGITS.match(value)[0].lower().decode("ascii")
    token = _TOKEN.match(value)[0].lower().decode("ascii")
    return tuple(dict.fromkeys(key for key in (token, whole) if key))


def limited(body: bytes | str, truncated: bool) -> tuple[bytes, bool]:
    """Returns at most BODY_LIMIT octets and whether the body was longer.

    The line at the cut is given up: half a rule is a broader rule than anybody wrote.
    """
    if isinstance(body, str):
        truncated = truncated or len(body) > BODY_LIMIT
        body = body[: BODY_LIMIT + 1].encode("utf-8", "surrogatepass")
    if len(body) > BODY_LIMIT:
        truncated = True
        body = body[:BODY_LIMIT]
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


def parse_robots_file(body: bytes | str, truncated: bool = False) -> RobotsFile:
    """Returns the groups of a robots.txt. Any octets are a file; lines that make no sense are skipped one by one.

    `truncated` says that whoever stored the body had already cut it.
    """
    body, truncated = limited(body, truncated)
    groups: dict[str, list[Block]] = {}
    block = Block()  # rules before the first user-agent line belong to nobody
    agents_may_follow = False
    for number, line in enumerate(body.removeprefix(_BYTE_ORDER_MARK).splitlines(), start=1):
        line = line[:LINE_LIMIT].partition(b"#")[0].strip()
        if not line:
            continue
        name, value = _field_and_value(line)
        field = _FIELDS.get(name)
        if field is None:
            if name and value:
                record = Record(number, value.decode("utf-8", "replace"))
                block.other.append((name.decode("utf-8", "replace"), record))
        elif field == "user-agent":
            if not agents_may_follow:
                block = Block()
                agents_may_follow = True
            for key in _line_keys(value):
                blocks = groups.setdefault(key, [])
                if not blocks or blocks[-1] is not block:
                    blocks.append(block)
        else:
            agents_may_follow = False
            if value:
                block.rules.append(RuleLine(number, field == "allow", value))
    return RobotsFile(groups, truncated)

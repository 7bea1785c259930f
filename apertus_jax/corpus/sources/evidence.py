"""Evidence of consent that a crawler kept beside the text: header fields and tags; the rest is dropped."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

# Cookies, server names and the like have no place in a corpus, so this is a list of what stays.
SIGNAL_HEADERS = frozenset(
    ("content-signal", "content-type", "content-usage", "link", "tdm-policy", "tdm-reservation", "x-robots-tag")
)
SIGNAL_META_TAGS = frozenset(
    (
        *("bingbot", "content-signal", "content-usage", "dc.rights", "dcterms.license", "dcterms.rights", "googlebot"),
        *("ai", "bots", "genai", "llm", "llms", "ml"),
        *("licence", "license", "rights", "robots", "tdm-policy", "tdm-reservation", "x-robots-tag"),
    )
)
# A page may address one crawler by its name; such tags are known by what they say.
_OPT_OUT = re.compile(r"(?<![a-z])no[\s_-]?(?:image)?(?:gen)?(?:ai|ml|train)", re.IGNORECASE)


@functools.lru_cache(maxsize=1 << 10)
def header_name(name: str) -> str:
    """Returns the name of an HTTP header in lower case; servers' own spellings (`HTTP_X_ROBOTS_TAG`) are understood."""
    return meta_tag_name(name).removeprefix("http-")


@functools.lru_cache(maxsize=1 << 10)
def meta_tag_name(name: str) -> str:
    """Returns the name of a meta tag in lower case, `_` written `-`."""
    return name.strip(" \t\r\n:").lower().replace("_", "-")


def is_signal_header(name: str, content: str = "") -> bool:
    """Returns whether an HTTP header (in the spelling of `header_name`) is kept."""
    return name in SIGNAL_HEADERS


def is_signal_meta_tag(name: str, content: str) -> bool:
    """Returns whether a meta tag (name in the spelling of `meta_tag_name`) is kept."""
    return name in SIGNAL_META_TAGS or _OPT_OUT.search(content) is not None


def join_values(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns name → values joined by ", ", names in the order in which they came first."""
    joined: dict[str, list[str]] = {}
    for name, value in pairs:
        joined.setdefault(name, []).append(value)
    return {name: ", ".join(values) for name, values in joined.items()}

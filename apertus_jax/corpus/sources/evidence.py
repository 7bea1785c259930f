"""What a crawler may have kept beside the text and what says something about consent; the rest is not carried along."""

from __future__ import annotations

from collections.abc import Iterable

# Cookies, server names and the like have no place in a corpus, so this is a list of what stays.
SIGNAL_HEADERS = frozenset(
    ("content-signal", "content-type", "content-usage", "link", "tdm-policy", "tdm-reservation", "x-robots-tag")
)
SIGNAL_META_TAGS = frozenset(
    (
        *("bingbot", "content-signal", "content-usage", "dc.rights", "dcterms.license", "dcterms.rights", "googlebot"),
        *("licence", "license", "rights", "robots", "tdm-policy", "tdm-reservation"),
    )
)
# A page may address one crawler by its name; such tags are known by what they say.
_OPT_OUTS = ("noai", "noimageai", "noml")


def is_signal_header(name: str) -> bool:
    """Returns whether an HTTP header (lower-case) is kept."""
    return name in SIGNAL_HEADERS


def is_signal_meta_tag(name: str, content: str) -> bool:
    """Returns whether a meta tag (name in lower case) is kept."""
    return name in SIGNAL_META_TAGS or any(word in content.lower() for word in _OPT_OUTS)


def join_values(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns name → values joined by ", ", names in the order in which they came first."""
    joined: dict[str, list[str]] = {}
    for name, value in pairs:
        joined.setdefault(name, []).append(value)
    return {name: ", ".join(values) for name, values in joined.items()}

"""Canonical URLs and hosts of documents: the key of every lookup by host.

A URL is split the way browsers do (WHATWG URL standard): surrounding blanks and embedded line breaks vanish, a
backslash is a slash, user information is dropped, the host is percent-decoded, mapped by UTS 46 and written in ASCII.
A host that ends in a number is an IPv4 address or none (`http://134744072/`).
Deliberate differences: an empty authority is not skipped, a trailing dot of the host is dropped, and the path keeps its
spelling.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
import urllib.parse

DEFAULT_PORTS = {"http": 80, "https": 443}
LONGEST_HOST = 253  # RFC 1035, written without the trailing dot
LONGEST_LABEL = 63
LONGEST_CACHED_URL = 2048  # a cache of megabyte-long keys would be a leak

_BLANKS = "".join(map(chr, range(0x21)))
_SPLIT = re.compile(r"(https?):[/\\]{2}([^/\\?#]*)([^?#]*)(\?[^#]*)?", re.IGNORECASE)
_ORDINARY = re.compile(r"(https?)://([a-z0-9.-]+)(/[^\x00-\x20#\\]*)?(?:#|\Z)")
_LINE_BREAKS = str.maketrans("", "", "\t\r\n")
_FORBIDDEN_IN_HOST = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f]")
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\Z")
_NUMBER = re.compile(r"0x(?P<hex>[0-9a-f]*)|0(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*)")
_PLAIN_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@dataclasses.dataclass(frozen=True, slots=True)
class WebAddress:
    """The parts of an http or https URL; `authority` is the host with its port unless that is the scheme's own."""

    scheme: str
    host: str
    authority: str
    path_and_query: str  # begins with "/", as written, without fragment

    @property
    def url(self) -> str:
        """The whole address, without user information and fragment."""
        return f"{self.scheme}://{self.authority}{self.path_and_query}"


def parse_web_address(url: str) -> WebAddress | None:
    """Returns the canonical parts of an http or https URL, or None when it has no usable host or port. Never raises."""
    return _parse_cached(url) if len(url) <= LONGEST_CACHED_URL else _parse(url)


@functools.lru_cache(maxsize=1 << 16)
def canonical_host(host: str) -> str | None:
    """Returns a host name or address in lower-case ASCII without trailing dot, or None when it cannot be one.

    Names go through UTS 46 (non-transitional) and Punycode; names that IDNA 2008 forbids but that exist (emoji,
    underscores) are kept. IPv6 addresses stand in brackets, in their shortest spelling (RFC 5952).
    """
    if host.startswith("["):
        return _canonical_ipv6(host)
    if "%" in host:
        try:
            host = urllib.parse.unquote_to_bytes(host.encode()).decode()
        except UnicodeError:
            return None
    if len(host) > 4 * LONGEST_HOST:  # compatibility characters may shrink, but not by more
        return None
    host = host.lower() if host.isascii() else _in_ascii(host)
    host = host.removesuffix(".")
    if len(host) > LONGEST_HOST:
        return None
    if _ENDS_IN_NUMBER.search(host):
        return _canonical_ipv4(host)
    if _PLAIN_HOST.fullmatch(host):
        return host
    if _FORBIDDEN_IN_HOST.search(host) or not all(0 < len(label) <= LONGEST_LABEL for label in host.split(".")):
        return None
    return host


@functools.lru_cache(maxsize=1 << 16)
def registrable_domain(host: str) -> str:
    """Returns the part of a canonical host that somebody registered (`a.b.example.co.uk` gives `example.co.uk`).

    Uses the public suffix list of the `publicsuffixlist` package, private section included, so that two blogs on one
    platform are two domains. A host that has no such part (an address, a bare suffix) is returned as it is.
    """
    if not host or host.startswith("[") or host.replace(".", "").isdigit():
        return host
    return _public_suffixes().privatesuffix(host) or host


@functools.lru_cache(maxsize=1 << 12)
def _parse_cached(url: str) -> WebAddress | None:
    return _parse(url)


def _parse(url: str) -> WebAddress | None:
    ordinary = _ORDINARY.match(url)
    if ordinary is not None:  # nearly all URLs are; the long way gives the same
        scheme, name, path = ordinary.groups()
        host = canonical_host(name)
        return None if host is None else WebAddress(scheme, host, host, path or "/")
    return _parse_any(url)


def _parse_any(url: str) -> WebAddress | None:
    match = _SPLIT.match(url.strip(_BLANKS).translate(_LINE_BREAKS))
    if match is None:
        return None
    scheme, authority, path, query = match.groups()
    scheme = scheme.lower()
    name, port = _split_port(authority.rpartition("@")[2])
    host = canonical_host(name) if name else None
    if host is None or port is None:
        return None
    path_and_query = (path.replace("\\", "/") or "/") + (query or "")
    # Blanks before a fragment belong to the address; written out they would vanish with those around it.
    kept = path_and_query.rstrip(_BLANKS)
    return WebAddress(
        scheme=scheme,
        host=host,
        authority=host if port in ("", str(DEFAULT_PORTS[scheme])) else f"{host}:{port}",
        path_and_query=kept + urllib.parse.quote(path_and_query[len(kept) :]),
    )


def _split_port(authority: str) -> tuple[str, str | None]:
    """Returns (host, port); port is "" when not given and None when it is not a port."""
    bracket = authority.rfind("]")
    host, colon, port = authority[bracket + 1 :].partition(":")
    host = authority[: bracket + 1] + host
    if not colon or not port:
        return host, ""
    if not (port.isascii() and port.isdigit()):
        return host, None
    port = port.lstrip("0") or "0"
    return host, port if len(port) <= 5 and int(port) <= 0xFFFF else None


def _canonical_ipv6(host: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return None if address.scope_id is not None or not host.endswith("]") else f"[{address.compressed}]"


def _canonical_ipv4(host: str) -> str | None:
    """Returns the four decimal numbers of an address in lower case that ends in a number (WHATWG URL, IPv4 parser).

    `134744072`, `0x8.8.2056` and `8.8.8.8` are one server. None where it is no address: nothing else ends so.
    """
    numbers = [_number(part) for part in host.split(".")]
    if len(numbers) > 4 or None in numbers:
        return None
    *first, last = [number for number in numbers if number is not None]
    if max(first, default=0) > 255 or last >= 256 ** (4 - len(first)):
        return None
    return str(ipaddress.IPv4Address(sum(each << (24 - 8 * place) for place, each in enumerate(first)) + last))


def _number(part: str) -> int | None:
    """Returns a decimal, octal (`010`) or hexadecimal (`0x8`) number below 2^32, None when it is none."""
    found = _NUMBER.fullmatch(part) if len(part) <= 2 * LONGEST_LABEL else None
    if found is None:
        return None
    base = 16 if found["hex"] is not None else 8 if found["octal"] else 10
    return int(found["hex"] or found["octal"] or found["decimal"] or "0", base)


def _in_ascii(host: str) -> str:
    import idna

    try:
        host = idna.uts46_remap(host, std3_rules=False, transitional=False)
    except (idna.IDNAError, UnicodeError):
        return ""
    return ".".join(_label_in_ascii(label) for label in host.split("."))


def _label_in_ascii(label: str) -> str:
    import idna

    if label.isascii():
        return label
    try:
        return idna.alabel(label).decode()
    except (idna.IDNAError, UnicodeError):
        try:
            return "xn--" + label.encode("punycode").decode()  # what a browser would look up
        except UnicodeError:
            return ""


@functools.lru_cache(maxsize=1)
def _public_suffixes():
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()

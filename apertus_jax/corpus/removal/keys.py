"""Lookup keys of removal requests: URL, host, domain or digest in one canonical spelling.

Keys leave the scheme out: who asks for an https page to be removed means the http copy of it as well. Two addresses
are one when host (lower case, IDNA, no trailing dot) and port (the scheme's own left out) are, and path and query after
RFC 3986 normalisation: percent-encoded unreserved characters are decoded, other octets spelled in capital hexadecimal
digits, non-ASCII characters encoded, dot segments resolved, an empty path a slash. Further than that RFC goes, encoded
`!$'()*,:;@` are decoded as well: some programs encode them and others do not (`/wiki/Anna_%28singer%29`), and a request
that misses a page is worse than one that meets its namesake. User information and fragment do not count; a slash at the
end, the case of a path, and every character of a query do.
"""

from __future__ import annotations

import enum
import hashlib
import re

from apertus_jax.corpus.web_addresses import WebAddress, canonical_host, parse_web_address, registrable_domain
from apertus_jax.errors import UserError

HEXADECIMAL_ID = re.compile(r"[0-9a-f]{32}")
# Octets whose encoding says nothing.
DECODED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$'()*,:;@")
# Octets that may stand in a path and query as they are; everything else is percent-encoded.
PLAIN_PATH = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?]*")
ENCODED_OCTET = re.compile(r"%([0-9A-Fa-f]{2})")
NOT_PLAIN = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]")


class Scope(enum.StrEnum):
    """Scope of a removal request."""

    URL = "url"
    URL_PREFIX = "url_prefix"
    HOST = "host"
    DOMAIN = "domain"
    DOCUMENT_ID = "document_id"
    TEXT_DIGEST = "text_digest"


def canonical_path(path_and_query: str) -> str:
    """Returns path and query normalised after RFC 3986 §6.2.2; ASCII only."""
    if not PLAIN_PATH.fullmatch(path_and_query):
        path_and_query = NOT_PLAIN.sub(_encode_character, path_and_query)
        path_and_query = ENCODED_OCTET.sub(_plain_octet, path_and_query)
    path, mark, query = path_and_query.partition("?")
    return (_without_dot_segments(path) if "/." in path else path) + mark + query


def url_key(address: WebAddress) -> str:
    """Returns the key of a web address: authority, then the normalised path and query."""
    return address.authority + canonical_path(address.path_and_query)


def canonical_value(scope: Scope, value: str) -> str:
    """Returns the key that documents of this request have, or share the beginning of.

    Raises:
      UserError: the value cannot be of this scope. The message does not repeat it, since it can be personal.
    """
    value = value.strip()
    if "*" in value and (scope in (Scope.HOST, Scope.DOMAIN) or (scope == Scope.URL_PREFIX and value.endswith("*"))):
        raise UserError(
            f"value of scope {scope} holds `*`, which stands for nothing here: a url_prefix ends where it ends, and "
            "scope domain covers all hosts below it"
        )
    if scope in (Scope.DOCUMENT_ID, Scope.TEXT_DIGEST):
        if not HEXADECIMAL_ID.fullmatch(value.lower()):
            raise UserError(f"value of scope {scope} must be 32 hexadecimal digits")
        return value.lower()
    if scope in (Scope.URL, Scope.URL_PREFIX):
        address = parse_web_address(value)
        if address is None:
            raise UserError(f"value of scope {scope} must be an http or https URL with a host")
        return url_key(address)
    host = canonical_host(value) if value and not re.search(r"[/\s@?#]", value) else None
    if not host or not (host.startswith("[") or "." in host):
        raise UserError(f"value of scope {scope} must be a host such as www.example.org, without scheme and path")
    # A name below the value belongs to it only where the value is what somebody registered: not below a public suffix.
    if scope == Scope.DOMAIN and registrable_domain(f"below.{host}") != host:
        raise UserError(
            f"value of scope {scope} must be a registrable domain such as example.org, neither a host below one nor a "
            "public suffix; use scope host for a single host"
        )
    return host


def key_digest(scope: str, key: str) -> bytes:
    """Returns the BLAKE2b-128 digest (16 bytes) of a key within its scope."""
    return hashlib.blake2b(f"{scope}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def authority_hash(authority: str) -> int:
    """Returns the 64-bit hash under which the prefixes of one authority are gathered."""
    return int.from_bytes(key_digest("authority", authority)[:8], "big")


def _encode_character(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8", "surrogatepass"))


def _plain_octet(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in DECODED else match[0].upper()


def _without_dot_segments(path: str) -> str:
    """Resolves `.` and `..` segments of an absolute path."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)

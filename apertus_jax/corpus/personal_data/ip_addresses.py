"""IP address detection: where one begins and ends, and what is only numbered like one.

Each search anchors on something rare (a dot or colon between digits), looks at a bounded piece of text, and is
therefore linear.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.personal_data.boundaries import (
    MARKER,
    ends_with_marker,
    stands_alone,
    stands_alone_as_ipv6,
)
from apertus_jax.corpus.personal_data.checks import is_ip, is_public_ipv4, is_public_ipv6
from apertus_jax.corpus.personal_data.spans import Span, end_of

_IPV4_FIRST_DOT = re.compile(r"\.(?<=[0-9]\.)[0-9]{1,3}\.[0-9]{1,3}\.(?=[0-9])")
_DIGITS = re.compile(r"[0-9]{1,3}")
_IPV6_FIRST_COLON = re.compile(r":(?<=[23][0-9A-Fa-f]{3}:)(?=[0-9A-Fa-f]{0,4}:)")
_IPV6_BODY = re.compile(r"[0-9A-Fa-f:]*+")
_IPV4_TAIL = re.compile(r"(?<=[:0-9])(?:\.[0-9]{1,3}){3}(?![0-9])")
# As inet_aton reads it; other numbers of two or three parts are versions.
_SHORT_LOOPBACK = re.compile(r"127\.(?:0\.)?[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
_ZONE = re.compile(r"%[A-Za-z][0-9A-Za-z]{0,14}(?![0-9A-Za-z])")
_LONGEST_IPV6 = 45
_AFTER_HOST = re.compile(rf"[0-9A-Za-z]|\.[0-9]|[.:]?(?:{MARKER.pattern})")

_CONTEXT = 48  # characters that are looked at before a number, and after it
# Sections, figures, versions, identifiers of enzymes and objects: numbers of four parts that look like addresses. The
# words are longer than any group of a number, so that none can be part of something that is itself replaced.
_NUMBERED = re.compile(
    r"(?:^|[\s(\[{\"'*_,;<])(?:§{1,2}|(?:sec|eq|art|kap|ziff|abs|par|tab|def|thm|prop)\.|(?:sections?|sect|subsections?|chapters?|chap|paragraphs?|para|clauses?|articles?|"
    r"figures?|figs?|tables?|equations?|eqns?|theorems?|lemmas?|lemmata|definitions?|propositions?|"
    r"corollar(?:y|ies)|exercises?|listings?|algorithms?|steps?|rules?|items?|appendix|annex|part|"
    r"[a-z]{0,20}versions?|vers?|releases?|builds?|revisions?|rev|firmware|"
    r"abschnitte?|kapitel|abbildung(?:en)?|abb|tabellen?|gleichung|absatz|ziffer|anhang|"
    r"chapitres?|figura|figuras|tableaux?|tablas?|tabela|tabella|secci[oó]n|sezione|se[cç][cç][aã]o|cap[ií]tulo|"
    r"capitolo|versi[oó]n|vers[aã]o|versione|wersja|rozdzia[lł]|rysunek|"
    r"python|pypy|cpython|openjdk|jdk|jre|node\.?js|php|perl|mysql|mariadb|postgresql|postgres|sqlite|oracle|"
    r"weblogic|websphere|tomcat|openssl|libreoffice|openoffice|firefox|thunderbird|chrome|chromium|opera|safari|"
    r"kernel|winamp|vlc|itunes|quicktime|flash player|acrobat|photoshop|"
    r"oid|ec|раздел|глава|рис|рисунок|таблица|версия|пункт))"
    r"[\"'>]?\.?[\s\u00a0]{0,2}[:=#]?[\s\u00a0]{0,2}[\"'(\[]{0,2}\Z",
    re.IGNORECASE,
)
# `foo==8.8.4.4` wants a version, `ip.addr==8.8.4.4` an address.
_REQUIRED = re.compile(r"(?:[=<>~!^]=|~>|,\s?[<>])[\s\"']{0,2}\Z|(?:^|[\s\"'])[\^~]\Z")
_REQUIRES_ADDRESS = re.compile(
    r"(?:ip|ipv4|addr|address|adresse|host|src|dst|source|dest|destination|server|client|dns|gateway|peer|remote|local)"
    r"[\s\"'\]]{0,2}[=<>~!^]+[\s\"']{0,2}\Z",
    re.IGNORECASE,
)
# `libfoo.so.8.8.4.4`, `foo-8.8.4.4`, `Chrome/8.8.4.4`: a name directly before, unless it says that a host follows.
_NAMED = re.compile(
    r"(?:\.so\.|(?:^|[\s(\[\"'/,;=_:])(?:(?P<name>[A-Za-z][A-Za-z0-9+_]*(?:-[A-Za-z0-9+_]+)*)[-_]"
    r"|(?:[A-Z][A-Za-z]{2,}|nginx|curl|python|php|node|npm|java|ruby|go)/))\Z"
)
_NAMES_OF_HOSTS = re.compile(
    r"(?:ip|ipv4|host|addr|address|node|server|client|dns|tcp|udp|inet|static|dyn|dynamic|pool|from|to)"
)
_RELEASE = re.compile(
    r"\.(?:tar|tgz|zip|whl|deb|rpm|jar|war|exe|msi|dmg|pkg|apk|egg|gem|gz|bz2|xz|zst|7z|so|dll|dylib|nupkg|iso|img)\b"
    r"|[-+~.](?:alpha|beta|rc|dev|pre|post|snapshot|final|release|hotfix|generic|stable|dfsg|ubuntu|deb|bpo)"
    r"|[-+~][0-9]+(?:\.[0-9]+)?(?:ubuntu|deb|build|\.?el[0-9]|\.?fc[0-9])",
    re.IGNORECASE,
)
# `[8.8.4.4]` is a reference to a section, unless mail software wrote it behind the name of a host.
_BRACKETED_HOST = re.compile(
    r"(?:\(|[A-Za-z0-9-]\.[A-Za-z]{2,}\.?\s?\(?"
    r"|\b(?:from|by|at|to|host|client|ip|address|addr|server|peer|unknown|dns|gateway|nameservers?)"
    r"[\s:=]{0,3})\[\Z",
    re.IGNORECASE,
)
_AFTER_BRACKETED_HOST = re.compile(r"\](?:\)|:[0-9])")
# `npm install x@8.8.4.4` names a package and its version.
_PACKAGE = re.compile(
    r"(?<![\w@./-])(?:npm|npx|pnpm|yarn|bun|bunx|brew|spack|conan|vcpkg|asdf|mise|volta|corepack|composer|go)"
    r"(?:[ \t](?:-{1,2}[a-z-]{1,20}|install|i|add|ci|exec|dlx|view|info|update|upgrade|uninstall|global|require|get|"
    r"use|pin)){0,3}[ \t]@?[\w./-]{1,60}@\Z"
)
_LISTED = re.compile(r"(?:\s?(?:[,;–&/-]|and|or|to|through|und|oder|bis|et|ou|y|e)\s?){1,2}")


def find_ips(text: str) -> list[Span]:
    """Returns the public IPv4 and IPv6 addresses of a text."""
    return _find_ipv4(text) + _find_ipv6(text)


def numeric_host_end(text: str, start: int) -> int | None:
    """Returns where the IP address ends that begins at `start`, public or not; None when none stands there alone."""
    body = end_of(_IPV6_BODY, text, start, start + _LONGEST_IPV6)
    if ":" in text[start:body]:
        end = _ipv6_end(text, start, body)
        # `a::b` is written for other things than hosts.
        if end - start < 6 or not any(character.isdecimal() for character in text[start:end]):
            return None
    else:
        parts = _IPV4_TAIL.match(text, body) if 1 <= body - start <= 3 else None
        if parts is None:
            loopback = _SHORT_LOOPBACK.match(text, start)
            return loopback.end() if loopback else None
        end = parts.end()
    if not is_ip(text[start:end]) or _AFTER_HOST.match(text, end):
        return None
    return _with_zone(text, end)


def names_package(text: str, position: int) -> bool:
    """Returns whether what stands before a position is a package behind the command that installs it, and `@`."""
    return _PACKAGE.search(text[max(0, position - 160) : position]) is not None


def _ipv6_end(text: str, start: int, body: int) -> int:
    """Returns the end of an address whose hexadecimal groups end at `body`: with an IPv4 tail, without a last colon."""
    if tail := _IPV4_TAIL.match(text, body):
        return tail.end()
    return body - 1 if text[body - 1] == ":" and text[body - 2 : body - 1] != ":" and body - 1 > start else body


def _with_zone(text: str, end: int) -> int:
    """Returns the end of an address together with its zone (`%eth0`)."""
    zone = _ZONE.match(text, end)
    return zone.end() if zone else end


def _find_ipv4(text: str) -> list[Span]:
    """Finds dotted addresses: exactly four parts, no digit or further part beside them, and no other numbering."""
    found = []
    numbering_end = -1
    for match in _IPV4_FIRST_DOT.finditer(text):
        start = match.start() - 1
        while start > 0 and match.start() - start < 3 and "0" <= text[start - 1] <= "9":
            start -= 1
        end = end_of(_DIGITS, text, match.end())
        if not is_public_ipv4(text[start:end]) or not stands_alone(text, start, end, "."):
            continue
        listed = 0 <= numbering_end < start <= numbering_end + 12 and _LISTED.fullmatch(text, numbering_end, start)
        if listed or _is_numbering(text, start, end):
            numbering_end = end
        else:
            found.append(Span(start, end, "ip"))
    return found


def _is_numbering(text: str, start: int, end: int) -> bool:
    """Returns whether four numbers with dots count sections, versions or the like.

    What decides may be part of something that is replaced itself; a marker in its place decides the same.
    """
    before, after = text[max(0, start - _CONTEXT) : start], text[end : end + _CONTEXT]
    if _NUMBERED.search(before) or _RELEASE.match(after):
        return True
    if before.endswith("@"):
        return names_package(text, start)
    if before.endswith("[") and after.startswith("]"):
        return not (before.endswith("@[") or _AFTER_BRACKETED_HOST.match(after) or _BRACKETED_HOST.search(before))
    if _REQUIRED.search(before):
        return not _REQUIRES_ADDRESS.search(before)
    named = _NAMED.search(before)
    if named is None:
        return before[-1:] in ("-", "/", "_") and ends_with_marker(text, start - 1)
    return named["name"] is None or not _NAMES_OF_HOSTS.fullmatch(named["name"].lower())


def _find_ipv6(text: str) -> list[Span]:
    """Finds colon-separated addresses, compressed or not, with an IPv4 tail or without."""
    found = []
    searched = 0
    for match in _IPV6_FIRST_COLON.finditer(text):
        start = match.start() - 4
        if start < searched:
            continue
        searched = body = end_of(_IPV6_BODY, text, start)
        end = _ipv6_end(text, start, body)
        if end - start > _LONGEST_IPV6 or not is_public_ipv6(text[start:end]):
            continue
        if _stands_alone_as_ipv6(text, start, end, "." in text[body - 1 : end]):
            found.append(Span(start, _with_zone(text, end), "ip"))
    return found


def _stands_alone_as_ipv6(text: str, start: int, end: int, has_tail: bool) -> bool:
    """Returns whether an address is not part of something longer.

    `IPv6:` before it says that it begins there, where it would else be taken for a group of it; a colon behind an IPv4
    tail is that of a port.
    """
    before = start if text[max(0, start - 5) : start].lower() == "ipv6:" else max(0, start - 20)
    after = end if has_tail and text[end : end + 1] == ":" else end + 20
    return stands_alone_as_ipv6(text[before:after], start - before, end - before)

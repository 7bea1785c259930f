"""Published PII formatter of Apertus, its mistakes included, in linear time.

Its rules (arXiv 2509.14233, section 3.1.2, and the code released with it): e-mail, then IPv4, then IBAN. Each kind is
searched in what the kinds before it left, and then every distinct hit, in the order of first appearance, is replaced
wherever its characters occur, inside longer numbers too. ASCII only; addresses without boundaries, private ones
included; IBANs only of one spaced shape and without checksum; the count is of distinct hits.

Replacing hit after hit costs text times hits. The same result comes from listing all occurrences of all hits and
granting them by (hit, position) while they do not overlap: a marker contains no character sequence of a later hit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from apertus_jax.corpus.personal_data.spans import Span, end_of

_LOCAL_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+/=?^_`{|}~-"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_OCTET = "(?:2(?:5[0-5]|[0-4][0-9])|[01]?[0-9]{1,2})"
_AT = re.compile("@(?=[A-Za-z0-9\\[])")
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}|\[(?:{_OCTET}\.){{3}}(?:{_OCTET}|[A-Za-z0-9-]*[A-Za-z0-9]:)\]")
_BOUNDARY = re.compile(r"\b(?=[^.])")
_IPV4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_IPV4_FIRST_DOT = re.compile(r"\.(?<=[0-9]\.)(?=[0-9]{1,3}\.[0-9]{1,3}\.[0-9])")
_IPV4_REST = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.")
_DIGITS = re.compile(r"[0-9]{1,3}")
_IBAN = re.compile("[A-Z]{2}[0-9]{2}(?: [0-9]{4}){4} [A-Z0-9]{1,2}")
_IBAN_ANYWHERE = re.compile("(?=[A-Z]{2}[0-9]{2}(?: [0-9]{4}){4} [A-Z0-9])")
_IBAN_LENGTHS = (26, 27)

Hits = dict[str, int]  # value → how manieth distinct one it is
Occurrence = tuple[int, int, int]  # number of the hit, start, end


def find_published(text: str, kinds: tuple[str, ...]) -> tuple[list[Span], dict[str, int]]:
    """Returns what the published formatter would replace, disjoint and in order, and its distinct hits per kind."""
    spans: list[Span] = []
    counts: dict[str, int] = {}
    for kind in kinds:
        find, locate = _KINDS[kind]
        gaps = [(0, len(text))] if not spans else list(_gaps(text, spans))
        hits: Hits = {}
        for start, end in gaps:
            for value in find(text, start, end):
                hits.setdefault(value, len(hits))
        counts[kind] = len(hits)
        if hits:
            occurrences = sorted(found for start, end in gaps for found in locate(text, start, end, hits))
            spans += [Span(start, end, kind) for start, end in _grant(occurrences)]
            spans.sort()
    return spans, counts


def _gaps(text: str, spans: list[Span]) -> Iterator[tuple[int, int]]:
    """Yields what lies between spans."""
    position = 0
    for span in spans:
        yield position, span.start
        position = span.end
    yield position, len(text)


def _grant(occurrences: list[Occurrence]) -> list[tuple[int, int]]:
    """Returns the occurrences that do not overlap one granted before them."""
    taken: set[int] = set()
    granted = []
    for _, start, end in occurrences:
        if taken.isdisjoint(range(start, end)):
            taken.update(range(start, end))
            granted.append((start, end))
    return granted


def _find_emails(text: str, start: int, end: int) -> Iterator[str]:
    """Yields the matches of the published e-mail expression: a word boundary, dot-atom, at sign, domain or literal."""
    free = start
    for match in _AT.finditer(text, start, end):
        at = match.start()
        if at < free:
            continue
        local = _longest_dot_atom(text[free:at])
        free = at + 1  # no local part reaches over an at sign
        # A word boundary is a matter of both neighbours, so it is looked for in the text itself.
        boundary = _BOUNDARY.search(text, at - len(local), at) if local else None
        domain = _DOMAIN.match(text, at + 1, end) if boundary else None
        if boundary and domain:
            yield text[boundary.start() : domain.end()]
            free = domain.end()


def _longest_dot_atom(before: str) -> str:
    """Returns the longest end of a string that is a dot-atom: permitted characters, single dots between them."""
    run = before[len(before.rstrip(_LOCAL_CHARACTERS + ".")) :]
    if run.endswith("."):
        return ""
    return run.rsplit("..", 1)[-1].lstrip(".")


def _locate_emails(text: str, start: int, end: int, hits: Hits) -> Iterator[Occurrence]:
    """Yields every occurrence of the hits, also inside longer addresses: at each at sign, by what surrounds it."""
    locals_of_domain: dict[str, Hits] = {}
    for value, number in hits.items():
        local, domain = value.split("@")
        locals_of_domain.setdefault(domain, {})[local] = number
    domain_lengths = sorted({len(domain) for domain in locals_of_domain})
    local_lengths = {domain: sorted({len(local) for local in known}) for domain, known in locals_of_domain.items()}
    for match in _AT.finditer(text, start, end):
        at = match.start()
        for length in domain_lengths:
            domain_end = at + 1 + length
            if domain_end > end:
                break
            domain = text[at + 1 : domain_end]
            for local_length in local_lengths.get(domain, ()):
                begin = at - local_length
                if begin < start:
                    break
                hit = locals_of_domain[domain].get(text[begin:at])
                if hit is not None:
                    yield hit, begin, domain_end


def _find_ips(text: str, start: int, end: int) -> Iterator[str]:
    """Yields the matches of four numbers up to 255 with dots between them, wherever they begin."""
    free = start
    for match in _IPV4_FIRST_DOT.finditer(text, start, end):
        for begin in range(max(free, match.start() - 3), match.start()):
            found = _IPV4.match(text, begin, end)
            if found:
                yield found.group()
                free = found.end()
                break


def _locate_ips(text: str, start: int, end: int, hits: Hits) -> Iterator[Occurrence]:
    """Yields every occurrence of the hits: up to three digits before and after each three dots."""
    for match in _IPV4_FIRST_DOT.finditer(text, start, end):
        rest = end_of(_IPV4_REST, text, match.start(), end)
        last = end_of(_DIGITS, text, rest, end)
        for begin in range(max(start, match.start() - 3), match.start()):
            for stop in range(rest + 1, last + 1):
                number = hits.get(text[begin:stop])
                if number is not None:
                    yield number, begin, stop


def _find_ibans(text: str, start: int, end: int) -> Iterator[str]:
    """Yields the matches of the one spaced shape."""
    return (match.group() for match in _IBAN.finditer(text, start, end))


def _locate_ibans(text: str, start: int, end: int, hits: Hits) -> Iterator[Occurrence]:
    """Yields every occurrence of the hits, overlapping ones too."""
    for match in _IBAN_ANYWHERE.finditer(text, start, end):
        for length in _IBAN_LENGTHS:
            stop = match.start() + length
            number = hits.get(text[match.start() : stop]) if stop <= end else None
            if number is not None:
                yield number, match.start(), stop


_KINDS: dict[str, tuple[Callable[..., Iterator[str]], Callable[..., Iterator[Occurrence]]]] = {
    "email": (_find_emails, _locate_emails),
    "ip": (_find_ips, _locate_ips),
    "iban": (_find_ibans, _locate_ibans),
}

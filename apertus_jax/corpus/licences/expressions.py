"""SPDX expressions from what people write in a licence field."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Sequence

from apertus_jax.corpus.licences.classes import NOT_UNDERSTOOD, classes_of, licensing
from apertus_jax.corpus.licences.creative_commons import LINK, licence_of_link
from apertus_jax.corpus.licences.names import OWN_NAME, identifier_of_name, refusal_in
from apertus_jax.corpus.licences.spellings import reduced
from apertus_jax.storage.json_reader import JSONError, parse_json

LONGEST_DECLARATION = 500  # a licence's whole text is not its name
_SYMBOLS = {"AND": "&", "OR": "|", "WITH": "+"}
_OPERATORS = re.compile(r"(\(|\)|\s+(?:AND|OR|WITH)\s+)", re.IGNORECASE)
_DANGLING = re.compile(r"^\s*(?:AND|OR|WITH)(?!\S)|(?<!\S)(?:AND|OR|WITH)\s*$", re.IGNORECASE)
_ASIDE = re.compile(r"\(([^()]*)\)")
# Where licences are separated: by a choice, or so that all of them hold.
_SEPARATORS = ((re.compile(r"\s*[,;&\n]\s*"), " AND "), (re.compile(r"\s*(?:/|\|\|?)\s*"), " OR "))
_ANCHOR = re.compile(r"<a\b[^<>]*?\bhref\s*=\s*[\"']?([^\"'\s<>]+)[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]*(?:\s[^<>]*)?/?>")
_PUNCTUATION = " \t\r\n\u00a0.,;:()[]<>\"'-–—|"


@functools.lru_cache(maxsize=1 << 14)
def normalize(declared: str) -> str:
    """Returns the SPDX expression of a declared licence, "" when nothing of it is understood.

    Understood are SPDX expressions, names in many spellings, addresses of licences, these joined by AND, OR, WITH and
    brackets, by `/` or `|` (a choice of software licences, as in Cargo; else all hold) and by commas or semicolons (all
    of them hold), and lists in square brackets. A part that is not understood becomes `LicenseRef-Not-Understood`: it
    counts against use beside others, and leaves a choice that is written in SPDX (`MIT OR something`) a choice.
    """
    declared = _without_markup(declared).strip()
    if not declared:
        return ""
    if declared.startswith('["') and (listed := _listed(declared)):
        return all_of(listed)
    if len(declared) > LONGEST_DECLARATION:
        return ""
    if declared.startswith("[") and declared.endswith("]"):
        return all_of([part.strip(" '\"") for part in declared[1:-1].split(",") if part.strip(" '\"")])
    readings = (_single, _sentence, _operators, _separated, refusal_in)
    return next((found for read in readings if (found := read(declared))), "")


def _listed(declared: str) -> list[str]:
    """Returns the texts of a JSON list; nothing where it is none."""
    try:
        values = parse_json(declared, "licence")
    except JSONError:
        return []
    texts = [each for each in values if isinstance(each, str) and not each.startswith("[")]
    return texts if len(texts) == len(values) else []


def _without_markup(declared: str) -> str:
    """Returns a text without HTML: entities as characters, of a link its target before its words."""
    if "&" not in declared and "<" not in declared:
        return declared
    return _TAG.sub(" ", _ANCHOR.sub(r" \1 ", html.unescape(declared)))


def all_of(declared: Sequence[str]) -> str:
    """Returns the expression under which all of these licences hold, "" when one is not understood or none is given."""
    resolved = [normalize(each) for each in declared]
    if len(resolved) < 2 or not all(resolved):
        return resolved[0] if len(resolved) == 1 else ""
    return _parse(" AND ".join(f"({each})" for each in resolved))


def _single(name: str) -> str:
    """Returns the expression of one licence by name or address, "" when it is none."""
    if link := LINK.fullmatch(name.strip(" <>\"'")):
        found = licence_of_link(link.group())
        return "" if found == NOT_UNDERSTOOD else found
    if "(" in name or ")" in name:
        return _with_aside(name)
    found = "" if _DANGLING.search(name) else identifier_of_name(name)
    return found and _parse(found)


def _with_aside(name: str) -> str:
    """Returns the expression of a name with something in brackets: `BSD (3-clause)`, `MIT License (MIT)`."""
    aside = _ASIDE.search(name)
    if aside is None:
        return ""
    outside = f"{name[: aside.start()]} {name[aside.end() :]}"
    if not reduced(outside) or "(" in outside or ")" in outside:
        return ""
    # An acronym in the middle of a name (`GNU General Public License (GPL) v3`) only repeats it.
    if whole := identifier_of_name(f"{outside} {aside[1]}"):
        return _parse(whole)
    said, repeated = _single(outside.strip()), _single(aside[1].strip())
    return _parse(f"({said}) AND ({repeated})") if said and repeated else ""


def _sentence(declared: str) -> str:
    """Returns the expression of a text with links in it: what they point to, and all the words beside them hold.

    Words that are not understood count against a licence that permits something; beside one that already refuses they
    are left out, for they cannot take the refusal back.
    """
    links = list(LINK.finditer(declared))
    found = [licence_of_link(link.group()) for link in links]
    if not any(found):
        return ""
    beside = LINK.sub(" ", declared)
    expression = _parse(" AND ".join(sorted({each or NOT_UNDERSTOOD for each in found})))
    if not reduced(beside):
        return _understood(expression)
    said = normalize(beside.strip(_PUNCTUATION))
    if not said and set(classes_of(expression)) <= {"nc_nd", "restricted"}:
        return expression
    return _parse(f"({expression}) AND ({said or NOT_UNDERSTOOD})")


def _operators(declared: str) -> str:
    """Returns the expression of licences joined by AND, OR, WITH and brackets, "" when it is none."""
    pieces = _OPERATORS.split(declared)
    if len(pieces) == 1:
        return ""
    resolved = [_piece(piece) for piece in pieces]
    if NOT_UNDERSTOOD in resolved and not any(piece.strip() == "OR" for piece in pieces):
        # The `or` of a sentence: whether it is a choice is as unknown as its other side.
        resolved = [" AND " if each == " OR " else each for each in resolved]
    return _understood(_parse("".join(resolved)))


def _piece(piece: str) -> str:
    """Returns an operator, bracket or blank in upper case, and of anything else the expression of the licence."""
    if not piece.strip():
        return piece
    if _OPERATORS.fullmatch(piece):
        return piece if piece in "()" else f" {piece.strip().upper()} "
    name = piece.strip()
    if _DANGLING.search(name):
        return name  # an operator too many: no expression
    # Exceptions are no licences on their own, so they are named here and judged with the whole.
    found = identifier_of_name(name) or _single(name) or (normalize(name) if _is_separated(name) else refusal_in(name))
    return f"({found})" if " " in found and " WITH " not in found else found or NOT_UNDERSTOOD


def _separated(declared: str) -> str:
    """Returns the expression of licences with commas, semicolons or slashes between them, "" when it is none."""
    for separator, operator in _SEPARATORS:
        parts = [part for part in separator.split(declared) if part.strip()]
        if len(parts) < 2 or "://" in declared:
            continue
        resolved = [normalize(part) or NOT_UNDERSTOOD for part in parts]
        if operator == " OR " and any("LicenseRef-" in part or "CC-" in part for part in resolved):
            operator = " AND "
        return _understood(_parse(operator.join(f"({part})" for part in resolved)))
    return ""


def _is_separated(name: str) -> bool:
    """Returns whether separators stand inside a piece of an expression."""
    return any(separator.search(name) for separator, _ in _SEPARATORS)


def _understood(expression: str) -> str:
    """Returns an expression, "" when nothing in it is understood: a choice between unknown things says nothing."""
    return "" if set(re.findall(r"[^\s()]+", expression)) <= {NOT_UNDERSTOOD, "AND", "OR"} else expression


@functools.lru_cache(maxsize=1 << 14)
def _parse(expression: str) -> str:
    """Returns an expression of known identifiers in normal form, "" when it is not one.

    Exceptions stand behind WITH and nowhere else, and nothing else stands there.
    """
    from license_expression import ExpressionError, ExpressionParseError

    if not _is_well_formed(expression):
        return ""
    try:
        parsed = licensing().parse(expression, strict=True)
        unknown = licensing().unknown_license_symbols(parsed, unique=True)
        if parsed is None or not all(OWN_NAME.fullmatch(symbol.key) for symbol in unknown):
            return ""
        return parsed.simplify().render()
    except (ExpressionError, ExpressionParseError):
        return ""


def _is_well_formed(expression: str) -> bool:
    """Returns whether names, operators and brackets alternate as they must (the parser trips over some that do not)."""
    reduced, previous = re.sub(r"[^\s()]+", lambda word: _SYMBOLS.get(word.group(), "n"), expression), ""
    reduced = "".join(reduced.split())
    while reduced != previous:
        previous = reduced
        reduced = re.sub(r"\(n\)|n[&|+]n", "n", reduced)
    return reduced == "n"

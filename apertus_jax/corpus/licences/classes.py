"""Licence classes: what a licence asks of users of a text, and its Blue Oak rating.

Classes of Creative Commons licences follow from their elements, those of a few licences of data and documents are
listed here, and the rest come from the categories of the ScanCode licence database that `license-expression` carries
(permissive, public domain, copyleft; everything else restricts use). A licence that the Blue Oak Council rates is
permissive whatever the database says of it, public-domain dedications apart.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.resources
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

# Best first. Of what is not understood nobody knows how bad it is: next to a licence that refuses, the refusal counts,
# next to any other it does.
CLASSES = (
    *("public_domain", "permissive", "share_alike", "copyleft"),
    *("not_understood", "nc_nd", "restricted", "unknown"),
)
NOT_UNDERSTOOD = "LicenseRef-Not-Understood"
RATINGS = ("model", "gold", "silver", "bronze", "lead", "")  # best first, "" = not rated

_CREATIVE_COMMONS = re.compile(r"(?:LicenseRef-)?CC-((?:BY|NC|ND|SA)(?:-(?:BY|NC|ND|SA))*)(?:-[0-9]|$)")
# Data and documents: under share-alike a derived text carries the same licence, as with CC BY-SA.
_OTHERS = {
    "CC0-1.0": "public_domain",
    "CC-PDM-1.0": "public_domain",
    "CC-PDDC": "public_domain",
    "PDDL-1.0": "public_domain",
    "LicenseRef-Public-Domain": "public_domain",
    "LicenseRef-Proprietary": "restricted",
    "LicenseRef-All-Rights-Reserved": "restricted",
    "LicenseRef-Non-Commercial": "nc_nd",
    "LicenseRef-No-Training": "restricted",
    "ODbL-1.0": "share_alike",
    "CDLA-Sharing-1.0": "share_alike",
    "LAL-1.2": "share_alike",
    "LAL-1.3": "share_alike",
    "JSON": "restricted",  # "for good, not evil": a field of use
}
_CATEGORIES = {
    "Permissive": "permissive",
    "Public Domain": "public_domain",
    "Copyleft": "copyleft",
    "Copyleft Limited": "copyleft",
    "Unstated License": "not_understood",
}


@functools.cache
def licence_database() -> dict[str, str]:
    """Returns SPDX identifier (and former ones) → category, from the database that `license-expression` carries."""
    text = importlib.resources.files("license_expression").joinpath("data/scancode-licensedb-index.json").read_text()
    categories: dict[str, str] = {}
    for entry in json.loads(text):
        for key in (entry.get("spdx_license_key"), *entry.get("other_spdx_license_keys", ())):
            if key:
                categories.setdefault(key, entry["category"])
    return categories


@functools.cache
def ratings() -> dict[str, str]:
    """Returns SPDX identifier → rating by the Blue Oak Council, in today's spelling of the identifiers."""
    return {
        licensing().parse(identifier).render(): rating
        for rating, identifiers in _ratings_file()["ratings"].items()
        for identifier in identifiers
    }


def class_of_identifier(identifier: str) -> str:
    """Returns the class of one SPDX identifier; `not_understood` for one that is in no list."""
    if identifier in _OTHERS:
        return _OTHERS[identifier]
    if elements := _CREATIVE_COMMONS.match(identifier):
        parts = elements.group(1).split("-")
        return "nc_nd" if {"NC", "ND"} & set(parts) else "share_alike" if "SA" in parts else "permissive"
    if identifier.startswith("GFDL-"):
        return "share_alike"
    category = licence_database().get(identifier, "Unstated License")
    if category != "Public Domain" and identifier in ratings():
        return "permissive"
    return _CATEGORIES.get(category, "restricted")


def classes_of(expression: str) -> list[str]:
    """Returns the classes under which an SPDX expression lets a text be used, best first; never empty.

    Each side of an OR is a way of its own; of an AND the worst side counts. An exception (WITH) only relaxes, so the
    licence before it counts, unless the exception itself restricts; what is no exception behind WITH, or one that
    stands elsewhere, is not understood. An empty expression is unknown: that all of no licences are permissive says
    nothing.
    """
    return list(_classes_of(expression))


@functools.lru_cache(maxsize=1 << 14)
def _classes_of(expression: str) -> tuple[str, ...]:
    return tuple(sorted(_ways(expression, class_of_identifier, CLASSES), key=CLASSES.index)) or ("unknown",)


@functools.lru_cache(maxsize=1 << 14)
def rating_of(expression: str) -> str:
    """Returns the best rating that a way through the expression has throughout (`model` … `lead`), "" for none."""
    found = _ways(expression, lambda identifier: ratings().get(identifier, ""), RATINGS)
    return min(found, key=RATINGS.index, default="")


@functools.cache
def lists_identity() -> dict[str, str]:
    """Returns versions and digests of what decides classes and ratings."""
    content = importlib.resources.files(__package__).joinpath("blue_oak.json").read_bytes()
    return {
        "blue_oak": hashlib.sha256(content).hexdigest(),
        "license-expression": importlib.metadata.version("license-expression"),
    }


def _ways(expression: str, value_of: Callable[[str], str], order: tuple[str, ...]) -> set[str]:
    """Returns the values that an expression can have: OR unites, AND takes the worst (the last in `order`)."""
    if not expression:
        return set()
    from license_expression import ExpressionError, ExpressionParseError

    not_understood = "not_understood" if "not_understood" in order else order[-1]

    def evaluate(node: Any) -> set[str]:
        arguments = getattr(node, "args", ())
        if not arguments:
            base = getattr(node, "license_symbol", node)
            exception = getattr(node, "exception_symbol", None)
            # Some addenda (the Commons Clause) take away instead of granting.
            if exception is not None and class_of_identifier(exception.key) == "restricted":
                return {"restricted" if "restricted" in order else order[-1]}
            if base.is_exception or (exception is not None and not exception.is_exception):
                return {not_understood}
            return {value_of(base.key)}
        branches = [evaluate(argument) for argument in arguments]
        if node.operator.strip() == "OR":
            return set.union(*branches)
        worst = branches[0]
        for branch in branches[1:]:
            worst = {max(pair, key=order.index) for pair in itertools.product(worst, branch)}
        return worst

    try:
        return evaluate(licensing().parse(expression))
    except (ExpressionError, ExpressionParseError, IndexError):  # the last of `()`, which is no expression
        return {not_understood}


@functools.cache
def licensing() -> Any:
    """Returns the parser with all SPDX identifiers."""
    from license_expression import get_spdx_licensing  # a fifth of a second that only licences need

    return get_spdx_licensing()


def _ratings_file() -> dict[str, Any]:
    """Returns the list of ratings."""
    return json.loads(importlib.resources.files(__package__).joinpath("blue_oak.json").read_text())

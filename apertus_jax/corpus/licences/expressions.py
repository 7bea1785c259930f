"""From what people write in a licence field to an SPDX expression."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from apertus_jax.corpus.licences.classes import licence_database, licensing
from apertus_jax.corpus.licences.creative_commons import creative_commons_identifier, licence_of_link

LONGEST_DECLARATION = 500  # a licence's whole text is not its name
_PUBLIC_DOMAIN = "LicenseRef-Public-Domain"

# Spellings without blanks, hyphens, points, `the`, `license`, `version`, in lower case → SPDX. Where a version is
# missing that changes nothing about the class, the current one stands; a bare BSD or GPL is the strictest it can be.
_ALIASES = {
    "mit": "MIT",
    "expat": "MIT",
    "x11": "X11",
    "isc": "ISC",
    "apache": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apache20": "Apache-2.0",
    "apachesoftware": "Apache-2.0",
    "apachesoftware20": "Apache-2.0",
    "asl20": "Apache-2.0",
    "bsd": "BSD-4-Clause",
    "bsd2": "BSD-2-Clause",
    "bsd2clause": "BSD-2-Clause",
    "simplifiedbsd": "BSD-2-Clause",
    "freebsd": "BSD-2-Clause",
    "bsd3": "BSD-3-Clause",
    "bsd3clause": "BSD-3-Clause",
    "newbsd": "BSD-3-Clause",
    "modifiedbsd": "BSD-3-Clause",
    "revisedbsd": "BSD-3-Clause",
    "boostsoftware10": "BSL-1.0",
    "boost": "BSL-1.0",
    "zlib": "Zlib",
    "unlicense": "Unlicense",
    "python": "PSF-2.0",
    "pythonsoftwarefoundation": "PSF-2.0",
    "psf": "PSF-2.0",
    "postgresql": "PostgreSQL",
    "mozillapublic20": "MPL-2.0",
    "mpl2": "MPL-2.0",
    "mpl20": "MPL-2.0",
    "eclipsepublic20": "EPL-2.0",
    "gpl": "GPL-3.0-or-later",
    "gplv2": "GPL-2.0-only",
    "gpl2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gpl2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gpl3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "gpl3+": "GPL-3.0-or-later",
    "gnugpl": "GPL-3.0-or-later",
    "gnugeneralpublic": "GPL-3.0-or-later",
    "gnugeneralpublicv2": "GPL-2.0-only",
    "gnugeneralpublicv20": "GPL-2.0-only",
    "gnugeneralpublicv3": "GPL-3.0-only",
    "gnugeneralpublicv30": "GPL-3.0-only",
    "lgpl": "LGPL-3.0-or-later",
    "lgplv2.1": "LGPL-2.1-only",
    "lgplv21": "LGPL-2.1-only",
    "lgplv3": "LGPL-3.0-only",
    "agplv3": "AGPL-3.0-only",
    "gfdl": "GFDL-1.3-or-later",
    "gnufreedocumentation": "GFDL-1.3-or-later",
    "cc0": "CC0-1.0",
    "cc010": "CC0-1.0",
    "cc010universal": "CC0-1.0",
    "creativecommonszero": "CC0-1.0",
    "publicdomain": _PUBLIC_DOMAIN,
    "licenserefpublicdomain": _PUBLIC_DOMAIN,
    "publicdomainmark": "CC-PDM-1.0",
    "publicdomainmark10": "CC-PDM-1.0",
    "odcby": "ODC-By-1.0",
    "odcby10": "ODC-By-1.0",
    "opendatacommonsattribution": "ODC-By-1.0",
    "odbl": "ODbL-1.0",
    "opendatabase": "ODbL-1.0",
    "ogl": "OGL-UK-3.0",
    "opengovernment": "OGL-UK-3.0",
    "opengovernmentv3.0": "OGL-UK-3.0",
    "opengovernmentv30": "OGL-UK-3.0",
}
_CREATIVE_COMMONS = re.compile(
    r"(?:cc|creativecommons)((?:by|nc|nd|sa)+)(?:v?([1-4])([05])?)?(?:international|unported|generic|public|deed)*"
)
_ELEMENT_WORDS = {
    "attribution": "by",
    "noncommercial": "nc",
    "noderivatives": "nd",
    "noderivs": "nd",
    "sharealike": "sa",
}
_SYMBOLS = {"AND": "&", "OR": "|", "WITH": "+"}
NOT_UNDERSTOOD = "LicenseRef-Not-Understood"
# Names outside SPDX that we give; `LicenseRef-` marks them as such.
_OWN_NAME = re.compile(rf"{_PUBLIC_DOMAIN}|{NOT_UNDERSTOOD}|LicenseRef-CC(?:-(?:BY|NC|ND|SA))+(?:-[0-9][.][0-9])?")
_FILLERS = re.compile(r"\b(?:the|licen[cs]ed?|version|under)\b", re.IGNORECASE)
_OPERATORS = re.compile(r"(\(|\)|\s+(?:AND|OR|WITH)\s+)", re.IGNORECASE)


@functools.lru_cache(maxsize=1 << 14)
def normalise(declared: str) -> str:
    """Returns the SPDX expression of a declared licence, "" when it is not understood as a whole.

    Understood are SPDX expressions, common names, addresses of licences, these joined by AND, OR, WITH and brackets,
    by `/` (a choice, as in Cargo) and by commas or semicolons (all of them hold), and lists in square brackets.
    """
    declared = declared.strip()
    if not declared or len(declared) > LONGEST_DECLARATION:
        return ""
    if declared.startswith("[") and declared.endswith("]"):
        return all_of([part.strip(" '\"") for part in declared[1:-1].split(",") if part.strip(" '\"")])
    single = _single(declared)
    if single:
        return _parse(single)
    for separator, operator in ((r"\s*[,;]\s*", " AND "), (r"\s*/\s*", " OR ")):
        parts = [part for part in re.split(separator, declared) if part]
        if len(parts) > 1 and "://" not in declared:
            resolved = [normalise(part) for part in parts]
            return _parse(operator.join(f"({part})" for part in resolved)) if all(resolved) else ""
    pieces = _OPERATORS.split(declared)
    if len(pieces) == 1:
        return ""
    expression = "".join(_piece(piece) for piece in pieces)
    parsed = _parse(expression)
    # A choice with one side understood is a choice; without any it says nothing.
    return "" if set(re.findall(r"[^\s()]+", parsed)) <= {NOT_UNDERSTOOD, "AND", "OR"} else parsed


def all_of(declared: Sequence[str]) -> str:
    """Returns the expression under which all of these licences hold, "" when one is not understood or none is given."""
    resolved = [normalise(each) for each in declared]
    if not resolved or not all(resolved):
        return ""
    return _parse(" AND ".join(f"({each})" for each in resolved))


def _piece(piece: str) -> str:
    """Returns an operator, bracket or blank in upper case, and of anything else the identifier of the licence."""
    if not piece.strip() or _OPERATORS.fullmatch(piece):
        return piece.upper()
    name = piece.strip()
    return _single(name) or (name if name.lower() in _identifiers_without_case() else NOT_UNDERSTOOD)


def _single(name: str) -> str:
    """Returns the SPDX identifier of one licence by name or address, "" when it is none."""
    if "://" in name:
        return licence_of_link(name)
    key = re.sub(r"[\s_.,()\"'-]+", "", _FILLERS.sub("", name).lower())
    if key in _ALIASES:
        return _ALIASES[key]
    for word, element in _ELEMENT_WORDS.items():
        key = key.replace(word, element)
    if deed := _CREATIVE_COMMONS.fullmatch(key):
        elements, whole, half = deed.groups()
        version = f"{whole}.{half or '0'}" if whole else ""
        return creative_commons_identifier(re.findall("by|nc|nd|sa", elements), version)
    if _OWN_NAME.fullmatch(name) and name != NOT_UNDERSTOOD:
        return name
    return _identifiers_without_case().get(name.lower(), "")


@functools.cache
def _identifiers_without_case() -> dict[str, str]:
    """Returns lower-case SPDX identifier → identifier."""
    return {key.lower(): key for key in licence_database()}


def _parse(expression: str) -> str:
    """Returns an expression of known identifiers in normal form, "" when it is not one."""
    from license_expression import ExpressionError, ExpressionParseError

    if not _is_well_formed(expression):
        return ""
    try:
        parsed = licensing().parse(expression)
        unknown = licensing().unknown_license_symbols(parsed, unique=True)
        if parsed is None or not all(_OWN_NAME.fullmatch(symbol.key) for symbol in unknown):
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

"""Creative Commons links of web pages, by type and version, and a few other well-known licence URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from apertus_jax.corpus.licences.classes import NOT_UNDERSTOOD, classes_of, licence_database

# An address in a text: with a scheme, or one of those known here without it.
LINK = re.compile(
    r"(?:https?:)?//[^\s<>\"'()\[\]{},;]+"
    r"|(?<![\w./:-])(?:www\.)?(?:creativecommons\.org|spdx\.org|opensource\.org|opendatacommons\.org|gnu\.org|apache\.org|"
    r"mozilla\.org|unlicense\.org)(?:/[^\s<>\"'()\[\]{},;]*)?(?!\w)",
    re.IGNORECASE,
)
_DEED = re.compile(
    r"(?:(?:https?:)?//)?(?:[a-z-]+\.)?creativecommons\.org/(licenses|publicdomain)/([a-z0-9+-]+)"
    r"(?:/([0-9](?:\.[0-9])?)(?:/([a-z]{2,3})(?=[/?#]|$))?|(?=[/?#]|$))",
    re.IGNORECASE,
)
_COMMONS = re.compile(r"(?:https?:)?//(?:[a-z-]+\.)?creativecommons\.org(?:[/?#]|$)", re.IGNORECASE)
_PUBLIC_DOMAIN = {"zero": "CC0-1.0", "mark": "CC-PDM-1.0", "publicdomain": "CC-PDDC", "certification": "CC-PDDC"}
_ELEMENTS = ("by", "nc", "nd", "sa")
_BY_IDENTIFIER = re.compile(
    r"(?:(?:https?:)?//)?(?:www\.)?(?:spdx\.org/licenses|opensource\.org/licenses?)/([A-Za-z0-9.+-]+?)(?:\.html|\.php|\.txt|\.json)?/?(?:[?#].*)?",
    re.IGNORECASE,
)
_ADDRESSES = {
    "www.apache.org/licenses/license-2.0": "Apache-2.0",
    "www.apache.org/licenses": "Apache-2.0",
    "www.gnu.org/licenses/gpl": "GPL-3.0-or-later",
    "www.gnu.org/copyleft/gpl": "GPL-3.0-or-later",
    "www.gnu.org/licenses/lgpl": "LGPL-3.0-or-later",
    "www.gnu.org/licenses/agpl": "AGPL-3.0-or-later",
    "www.gnu.org/licenses/fdl": "GFDL-1.3-or-later",
    "www.gnu.org/copyleft/fdl": "GFDL-1.3-or-later",
    "www.gnu.org/licenses/old-licenses/gpl-2.0": "GPL-2.0-only",
    "www.gnu.org/licenses/old-licenses/lgpl-2.1": "LGPL-2.1-only",
    "www.gnu.org/licenses/old-licenses/fdl-1.2": "GFDL-1.2-only",
    "www.gnu.org/licenses/gpl-2.0": "GPL-2.0-only",
    "www.gnu.org/licenses/gpl-3.0": "GPL-3.0-only",
    "www.gnu.org/licenses/lgpl-3.0": "LGPL-3.0-only",
    "www.gnu.org/licenses/agpl-3.0": "AGPL-3.0-only",
    "www.gnu.org/licenses/fdl-1.3": "GFDL-1.3-only",
    "www.mozilla.org/mpl/2.0": "MPL-2.0",
    "opendatacommons.org/licenses/by/1-0": "ODC-By-1.0",
    "opendatacommons.org/licenses/odbl/1-0": "ODbL-1.0",
    "opendatacommons.org/licenses/pddl/1-0": "PDDL-1.0",
    "unlicense.org": "Unlicense",
    "mit-license.org": "MIT",
    "joinup.ec.europa.eu/page/eupl-text-11-12": "EUPL-1.2",
}


def licence_of_link(link: str) -> str:
    """Returns the SPDX identifier of the licence that a link points to, "" when it points to none.

    A ported Creative Commons licence that SPDX does not list (`by/2.0/fr`) is named without its country, one whose
    address has no version as `LicenseRef-CC-…`.
    """
    link = link.strip()
    if deed := _DEED.match(link):
        return _identifier_of_deed(*deed.groups())
    if named := _BY_IDENTIFIER.fullmatch(link):
        return next((key for key in licence_database() if key.lower() == named.group(1).lower()), "")
    address = re.sub(r"^(?:https?:)?//|(?:\.[a-z]{2})?(?:\.html|\.txt)?/?(?:[?#].*)?$", "", link.lower())
    return _ADDRESSES.get(address) or _ADDRESSES.get(f"www.{address}", "")


def licence_of_links(links: Iterable[str]) -> tuple[str, bool]:
    """Returns the expression of all licences that a page links to, and whether they contradict each other.

    Licences of different classes or types contradict: the page does not say which text is under which, so neither is
    believed and the expression is "". Versions of one type do not; they are joined by AND. It is
    `LicenseRef-Not-Understood` where all that is linked to are terms that are not known here.
    """
    targets = {link: licence_of_link(link) for link in links}
    found = sorted(set(targets.values()) - {""})
    if not found and any(link and not _COMMONS.match(link.strip()) for link in targets):
        return NOT_UNDERSTOOD, False  # the page says under which terms it stands, at an address that says nothing here
    types = {re.sub(r"-[0-9].*", "", identifier) for identifier in found}
    if len(types) > 1 or len({tuple(classes_of(identifier)) for identifier in found}) > 1:
        return "", True
    return " AND ".join(found), False


def _identifier_of_deed(folder: str, name: str, version: str | None, country: str | None) -> str:
    """Returns the SPDX identifier of a deed's address, "" when its type is none."""
    name = name.lower()
    if name in _PUBLIC_DOMAIN:
        return _PUBLIC_DOMAIN[name]
    elements = name.split("-")
    if folder.lower() != "licenses" or not set(elements) <= set(_ELEMENTS):
        return NOT_UNDERSTOOD if version else ""  # a deed (sampling, devnations), but none that grants what we need
    return creative_commons_identifier(elements, version or "", country or "")


def creative_commons_identifier(elements: Sequence[str], version: str, country: str = "") -> str:
    """Returns the SPDX identifier for elements (`by`, `nc`, `nd`, `sa`), version and country, as far as SPDX has it.

    What SPDX does not list (no version, elements of version 1.0 that were given up) becomes a `LicenseRef-CC-…`.
    """
    # Version 1.0 wrote nd-nc; SPDX has one order for all.
    stem = "-".join(["CC", *(element.upper() for element in _ELEMENTS if element in elements)])
    if not version:
        return f"LicenseRef-{stem}"
    stem = f"{stem}-{version if '.' in version else version + '.0'}"
    for identifier in (f"{stem}-{country.upper()}", stem):
        if identifier in licence_database():
            return identifier
    return f"LicenseRef-{stem}"

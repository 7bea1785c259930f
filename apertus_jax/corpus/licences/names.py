"""SPDX identifiers from the names of licences as people write them; and what is written instead of one."""

from __future__ import annotations

import functools
import re

from apertus_jax.corpus.licences.classes import CLASSES, NOT_UNDERSTOOD, class_of_identifier, licence_database
from apertus_jax.corpus.licences.creative_commons import creative_commons_identifier
from apertus_jax.corpus.licences.creative_commons_names import deed_of_name, waiver_of_name
from apertus_jax.corpus.licences.spellings import reduced

PUBLIC_DOMAIN, PROPRIETARY = "LicenseRef-Public-Domain", "LicenseRef-Proprietary"
ALL_RIGHTS_RESERVED, NON_COMMERCIAL = "LicenseRef-All-Rights-Reserved", "LicenseRef-Non-Commercial"
NO_TRAINING = "LicenseRef-No-Training"
# Names outside SPDX that we give; `LicenseRef-` marks them as such.
OWN_NAME = re.compile(
    rf"{PUBLIC_DOMAIN}|{PROPRIETARY}|{ALL_RIGHTS_RESERVED}|{NON_COMMERCIAL}|{NO_TRAINING}|{NOT_UNDERSTOOD}"
    r"|LicenseRef-CC(?:-(?:BY|NC|ND|SA))+(?:-[0-9][.][0-9])?"
)

# Where a version is missing that changes nothing about the class, the current one stands; a bare BSD, BSL or GPL is
# the strictest it can be.
_NAMES = {
    "MIT": "mit, expat, mit expat",
    "X11": "x11, mit x11",
    "ISC": "isc, iscl",
    "Apache-2.0": "apache, apache software, asf 2.0, asl, asl 2.0, al2, alv2, apache2.0, apache software 2.0",
    "BSD-4-Clause": (
        "bsd, bsd 4, bsd 4 clause, bsd 4 clause original or old, original bsd, old bsd, "
        "berkeley software distribution, bsd style"
    ),
    "BSD-2-Clause": (
        "bsd 2, bsd2, bsd 2 clause, bsd 2 clause simplified, 2 clause bsd, two clause bsd, bsd two clause, "
        "simplified bsd, freebsd"
    ),
    "BSD-3-Clause": (
        "bsd 3, bsd3, bsd 3 clause, 3 clause bsd, three clause bsd, bsd three clause, new bsd, modified bsd, "
        "revised bsd, bsd new, bsd 3 clause new or revised, bsd 3 clause new, bsd 3 clause revised"
    ),
    "0BSD": "0bsd, bsd 0 clause, zero clause bsd, bsd zero clause",
    "BSL-1.0": "boost, boost software, boost software 1.0",
    "BUSL-1.1": "bsl, bsl 1.1, business source, business source 1.1",
    "Zlib": "zlib, zlib libpng",
    "Unlicense": "unlicense, the unlicense",
    "PSF-2.0": "python, python software foundation, psf, psfl, python software foundation 2.0",
    "PostgreSQL": "postgresql",
    "NCSA": "university of illinois ncsa open source, ncsa open source",
    "WTFPL": "wtfpl, do what the fuck you want to public",
    "SSPL-1.0": "sspl, server side public",
    "Elastic-2.0": "elastic, elastic 2",
    "MS-PL": "microsoft public, ms pl",
    "MS-RL": "microsoft reciprocal, ms rl",
    "Artistic-2.0": "artistic",
    "ODC-By-1.0": "odc by, odc by 1.0, open data commons attribution, open data commons attribution 1.0",
    "ODbL-1.0": "odbl, open database, open data commons open database, odc odbl, open data commons open database 1.0",
    "PDDL-1.0": "pddl, odc pddl, open data commons public domain dedication and, public domain dedication and",
    "OGL-UK-3.0": "ogl, open government, open government 3.0, uk open government 3.0, ogl 3.0, ogl uk",
    "CDLA-Permissive-2.0": "cdla permissive, community data permissive 2.0",
    "CDLA-Sharing-1.0": "cdla sharing, community data sharing 1.0",
    "GPL-3.0-or-later": "gpl, gnu gpl, gnu general public, general public",
    "LGPL-3.0-or-later": "lgpl, gnu lgpl, gnu lesser general public, lesser general public",
    "AGPL-3.0-or-later": "agpl, gnu agpl, gnu affero general public, affero general public, affero gpl",
    "GFDL-1.3-or-later": "gfdl, fdl, gnu fdl, gnu free documentation, free documentation",
    "MPL-2.0": "mpl, mozilla public, mozilla public 2.0",
    "EPL-2.0": "epl, eclipse public",
    "EUPL-1.2": "eupl, european union public",
    "GPL-2.0-only WITH Classpath-exception-2.0": "gpl 2.0 with classpath exception",
    "GPL-2.0-or-later WITH Autoconf-exception-2.0": "gpl 2.0 with autoconf exception",
    "GPL-2.0-or-later WITH Bison-exception-2.2": "gpl 2.0 with bison exception",
    "GPL-2.0-only WITH Font-exception-2.0": "gpl 2.0 with font exception",
    "GPL-2.0-or-later WITH GCC-exception-2.0": "gpl 2.0 with gcc exception",
    "GPL-3.0-only WITH Autoconf-exception-3.0": "gpl 3.0 with autoconf exception",
    "GPL-3.0-or-later WITH GCC-exception-3.1": "gpl 3.0 with gcc exception",
    PUBLIC_DOMAIN: (
        "public domain, publicdomain, in public domain, pd, gemeinfrei, domaine public, dominio público, "
        "domínio público, pubblico dominio, 公有领域, パブリックドメイン, общественное достояние"
    ),
    "CC-PDDC": "public domain dedication, creative commons public domain dedication and certification",
    PROPRIETARY: (
        "proprietary, unlicensed, commercial, closed, closed source, other proprietary, private, confidential, "
        "proprietary and confidential, copyrighted"
    ),
    NON_COMMERCIAL: (
        "non commercial use, for non commercial use only, research only, for research only, for research use only, "
        "research use only, academic use only, for academic use only, for personal use only, personal use only, "
        "for non commercial purposes only, non commercial research only, educational use only"
    ),
}
# Written out, and followed by a version: full name → how identifiers begin.
_FAMILIES = {
    "gpl": "gnu gpl, gnu general public, general public",
    "lgpl": "gnu lgpl, gnu lesser general public, lesser general public, gnu library general public, gnu library or "
    "lesser general public, lesser gpl, gnu lesser gpl, library general public",
    "agpl": "gnu agpl, gnu affero general public, affero general public, affero gpl, affero",
    "gfdl": "gnu fdl, gnu free documentation, free documentation, fdl, gnu gfdl",
    "apache": "apache software, asl, apache public, apl",
    "mpl": "mozilla public, mozilla",
    "epl": "eclipse public, eclipse",
    "eupl": "european union public, european union public licence eupl",
    "cddl": "common development and distribution",
    "cpl": "common public",
    "artistic": "perl artistic",
    "ofl": "sil open font, open font, sil ofl",
    "afl": "academic free",
    "osl": "open software",
    "ecl": "educational community",
    "bsl": "boost software, boost",
    "busl": "business source",
    "cecill": "cecill free software",
    "oglUk": "open government, ogl, uk open government",
    "odbl": "open database, open data commons open database",
    "cdlapermissive": "community data permissive",
    "cdlasharing": "community data sharing",
    "zpl": "zope public",
    "upl": "universal permissive",
    "ncgluk": "non commercial government",
    "polyformnoncommercial": "polyform noncommercial",
}
_RESERVED = (
    "all rights reserved, alle rechte vorbehalten, tous droits réservés, todos los derechos reservados, "
    "tutti i diritti riservati, todos os direitos reservados, alle rechten voorbehouden, "
    "wszelkie prawa zastrzeżone, všechna práva vyhrazena, všetky práva vyhradené, alla rättigheter förbehållna, "
    "alle rettigheder forbeholdes, alle rettigheter forbeholdt, kaikki oikeudet pidätetään, minden jog fenntartva, "
    "toate drepturile rezervate, tüm hakları saklıdır, все права защищены, усі права захищені, 版权所有, 版權所有, "
    "保留所有权利, 保留所有權利, 無断転載禁止, 無断転載を禁じます, 모든 권리 보유, 무단 전재, جميع الحقوق محفوظة, "
    "כל הזכויות שמורות, με επιφύλαξη παντός δικαιώματος, tots els drets reservats, sva prava pridržana"
)
_NOT_FOR_SALE = (
    "non commercial, no commercial, not for commercial, nicht kommerziell, keine kommerzielle, "
    "pas d'utilisation commerciale, non commerciale, no comercial, não comercial, niet commercieel"
)
_NOT_FOR_TRAINING = (
    "no ai training, not for ai training, not be used for ai training, not to be used for ai, no use for ai, "
    "ai training prohibited, ai training not permitted, ai training reserved, no machine learning, "
    "no generative ai, no text and data mining, text and data mining reserved, text and data mining rights reserved, "
    "including those for text and data mining, including text and data mining, no tdm, tdm reserved, "
    "text und data mining vorbehalten, data mining vorbehalten, kein text und data mining, kein ki training, "
    "fouille de textes et de données réservée, pas de fouille de textes, minería de textos y datos reservada, "
    "sin entrenamiento de ia, pas d'entraînement d'ia"
)
_VERSIONED = re.compile(
    r"(?P<name>.*?[^0-9v])v?(?P<version>[0-9]{1,3})?"
    r"(?P<suffix>only|orlater|oranylater|orabove|orhigher|ornewer|orgreater|andlater|\+)?"
)
_CLASSIFIER = re.compile(r"^\s*licen[cs]e\s*::\s*(?:osi approved\s*::\s*)?", re.IGNORECASE)
_SPDX_TAG = re.compile(r"^\s*spdx-license-identifier\s*:\s*", re.IGNORECASE)
_NOTICE = re.compile(r"\s*(?:copyright(?!ed|left)\b|©|\(c\)\s|℗|urheberrecht|droits d'auteur)", re.IGNORECASE)


def identifier_of_name(name: str) -> str:
    """Returns the SPDX identifier of one licence (some are an identifier with its exception), "" when it is none."""
    name = _SPDX_TAG.sub("", _CLASSIFIER.sub("", name)).strip()
    if OWN_NAME.fullmatch(name):
        return "" if name == NOT_UNDERSTOOD else name
    key = reduced(name)
    # Former identifiers with an exception inside (GPL-2.0-with-…) are among the names.
    if found := _names().get(key) or _identifiers_without_case().get(name.lower()):
        return found
    if not key:
        return ""
    if found := waiver_of_name(name) or _identifiers().get(key):
        return found
    if deed := deed_of_name(name):
        return creative_commons_identifier(*deed)
    return _with_version(key)


def is_mere_notice(declared: str) -> bool:
    """Returns whether a text only says who holds the rights, and reserves nothing beyond that."""
    return _NOTICE.match(declared) is not None and not any(phrase in reduced(declared) for phrase in _refusals())


def refusal_in(declared: str) -> str:
    """Returns the identifier of a refusal that stands anywhere in a text, or is all that a copyright notice says."""
    key = reduced(declared)
    found = next((refusal for phrase, refusal in _refusals().items() if phrase in key), "")
    return found or (ALL_RIGHTS_RESERVED if _NOTICE.match(declared) else "")


def _with_version(key: str) -> str:
    """Returns the identifier of a reduced name with a version written in some way, and perhaps `or later`."""
    match = _VERSIONED.fullmatch(key)
    if match is None or not (match["version"] or match["suffix"]):
        return ""
    stem, digits, suffix = _families().get(match["name"], match["name"]), match["version"] or "", match["suffix"] or ""
    if not digits:
        return _names().get(stem, "")
    suffix = suffix and ("only" if suffix == "only" else "orlater")
    # One digit stands for a whole version; that a later one may be chosen takes nothing away where SPDX lists no such.
    for version in (digits, digits + "0"):
        for ending in dict.fromkeys((suffix, "")):
            if found := _identifiers().get(stem + version + ending):
                return found
    return ""


@functools.cache
def _identifiers_without_case() -> dict[str, str]:
    """Returns lower-case SPDX identifier → identifier."""
    return {key.lower(): key for key in licence_database() if " " not in key}


@functools.cache
def _identifiers() -> dict[str, str]:
    """Returns reduced SPDX identifier → identifier; of two that become one, that of the worse class."""
    best_first = sorted(
        _identifiers_without_case().values(), key=lambda each: (CLASSES.index(class_of_identifier(each)), each)
    )
    return {reduced(identifier.replace("-", " ")): identifier for identifier in best_first}


@functools.cache
def _names() -> dict[str, str]:
    """Returns reduced name → identifier."""
    return {reduced(name): identifier for identifier, names in _NAMES.items() for name in names.split(", ")}


@functools.cache
def _families() -> dict[str, str]:
    """Returns reduced full name → the letters before the version in a reduced identifier."""
    return {reduced(name): stem.lower() for stem, names in _FAMILIES.items() for name in names.split(", ")}


@functools.cache
def _refusals() -> dict[str, str]:
    """Returns reduced phrase → what it says, wherever in a text it stands."""
    phrases = {NO_TRAINING: _NOT_FOR_TRAINING, ALL_RIGHTS_RESERVED: _RESERVED, NON_COMMERCIAL: _NOT_FOR_SALE}
    return {reduced(phrase): refusal for refusal, listed in phrases.items() for phrase in listed.split(", ")}

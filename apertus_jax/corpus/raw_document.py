"""Raw documents: a document as its source gave it, before any decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE


@dataclasses.dataclass(frozen=True, slots=True)
class RawDocument:
    """One input document and where it was found.

    `file` is relative to the source's root and `row` counts from 1 (records of a WARC, rows of a table, lines of a
    JSONL file), so that moving a corpus changes neither. Header and meta names are lower-case; several values of one
    name are joined by ", ".
    """

    document_id: str  # 32 hexadecimal digits, see documents.document_id
    text: str
    source: str
    file: str
    row: int
    url: str = ""
    crawl_date: str = ""  # YYYY-MM-DD in UTC, or YYYY-MM, or YYYY where no more is known
    licence: str = ""  # as declared
    language: str = UNKNOWN_LANGUAGE  # as declared
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)  # HTTP response headers that carry signals
    meta_tags: Mapping[str, str] = dataclasses.field(default_factory=dict)  # <meta name=… content=…> of the page
    licence_links: tuple[str, ...] = ()  # link targets of the page that point to licences
    conversation: str = ""  # JSON of a chat, whose text is what is said in it
    own_source: str = ""  # what the row itself calls its source; rules ask about `source`, which no row can choose

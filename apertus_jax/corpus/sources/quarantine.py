"""Quarantine of rows that cannot become documents: a reason from a closed list, never the content."""

from __future__ import annotations

import dataclasses
import enum

LONGEST_DETAIL = 160


class QuarantineReason(enum.StrEnum):
    """Reasons for setting aside a row, or the rest of a file."""

    # Of a file, or of all that is left of it.
    TRUNCATED_FILE = "truncated_file"
    DAMAGED_FILE = "damaged_file"
    DECOMPRESSION_BOMB = "decompression_bomb"
    MISSING_COLUMN = "missing_column"
    COLUMN_TYPE = "column_type"
    # Of one row.
    DAMAGED_RECORD = "damaged_record"
    RECORD_TOO_LARGE = "record_too_large"
    INVALID_ENCODING = "invalid_encoding"
    INVALID_JSON = "invalid_json"
    JSON_TOO_COMPLEX = "json_too_complex"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_TEXT = "missing_text"
    EMPTY_TEXT = "empty_text"
    TEXT_TOO_LARGE = "text_too_large"
    WRONG_TYPE = "wrong_type"
    MALFORMED_CONVERSATION = "malformed_conversation"
    FIELD_TOO_LONG = "field_too_long"
    NUL_CHARACTER = "nul_character"
    LONE_SURROGATE = "lone_surrogate"
    INVALID_ID = "invalid_id"
    DUPLICATE_ID = "duplicate_id"
    URL_WITHOUT_HOST = "url_without_host"
    MALFORMED_DATE = "malformed_date"
    FUTURE_DATE = "future_date"
    PAGE_TOO_COMPLEX = "page_too_complex"


FILE_REASONS = frozenset(list(QuarantineReason)[:5])


@dataclasses.dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One row that was set aside; `row` 0 stands for the whole file. `detail` is one line without document content."""

    source: str
    file: str
    row: int
    reason: QuarantineReason
    detail: str = ""


class Unusable(Exception):
    """A row cannot become a document; carries the reason and the detail to the reader that knows file and row."""

    def __init__(self, reason: QuarantineReason, detail: str = ""):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = " ".join(detail.split())[:LONGEST_DETAIL]

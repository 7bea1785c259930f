"""Reasons for dropping a document: a closed list, so that every ledger can be counted and compared."""

from __future__ import annotations

import dataclasses
import enum


class Reason(enum.StrEnum):
    """One reason per rule, in the order in which rules are asked; the first that applies is the decision."""

    REMOVED_ON_REQUEST = "removed_on_request"
    DUPLICATE_ID = "duplicate_id"
    ROBOTS = "robots"
    ROBOTS_UNREACHABLE = "robots_unreachable"
    OPT_OUT_SIGNAL = "opt_out_signal"
    LICENCE_UNKNOWN = "licence_unknown"
    LICENCE_NOT_UNDERSTOOD = "licence_not_understood"
    LICENCE_NOT_PERMITTED = "licence_not_permitted"
    LANGUAGE_UNKNOWN = "language_unknown"
    LANGUAGE_UNCERTAIN = "language_uncertain"
    LANGUAGE_NOT_WANTED = "language_not_wanted"
    LENGTH = "length"
    WORDS = "words"
    SYMBOLS = "symbols"
    LINES = "lines"
    REPETITION = "repetition"
    QUALITY = "quality"
    TOXICITY = "toxicity"
    CONTAMINATION = "contamination"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"


CONSENT_REASONS = (
    Reason.REMOVED_ON_REQUEST,
    Reason.ROBOTS,
    Reason.ROBOTS_UNREACHABLE,
    Reason.OPT_OUT_SIGNAL,
    Reason.LICENCE_UNKNOWN,
    Reason.LICENCE_NOT_UNDERSTOOD,
    Reason.LICENCE_NOT_PERMITTED,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """A reason to keep a document out, and the figures behind it in one short line without personal data."""

    reason: Reason
    detail: str = ""

"""The record of why each document stayed or went, and the questions that can be put to it."""

from apertus_jax.corpus.ledger.funnel import Funnel
from apertus_jax.corpus.ledger.records import (
    DROP,
    KEEP,
    KIND,
    LEDGER_FILE,
    Decision,
    ledger_schema,
    parts_of,
    url_digest,
)
from apertus_jax.corpus.ledger.why import why

__all__ = [
    "DROP",
    "KEEP",
    "KIND",
    "LEDGER_FILE",
    "Decision",
    "Funnel",
    "ledger_schema",
    "parts_of",
    "url_digest",
    "why",
]

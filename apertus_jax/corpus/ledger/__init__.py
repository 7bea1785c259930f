"""Ledger: the record of why each document was kept or dropped, and queries on it."""

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
from apertus_jax.corpus.ledger.why_command import why

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

"""Corpus: which documents may be trained on, and the file format in which they travel. Imports no jax."""

from apertus_jax.corpus.documents import (
    Document,
    document_id,
    document_schema,
    input_files,
    read_documents,
    write_documents,
)
from apertus_jax.corpus.reasons import Reason, Verdict

__all__ = [
    "Document",
    "Reason",
    "Verdict",
    "document_id",
    "document_schema",
    "input_files",
    "read_documents",
    "write_documents",
]

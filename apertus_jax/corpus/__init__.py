"""Corpus: which documents may be trained on, and the file format in which they travel. Imports no jax."""

from apertus_jax.corpus.documents import (
    Document,
    document_id,
    document_schema,
    input_files,
    read_documents,
    write_documents,
)

__all__ = [
    "Document",
    "document_id",
    "document_schema",
    "input_files",
    "read_documents",
    "write_documents",
]

"""Deduplication: exact and near duplicates over the whole corpus (MinHash, LSH bands), in flat memory."""

from apertus_jax.corpus.duplicates.clusters import DEFAULT_MEMORY, SMALLEST_MEMORY, find_clusters
from apertus_jax.corpus.duplicates.keys import KeyWriter, key_records, write_keys
from apertus_jax.corpus.duplicates.ordinal_tables import OrdinalTable
from apertus_jax.corpus.duplicates.rule import DuplicateRule
from apertus_jax.corpus.duplicates.scoring import DuplicateScorer, DuplicateScoring
from apertus_jax.corpus.duplicates.survivors import choose_survivors
from apertus_jax.corpus.duplicates.words import normalized_words

__all__ = [
    "DEFAULT_MEMORY",
    "DuplicateRule",
    "DuplicateScorer",
    "DuplicateScoring",
    "SMALLEST_MEMORY",
    "KeyWriter",
    "OrdinalTable",
    "choose_survivors",
    "find_clusters",
    "key_records",
    "normalized_words",
    "write_keys",
]

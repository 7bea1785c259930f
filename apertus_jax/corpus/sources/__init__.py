"""Sources of documents: cut into units, and read by a streaming reader that no bad row can stop."""

from apertus_jax.corpus.sources.parts import Part, Unit
from apertus_jax.corpus.sources.quarantine import QuarantinedRow, QuarantineReason
from apertus_jax.corpus.sources.reading import concerns_file, read_unit
from apertus_jax.corpus.sources.source import Limits, Source, describe_source, reader_versions
from apertus_jax.corpus.sources.units import plan_units, unit_size

__all__ = [
    "Limits",
    "Part",
    "QuarantineReason",
    "QuarantinedRow",
    "Source",
    "Unit",
    "concerns_file",
    "describe_source",
    "plan_units",
    "read_unit",
    "reader_versions",
    "unit_size",
]

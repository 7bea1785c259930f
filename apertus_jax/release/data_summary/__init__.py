"""Training data summary: EU public summary, datasheet, Croissant, list of domains."""

from apertus_jax.release.data_summary.data_summary_command import data_summary
from apertus_jax.release.data_summary.data_summary_template_command import data_summary_template
from apertus_jax.release.data_summary.facts import (
    Crawler,
    DatasheetAnswers,
    Declarations,
    Provider,
    PublishedModel,
    SourceDescription,
)

__all__ = [
    "Crawler",
    "DatasheetAnswers",
    "Declarations",
    "Provider",
    "PublishedModel",
    "SourceDescription",
    "data_summary",
    "data_summary_template",
]

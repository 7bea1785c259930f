"""What has to be published about the training content: EU public summary, datasheet, Croissant, list of domains."""

from apertus_jax.release.data_summary.command import data_summary
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
]

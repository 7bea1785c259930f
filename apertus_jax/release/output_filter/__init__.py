"""Output filter: catches what removal requests name in what a model writes, by a signed file of digests."""

from apertus_jax.release.output_filter.applied_filter import OutputFilter
from apertus_jax.release.output_filter.listing import NgramPlan
from apertus_jax.release.output_filter.options import FilterRates
from apertus_jax.release.output_filter.output_filter_command import build_output_filter
from apertus_jax.release.output_filter.signing import new_signing_key

__all__ = ["FilterRates", "NgramPlan", "OutputFilter", "build_output_filter", "new_signing_key"]

"""The output filter: what removal requests name is caught in what a model writes, from a signed file of digests."""

from apertus_jax.release.output_filter.applied_filter import OutputFilter
from apertus_jax.release.output_filter.build_command import build_output_filter
from apertus_jax.release.output_filter.signing import new_signing_key

__all__ = ["OutputFilter", "build_output_filter", "new_signing_key"]

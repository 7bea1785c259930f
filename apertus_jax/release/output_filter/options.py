"""Options of an output filter: false-positive rates of its Bloom filter and prefilter, cost of its slow hash."""

from __future__ import annotations

import dataclasses

from apertus_jax.release.output_filter.hashing import check_scrypt_n
from apertus_jax.validation import fields_by_annotation, require_number


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class FilterRates:
    """Rates of a filter: the share of ordinary text that gets past its fast tables, and what the slow one costs.

    Attributes:
      bloom: share of other n-grams that the Bloom filter lets pass to the exact list.
      string_prefilter: share of other strings that reach the slow hash, see `hashing`.
      scrypt_n: cost of the slow hash, a power of two.
    """

    bloom: float = 1e-4
    string_prefilter: float = 1 / 256
    scrypt_n: int = 1 << 14

    def __post_init__(self) -> None:
        for name in ("bloom", "string_prefilter"):
            require_number(f"FilterRates.{name}", getattr(self, name), at_least=1e-9, at_most=0.5)
        check_scrypt_n(self.scrypt_n)

"""Share of work: INDEX/COUNT, as an array of jobs divides a list of units among its tasks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Share:
    """Task `index` of `count`: the units whose number leaves `index` when divided by `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Raises UserError unless 0 <= index < count."""
        if not 0 <= self.index < self.count:
            raise UserError(f"task {self.index}/{self.count} does not exist; tasks of {self.count} go from 0")

    @classmethod
    def parse(cls, text: str) -> Share:
        """Reads `i/n`, tasks counted from 0; empty means all of the work.

        Raises:
          UserError: it is not of this form or out of range.
        """
        if not text:
            return cls()
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)  # isdigit() would take ² too
        if not found or not int(found[2]):
            raise UserError(f"task {text!r} must be INDEX/COUNT such as 0/16, counted from 0")
        return cls(int(found[1]), int(found[2]))

    def units(self, total: int) -> Sequence[int]:
        """Returns the numbers of its units."""
        return range(self.index, total, self.count)

    def block(self, total: int) -> Sequence[int]:
        """Returns the numbers of its units when each task takes neighbours, which have something in common."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

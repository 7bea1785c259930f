"""Verdicts on claims: holds, does not hold, or cannot be judged by what was measured.

Every report that says yes or no to a claim asks here. A claim is judged by an interval; where there is none (a group
without values, one value only, values that do not differ, NaN, a ratio to nothing) nothing is claimed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

HOLDS, DOES_NOT_HOLD, CANNOT_BE_JUDGED = "holds", "does not hold", "cannot be judged"


class Interval(Protocol):
    """A figure with the ends of its interval, as `Estimate` and `Equivalence` have them."""

    @property
    def lower(self) -> float:
        """Its lower end."""

    @property
    def upper(self) -> float:
        """Its upper end."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One claim and what became of it.

    Attributes:
      claim: in words.
      outcome: `HOLDS`, `DOES_NOT_HOLD` or `CANNOT_BE_JUDGED`.
      reason: why it cannot be judged; empty otherwise.
    """

    claim: str
    outcome: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in (HOLDS, DOES_NOT_HOLD, CANNOT_BE_JUDGED):
            raise ValueError(f"{self.outcome!r} is no outcome of a verdict")
        if (self.outcome == CANNOT_BE_JUDGED) != bool(self.reason):
            raise ValueError("a verdict has a reason exactly when it cannot be judged")

    @property
    def holds(self) -> bool | None:
        """True or False; None when it cannot be judged."""
        return None if self.outcome == CANNOT_BE_JUDGED else self.outcome == HOLDS

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}" if self.reason else self.outcome

    def describe(self) -> dict[str, Any]:
        """Returns the verdict as JSON values."""
        return {"claim": self.claim, "verdict": self.outcome, "reason": self.reason or None, "holds": self.holds}


def judge(
    claim: str,
    interval: Interval | None,
    condition: Callable[[Any], bool],
    values: Mapping[str, int],
    unless: Mapping[str, bool] | None = None,
) -> Verdict:
    """Returns whether `condition` is true of an interval, where that says anything.

    Args:
      claim: in words.
      interval: what was found; None when nothing could be computed.
      condition: takes the interval.
      values: name of each group behind it → how many values it has, for example {"probes": 20, "controls": 20}.
      unless: other reasons why nothing is said → whether they are given.
    """

    def cannot(reason: str) -> Verdict:
        return Verdict(claim, CANNOT_BE_JUDGED, reason)

    for reason, given in (unless or {}).items():
        if given:
            return cannot(reason)
    for name, count in values.items():
        if count < 2:
            return cannot(f"there is one of {name}, and one has no spread" if count else f"there are no {name}")
    if interval is None:
        return cannot("nothing could be computed")
    figures: Any = interval
    if not all(map(math.isfinite, dataclasses.asdict(figures).values())):
        return cannot("some draws have no value, so there is no interval")
    if interval.lower == interval.upper:
        return cannot("the values do not differ, so the interval has no width")
    return Verdict(claim, HOLDS if condition(interval) else DOES_NOT_HOLD)

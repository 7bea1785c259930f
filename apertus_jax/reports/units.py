"""Units of numbers as people read them: 0.5 M, 1.2 B, 3.4 GB, 12 ms, 45 %."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "−"


@dataclasses.dataclass(frozen=True)
class Unit:
    """A family of units of one quantity.

    Attributes:
      steps: (size, symbol) from small to large; a value is shown in the largest step that it reaches.
    """

    steps: tuple[tuple[float, str], ...] = ((1.0, ""),)

    def step_for(self, value: float) -> tuple[float, str]:
        """Returns (size, symbol) of the largest step that |value| reaches, or the smallest step."""
        reached = [step for step in self.steps if abs(value) >= step[0] * (1 - 1e-9)]
        return reached[-1] if reached else self.steps[0]


PLAIN = Unit()
COUNT = Unit(((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "B"), (1e12, "T")))
BYTES = Unit(((1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB"), (1e15, "PB")))
SECONDS = Unit(((1e-6, "µs"), (1e-3, "ms"), (1, "s"), (60, "min"), (3600, "h"), (86400, "d")))
SHARE = Unit(((0.01, "%"),))


def readable(value: float | None, unit: Unit = PLAIN, digits: int = 3) -> str:
    """Returns a number with its unit, rounded to `digits` digits: `1.02 M`; a dash for None and NaN.

    Counts below ten thousand are whole and exact.
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if unit is COUNT and abs(value) < 1e4 and float(value).is_integer():
        return _signed(f"{value:,.0f}")
    size, symbol = unit.step_for(value)
    # 999,950 rounds to 1,000 k: say 1 M.
    size, symbol = unit.step_for(float(f"{value / size:.{digits}g}") * size) if value else (size, symbol)
    return f"{_rounded(value / size, digits)} {symbol}".rstrip()


def tick_labels(ticks: Sequence[float], unit: Unit = PLAIN) -> list[str]:
    """Returns the labels of equally spaced ticks: one unit and one number of decimals for all."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    size, symbol = unit.step_for(largest)
    scaled = [tick / size for tick in ticks]
    decimals = next((n for n in range(12) if all(abs(round(x, n) - x) <= 1e-6 * largest / size for x in scaled)), 12)
    if largest and (decimals > 4 or largest / size >= 1e6):
        return [f"{_rounded(x, 3)} {symbol}".rstrip() for x in scaled]
    return [_signed(f"{x:,.{decimals}f} {symbol}".rstrip()) if x else "0" for x in scaled]


def _rounded(value: float, digits: int) -> str:
    """Returns a number with `digits` digits, or more where they stand before the point."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if not -4 <= exponent < 7:
        mantissa = _trimmed(f"{value / 10.0**exponent:.{digits - 1}f}")
        return _signed(f"{mantissa}×10{str(exponent).translate(SUPERSCRIPTS)}")
    return _signed(_trimmed(f"{value:,.{max(digits - 1 - exponent, 0)}f}"))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _signed(text: str) -> str:
    return text.replace("-", MINUS)

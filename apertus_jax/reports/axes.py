"""Axes of charts: linear, logarithmic and named scales, their ticks, and places in per cent of the plot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from apertus_jax.reports.units import PLAIN, Unit, readable, tick_labels

TICKS = 5  # about as many as a phone has width for


@dataclasses.dataclass(frozen=True)
class Axis:
    """Content of an axis: a quantity, its unit and its scale.

    Attributes:
      label: the quantity, with its unit where `unit` does not say it: "nats per token".
      unit: how its numbers are written.
      scale: `named` has one place for each of `names`, and values are positions 0, 1, … among them.
      low, high: ends that are fixed; None for those of the data.
      names: of a named axis.
    """

    label: str
    unit: Unit = PLAIN
    scale: Literal["linear", "log", "named"] = "linear"
    low: float | None = None
    high: float | None = None
    names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Tick:
    """A tick at `place` per cent; `fine` ones are left out where there is little width."""

    place: float
    label: str
    fine: bool = False


@dataclasses.dataclass(frozen=True)
class Scale:
    """An axis fitted to data.

    Attributes:
      axis: what it shows.
      low, high: values at 0 and 100 per cent.
      ticks: from low to high.
    """

    axis: Axis
    low: float
    high: float
    ticks: tuple[Tick, ...]

    def place(self, value: float | None) -> float | None:
        """Returns where a value stands, in per cent of the length; None for what the scale cannot show."""
        if value is None or not math.isfinite(value):
            return None
        if self.axis.scale == "log":
            if value <= 0:
                return None
            start, end = math.log10(self.low), math.log10(self.high)
            return 100 * (math.log10(value) - start) / (end - start)
        return 100 * (value - self.low) / (self.high - self.low)

    def text(self, value: float | None) -> str:
        """Returns a value as it is shown on hover."""
        if self.axis.scale == "named" and value is not None:
            return self.axis.names[round(value)]
        return readable(value, self.axis.unit)


def fitted(axis: Axis, values: Iterable[float | None], margin: float = 0.0) -> Scale:
    """Returns the scale of an axis for some values; `margin` is what is added at ends that are not fixed, as a share.

    Values that are not finite, and on a logarithmic axis those that are not positive, do not count. An axis without a
    value is linear from 0 to 1, and so is a logarithmic one.
    """
    if axis.scale == "named":
        places = tuple(Tick(100 * (n + 0.5) / len(axis.names), name) for n, name in enumerate(axis.names))
        return Scale(axis, -0.5, len(axis.names) - 0.5, places)
    shown = [v for v in values if v is not None and math.isfinite(v) and (axis.scale != "log" or v > 0)]
    if not shown and axis.scale == "log":
        axis = dataclasses.replace(axis, scale="linear")
    low = axis.low if axis.low is not None else min(shown, default=0.0)
    high = axis.high if axis.high is not None else max(shown, default=1.0)
    if axis.scale == "log":
        return _logarithmic(axis, low, high, margin)
    if high <= low:
        spread = abs(low) * 0.1 or 1.0
        low, high = (low if axis.low is not None else low - spread), low + spread
    pad = margin * (high - low)
    # All values of one sign: the margin does not cross zero.
    bottom = low if axis.low is not None else max(low - pad, 0.0) if low >= 0 else low - pad
    top = high if axis.high is not None else high + pad
    ticks = nice_ticks(bottom, top, TICKS, axis.unit.step_for(max(abs(bottom), abs(top)))[0])
    labels = tick_labels(ticks, axis.unit)
    return _with_ticks(Scale(axis, bottom, top, ()), ticks, labels)


def _logarithmic(axis: Axis, low: float, high: float, margin: float) -> Scale:
    if high <= low:
        low, high = low / 2, high * 2
    decades = math.log10(high) - math.log10(low)
    pad = margin * decades
    low = low if axis.low is not None else 10.0 ** max(math.log10(low) - pad, -300.0)
    high = high if axis.high is not None else 10.0 ** min(math.log10(high) + pad, 300.0)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if decades > 2:
        stride = math.ceil(decades / 6)
        ticks = [10.0**e for e in exponents if e % stride == 0]
    else:
        ticks = [digit * 10.0**e for e in exponents for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    if len(ticks) < 2:
        ticks = [tick for tick in nice_ticks(low, high, TICKS) if tick > 0]
    return _with_ticks(Scale(axis, low, high, ()), ticks, [readable(tick, axis.unit) for tick in ticks])


def _with_ticks(scale: Scale, ticks: Sequence[float], labels: Sequence[str]) -> Scale:
    """Returns the scale with ticks; of more than four every second is fine, counted from the last."""
    places = [scale.place(tick) for tick in ticks]
    fine = [len(ticks) > 4 and (len(ticks) - 1 - number) % 2 == 1 for number in range(len(ticks))]
    kept = [
        Tick(place, label, each)
        for place, label, each in zip(places, labels, fine, strict=True)
        if place is not None and -0.01 <= place <= 100.01
    ]
    return dataclasses.replace(scale, ticks=tuple(kept))


def nice_ticks(low: float, high: float, count: int, size: float = 1.0) -> list[float]:
    """Returns multiples of 1, 2, 2.5 or 5 times a power of ten of `size` between low and high, about `count`."""
    low, high = low / size, high / size
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") * size for number in range(first, last + 1)]

"""Metrics of held-out loss: nats per token with intervals, bits per byte, the unigram baseline.

A metric that is added to `METRICS` is measured, written to results.json and shown in the terminal and on the page.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.evaluation.bits_per_byte import bits_per_byte, text_sums
from apertus_jax.evaluation.intervals import interval_text, loss_interval, without_nan

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Group:
    """Documents that are measured together.

    Attributes:
      losses: nats of each document's tokens, float32[n] each.
      unigram: nats of each document under the unigram baseline, float64[N].
      text: nats and bytes of each document's tokens that stand for text, float64[N, 2].
      seed: of the interval.
    """

    losses: Sequence[np.ndarray]
    unigram: np.ndarray
    text: np.ndarray
    seed: int

    @functools.cached_property
    def tokens(self) -> int:
        """Tokens that are predicted."""
        return sum(len(each) for each in self.losses)

    @functools.cached_property
    def interval(self) -> tuple[float, float, str]:
        """The 95 % interval of nats per token and the unit that is resampled; NaN where there is only one."""
        return loss_interval(self.losses, self.seed)

    def nats_per_token(self) -> float:
        """Pools tokens, not documents."""
        return float(sum(each.sum(dtype=np.float64) for each in self.losses)) / self.tokens

    def bits_per_byte(self) -> float | None:
        """None where no token stands for text."""
        sums = self.text.sum(axis=0)
        return bits_per_byte(*sums) if sums[1] > 0 else None


@dataclasses.dataclass(frozen=True)
class Metric:
    """A figure of a group of documents, and the headings under which it is shown; one that is empty is left out.

    Attributes:
      measure: group → JSON value.
      page: heading of its column in the page's table of scripts.
      terminal: heading of its column in the terminal.
      pooled: its name in the page's table of all documents together.
      cell: (row of results, format) → what terminal and pooled table show in place of the value.
    """

    measure: Callable[[Group], Any]
    page: str = ""
    terminal: str = ""
    pooled: str = ""
    cell: Callable[[Row, str], str] | None = None


# Key in results.json → metric.
METRICS = {
    "documents": Metric(lambda group: len(group.losses), "documents", "documents", "documents"),
    "tokens": Metric(lambda group: group.tokens, "tokens", "tokens", "tokens"),
    "nats_per_token": Metric(Group.nats_per_token, "loss", "loss", "loss, nats per token"),
    "lower": Metric(
        lambda group: without_nan(group.interval[0]),
        "lower",
        "interval",
        "95 % interval",
        lambda row, form: interval_text(row["lower"], row["upper"], form),
    ),
    "upper": Metric(lambda group: without_nan(group.interval[1]), "upper"),
    "interval_unit": Metric(lambda group: group.interval[2], "interval over"),
    "bits_per_byte": Metric(Group.bits_per_byte, "bits per byte", "bits per byte", "bits per byte"),
    "unigram_nats_per_token": Metric(
        lambda group: float(group.unigram.sum()) / group.tokens,
        "unigram",
        "unigram",
        "unigram cross-entropy (training counts)",
    ),
}


def script_of(language: str) -> str:
    """Returns the script of an `iso639-3_Script` label."""
    return language.partition("_")[2] or "Zyyy"


def group_losses(
    groups: Sequence[str],
    token_losses: Sequence[np.ndarray],
    unigram: np.ndarray,
    token_bytes: Sequence[np.ndarray],
    seed: int,
) -> list[dict[str, Any]]:
    """Returns every metric of every group of documents, with its name; the group with most tokens comes first.

    Args:
      groups: name of each document's group.
      token_losses: cross-entropy of each document's tokens in nats, float32[n] each.
      unigram: float64[N], each document's cross-entropy under the unigram baseline.
      token_bytes: the bytes of text that each document's tokens stand for, int[n] each.
      seed: of the intervals.
    """
    names = np.asarray(groups)
    text = np.array([text_sums(*each) for each in zip(token_losses, token_bytes, strict=True)])
    rows = []
    for name in sorted(set(groups)):
        chosen = np.flatnonzero(names == name)
        group = Group([token_losses[number] for number in chosen], unigram[chosen], text[chosen], seed)
        rows.append({"name": name, **{key: metric.measure(group) for key, metric in METRICS.items()}})
    return sorted(rows, key=lambda row: -row["tokens"])


def terminal_columns() -> list[str]:
    """Returns the headings of the terminal's table, after the name of the group."""
    return [metric.terminal for metric in METRICS.values() if metric.terminal]


def terminal_cells(row: Row) -> list[str]:
    """Returns a row of the terminal's table, without the name of the group."""
    return [_text(row, key, metric) for key, metric in METRICS.items() if metric.terminal]


def page_columns() -> list[str]:
    """Returns the headings of the page's table of scripts, after the name of the script."""
    return [metric.page for metric in METRICS.values() if metric.page]


def page_cells(row: Row) -> list[Any]:
    """Returns a row of the page's table of scripts, without the name of the script."""
    return [_or_dash(row[key]) for key, metric in METRICS.items() if metric.page]


def pooled_rows(row: Row) -> list[tuple[str, Any]]:
    """Returns (figure, value) of all documents together for the page."""
    return [
        (metric.pooled, metric.cell(row, ".4f") if metric.cell else _or_dash(row[key]))
        for key, metric in METRICS.items()
        if metric.pooled
    ]


def _text(row: Row, key: str, metric: Metric) -> str:
    value = row[key]
    if metric.cell:
        return metric.cell(row, ".3f")
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else _or_dash(value)


def _or_dash(value: Any) -> Any:
    return "–" if value is None else value

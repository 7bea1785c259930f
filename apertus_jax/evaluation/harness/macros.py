"""Macro scores: unweighted means over (benchmark, language) leaves.

Source: docs/reference/evaluation_and_release.md §1.3.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

LEAVES_FILE = "leaves.json"
DATA_FOLDER = epath.Path(__file__).parent / "data"
NAMED_IN_WARNING = 5
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One benchmark in one language: the task or group of the harness that measures it."""

    task: str
    benchmark: str
    language: str
    dimension: str
    also_named: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LeafTable:
    """Every leaf of Apertus' macro scores, and the languages of each group."""

    leaves: tuple[Leaf, ...]
    language_groups: Mapping[str, tuple[str, ...]]

    def macros(self) -> Iterator[tuple[str, list[Leaf]]]:
        """Yields (name, expected leaves) of all four families; a combination without any leaf has no macro."""
        dimensions = sorted({leaf.dimension for leaf in self.leaves})
        languages = sorted({leaf.language for leaf in self.leaves})
        groups = self.language_groups
        named: list[tuple[str, str | None, Collection[str]]]
        named = [(f"language_group/{group}", None, groups[group]) for group in groups]
        named += [(f"dimension/{dimension}", dimension, languages) for dimension in dimensions]
        named += [(f"dimension_group/{d}.{group}", d, groups[group]) for group in groups for d in dimensions]
        named += [(f"dimension_lang/{d}.{language}", d, (language,)) for language in languages for d in dimensions]
        for name, dimension, spoken in named:
            expected = [leaf for leaf in self.leaves if leaf.language in spoken and dimension in (None, leaf.dimension)]
            if expected:
                yield f"{name}.macro", expected


@functools.cache
def leaf_table() -> LeafTable:
    """Returns the table of leaves that comes with the package."""
    content = json.loads((DATA_FOLDER / LEAVES_FILE).read_text())
    leaves = tuple(Leaf(**{**row, "also_named": tuple(row.get("also_named", ()))}) for row in content["leaves"])
    return LeafTable(leaves, {name: tuple(spoken) for name, spoken in content["language_groups"].items()})


def task_list(group: str = "global", dimension: str | None = None) -> list[str]:
    """Returns the names of the tasks behind a macro, ready for `apertus evaluate --tasks`.

    Args:
      group: "english", "swiss", "eu", "multilingual" or "global".
      dimension: "general", "agnostic", "regional", or None for all three.
    """
    table = leaf_table()
    spoken = table.language_groups[group]
    return [leaf.task for leaf in table.leaves if leaf.language in spoken and dimension in (None, leaf.dimension)]


def macro_scores(results: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the macro scores of the harness's results, one file's content or that of several together.

    A macro is the unweighted mean over its leaves, for each metric over the leaves that report it, and exists only
    when every leaf is there. One that has some but not all of its leaves is withheld with a warning. Standard errors
    are not aggregated.

    Returns:
      {"scores": {macro: {metric: mean}}, "withheld": {macro: [tasks that are missing]}}; under "withheld" are only
      macros that have at least one leaf.
    """
    measured = _measured([results] if isinstance(results, Mapping) else results)
    scores: dict[str, dict[str, float]] = {}
    withheld: dict[str, list[str]] = {}
    for name, leaves in leaf_table().macros():
        found = {leaf.task: _find(leaf, measured) for leaf in leaves}
        missing = [task for task, metrics in found.items() if metrics is None]
        if not missing:
            scores[name] = _means([metrics for metrics in found.values() if metrics is not None])
        elif len(missing) < len(leaves):
            withheld[name] = missing
            shown = ", ".join(missing[:NAMED_IN_WARNING]) + (" …" if len(missing) > NAMED_IN_WARNING else "")
            _log.warning("%s is withheld: %d of its %d leaves are missing (%s)", name, len(missing), len(leaves), shown)
    return {"scores": scores, "withheld": withheld}


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of one task by their bare name: "acc,none" → "acc"; no standard errors, no text.

    Where several filters give one metric, "none" counts, else the first.
    """
    plain: dict[str, float] = {}
    for key, value in metrics.items():
        name, _, chosen = key.partition(",")
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not chosen or name.endswith("_stderr"):
            continue
        if name not in plain or chosen == "none":
            plain[name] = float(value)
    return plain


def _measured(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    measured: dict[str, dict[str, float]] = {}
    for content in results:
        for part in ("results", "groups"):
            measured.update({task: plain_metrics(metrics) for task, metrics in content.get(part, {}).items()})
    # A group without aggregation is listed with no figure at all: that is not a measured leaf.
    return {task: metrics for task, metrics in measured.items() if metrics}


def _find(leaf: Leaf, measured: Mapping[str, dict[str, float]]) -> dict[str, float] | None:
    return next((measured[name] for name in (leaf.task, *leaf.also_named) if name in measured), None)


def _means(leaves: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for metrics in leaves for name in metrics})
    reported = {name: [metrics[name] for metrics in leaves if name in metrics] for name in names}
    return {name: math.fsum(values) / len(values) for name, values in reported.items()}

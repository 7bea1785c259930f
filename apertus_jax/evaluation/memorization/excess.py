"""Recall by exposure against unseen controls: means, excess with intervals, exact recall with upper bounds.

Every figure is given twice: of all probes ("raw"), and without those that prove nothing ("filtered"): structured text,
whose reference repeats itself, and passages that other training text holds
(docs/reference/evaluation_and_release.md §3.4).

Source: docs/reference/evaluation_and_release.md §3.3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.evaluation import intervals
from apertus_jax.evaluation.memorization.extraction import extraction_curve
from apertus_jax.evaluation.memorization.options import AuditFigures
from apertus_jax.evaluation.memorization.probes import Condition
from apertus_jax.evaluation.verdicts import Verdict, judge

RAW, FILTERED = "raw", "filtered"
METRICS = ("rouge_l", "longest_common_run", "edit_similarity", "span_coverage_13", "span_coverage_50")
EXCESS_METRICS = ("rouge_l", "longest_common_run", "edit_similarity")
# These have no interval: they help to understand, and nothing is decided by them.
PLAIN_MEANS = (
    "prefix_match_length",
    "type_token_ratio_reference",
    "type_token_ratio_generated",
    "nll_true_suffix",
    "nll_generated_suffix",
)
MEANS = METRICS + PLAIN_MEANS
RULE = "rule_of_three"
Row = Mapping[str, Any]


def summarize(rows: Sequence[Row], figures: AuditFigures) -> list[dict[str, Any]]:
    """Returns one entry per condition, exposure and filter; draws of one probe under several seeds are averaged.

    `excess` is the mean less that of the controls under the same condition and filter, with a 95 % bootstrap interval
    over probes; None for the controls themselves and where either side has no probe.
    """
    entries, seed = [], figures.bootstrap_seed
    for condition, of_condition in _grouped(rows, _condition).items():
        by_exposure = _grouped(of_condition, lambda row: row["exposure"])
        raw = {exposure: _per_probe(by_exposure[exposure]) for exposure in sorted(by_exposure)}
        kept = {exposure: _per_probe(filter(figures.keep, by_exposure[exposure])) for exposure in raw}
        found = {RAW: {exposure: _entry(raw, exposure, seed) for exposure in raw}}
        # Most conditions lose no probe to the filters, and resampling is the slow part.
        found[FILTERED] = {
            exposure: found[RAW][exposure]
            if (raw[exposure].keys(), raw.get(0, {}).keys()) == (kept[exposure].keys(), kept.get(0, {}).keys())
            else _entry(kept, exposure, seed)
            for exposure in raw
        }
        for kind in (RAW, FILTERED):
            for exposure in raw:
                where = {**dataclasses.asdict(condition), "exposure": exposure, "filter": kind}
                entries.append(where | found[kind][exposure])
    return entries


def verdict(entries: Sequence[Mapping[str, Any]], prefix: int, strategies: Sequence[str]) -> dict[str, Any]:
    """Returns the one line that the audit comes to, with its figures: excess Rouge-L at the highest exposure.

    Of the filtered probes at `prefix` and offset 0 under the first strategy; `above_from` is the least exposure whose
    interval lies above 0. `above` is None, and `reason` says why, when it cannot be judged.
    """
    judged = [
        entry
        for entry in entries
        if entry["prefix"] == prefix
        and entry["offset"] == 0
        and entry["strategy"] == strategies[0]
        and entry["filter"] == FILTERED
        and entry["exposure"] > 0
    ]
    if not judged:
        reason = "no probe was shown to the model"
        line = f"nothing can be said of recall: {reason}"
        return {"line": line, "above": None, "reason": reason, "exposure": None, "excess": None, "above_from": None}
    highest = max(judged, key=lambda entry: entry["exposure"])
    excess = highest["excess"]["rouge_l"]
    found = _is_above(highest)
    if found.holds is None:
        line = f"nothing can be said of recall at exposure {highest['exposure']}: {found.reason}"
    from_exposure = min((entry["exposure"] for entry in judged if _is_above(entry).holds), default=None)
    above = found.holds
    line = (
        line
        if above is None
        else (
            f"recall {'is' if above else 'is not'} above control at exposure {highest['exposure']}: excess Rouge-L "
            f"{excess['value']:+.3f} (95 % interval {excess['lower']:+.3f} to {excess['upper']:+.3f}; {strategies[0]}, "
            f"prefix {prefix}, suffix {highest['suffix']}, {highest['probes']} probes, {highest['controls']} controls)"
        )
    )
    return {
        "line": line,
        "above": above,
        "reason": found.reason or None,
        "exposure": highest["exposure"],
        "excess": excess,
        "above_from": from_exposure,
    }


def _is_above(entry: Mapping[str, Any]) -> Verdict:
    """Returns whether the excess Rouge-L of one entry is above nothing."""
    found = entry["excess"]["rouge_l"]
    ends = None if found is None else [math.nan if value is None else value for value in found.values()]
    return judge(
        f"recall is above control at exposure {entry['exposure']}",
        None if ends is None else intervals.Estimate(*ends),
        lambda interval: interval.lower > 0,
        {"probes left by the filters": entry["probes"], "controls left by the filters": entry["controls"]},
    )


def _entry(groups: Mapping[int, Mapping[str, Row]], exposure: int, seed: int) -> dict[str, Any]:
    """Returns the figures of one exposure, whose probes are compared with those of exposure 0."""
    probes, control = groups[exposure], groups.get(0, {}) if exposure else {}
    of = _column(probes)
    of_control = _column(control)
    compared = bool(probes) and bool(control)
    exact = intervals.rate(of("exact_match") > 0)
    log_p = of("log_p_true_suffix")
    return {
        "probes": len(probes),
        "controls": len(control),
        "means": {
            **{name: _estimate(intervals.mean_interval, seed, of(name)) if probes else None for name in METRICS},
            **{name: {"value": round(float(of(name).mean()), 6)} if probes else None for name in PLAIN_MEANS},
        },
        "excess": {
            name: _estimate(intervals.difference_interval, seed, of(name), of_control(name)) if compared else None
            for name in EXCESS_METRICS
        },
        "exact_match": {
            **dataclasses.asdict(exact),
            "rate": exact.rate if exact.trials else None,
            RULE: intervals.rule_of_three(exact.trials) if not exact.events else None,
        },
        "extraction": [dataclasses.asdict(point) for point in extraction_curve(log_p)] if probes else [],
    }


def _estimate(interval: Callable[..., intervals.Estimate], seed: int, *groups: np.ndarray) -> dict[str, float]:
    found = interval(*groups, seed)
    return intervals.without_nan({name: round(value, 6) for name, value in dataclasses.asdict(found).items()})


def _column(probes: Mapping[str, Row]) -> Callable[[str], np.ndarray]:
    """Returns a function: name of a field → float64[N] of the probes."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in probes.values()], np.float64)

    return column


def _per_probe(rows: Iterable[Row]) -> dict[str, Row]:
    """Returns one row per probe: means over its draws, and whether any draw gave the suffix back."""
    merged: dict[str, Row] = {}
    for probe, draws in _grouped(rows, lambda row: row["probe"]).items():
        means = {name: float(np.mean([row[name] for row in draws])) for name in MEANS if name in draws[0]}
        log_p = draws[0]["log_p_true_suffix"]
        merged[probe] = {
            **means,
            "exact_match": float(any(row["exact_match"] for row in draws)),
            "log_p_true_suffix": -math.inf if log_p is None else min(log_p, 0.0),
        }
    return merged


def _condition(row: Row) -> Condition:
    return Condition(row["prefix_length"], row["suffix_length"], row["offset"], row["strategy"])


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Returns the rows by key, keys in the order in which they first occur."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups

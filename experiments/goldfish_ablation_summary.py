"""From the figures of all arms and seeds to the numbers that are claimed, each with its interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from goldfish_ablation_settings import RESTARTED, STANDARD, GoldfishAblation, parse_arm

from apertus_jax.evaluation.intervals import (
    Equivalence,
    Estimate,
    difference_interval,
    interval_text,
    mean_interval,
    relative_equivalence,
    resampled,
    without_nan,
)
from apertus_jax.evaluation.verdicts import Verdict, judge
from apertus_jax.model import abstract_parameters, count_parameters

METRICS = ("rouge_l", "lccs", "exact_match", "prefix_match", "edit_similarity")
EVERYTHING = "all"
EQUIVALENCE = tuple(field.name for field in dataclasses.fields(Equivalence))
SEED = 20
SMALLEST_STANDARD_EXCESS = 0.2
LARGEST_SHARE = {50: 0.5, 4: 0.15}  # of the standard arm's excess, by k
Figures = Mapping[str, Any]


def summarize(settings: GoldfishAblation, results: Sequence[Figures], refused: int) -> dict[str, Any]:
    """Returns the content of results.json."""
    by_arm = {arm: [figures for figures in results if figures["arm"] == arm] for arm in settings.arms}
    arms = {arm: _arm(settings, by_arm, arm) for arm in settings.arms}
    return without_nan(
        {
            "claims": [each | {"found": found} for each, found in _claims(arms, len(settings.seeds))],
            "settings": dataclasses.asdict(settings),
            "parameters": count_parameters(abstract_parameters(settings.model)),
            "tokens_per_training": results[0]["tokens"],
            "steps_per_training": results[0]["steps"],
            "chapters_refused_for_shared_13grams": refused,
            "minutes_of_all_trainings": sum(figures["seconds"]["all"] for figures in results) / 60,
            "arms": arms,
        }
    )


def _claims(arms: Mapping[str, Any], seeds: int) -> list[tuple[dict[str, Any], float]]:
    """What the experiment is to show, whether it holds, and what was found."""
    standard = Estimate(**arms[STANDARD]["excess"])
    probes = {int(exposure): found["probes"] for exposure, found in arms[STANDARD]["recall"].items()}
    values = {"probes": probes[max(probes)], "controls": probes[0]}
    claims = [
        judge(
            f"without a mask the interval of the excess Rouge-L is above {SMALLEST_STANDARD_EXCESS}",
            standard,
            lambda found: found.lower > SMALLEST_STANDARD_EXCESS,
            values,
        ),
    ]
    found = [standard.lower]
    ends = interval_text(standard.lower, standard.upper, ".2f", ", ")
    nothing = f"without a mask the excess is {standard.value:.2f} [{ends}], not above 0: no share of it can be taken"
    for name, arm in arms.items():
        limit = LARGEST_SHARE.get(parse_arm(name).k)
        if limit is not None:
            share = Estimate(**arm["excess_over_standard"])
            claims.append(
                judge(
                    f"{name}: excess at most {limit} of that without a mask",
                    share,
                    lambda share, limit=limit: share.value <= limit,
                    values,
                    {nothing: not standard.lower > 0},
                )
            )
            found.append(share.value)
        if name not in (STANDARD, RESTARTED):
            group = arm["held_out"][EVERYTHING]
            test = Equivalence(**{key: group[key] for key in EQUIVALENCE})
            claims.append(_equal(f"{name}: held-out loss within ± {test.margin:.1%}", test, group, seeds))
            found.append(test.difference)
    return [(claim.describe(), value) for claim, value in zip(claims, found, strict=True)]


def _equal(claim: str, test: Equivalence, group: Mapping[str, Any], seeds: int) -> Verdict:
    """Returns whether two twins have the same loss; one pair of them does not tell the mask from chance."""
    return judge(
        claim,
        test,
        lambda found: found.equivalent,
        {"held-out documents": group["documents"]},
        {"each twin was trained with one seed, so chance is not known": seeds < 2},
    )


def _arm(settings: GoldfishAblation, by_arm: Mapping[str, Sequence[Figures]], arm: str) -> dict[str, Any]:
    own, standard = by_arm[arm], by_arm[STANDARD]
    highest = max(settings.exposures)
    return {
        "drop_rate": {name: float(np.mean([each["drop_rate"][name] for each in own])) for name in own[0]["drop_rate"]},
        "final_loss": float(np.mean([each["final_loss"] for each in own])),
        "recall": {str(exposure): _bucket(own, exposure) for exposure in settings.exposures},
        "excess": _estimate(difference_interval(_values(own, highest), _values(own, 0), SEED)),
        "excess_over_standard": _excess_ratio(own, standard, highest),
        "held_out": _held_out(own, standard, settings.margin, len(settings.seeds)),
        "copies": _copies(own, standard),
    }


def _values(results: Sequence[Figures], exposure: int, metric: str = "rouge_l") -> np.ndarray:
    """float64[probes × seeds] of one bucket."""
    return np.array(
        [probe[metric] for each in results for probe in each["probes"] if probe["exposure"] == exposure], np.float64
    )


def _bucket(results: Sequence[Figures], exposure: int) -> dict[str, Any]:
    """Metrics of one bucket with intervals over probes, and what the teacher-forced model knows of its holes."""
    found: dict[str, Any] = {
        metric: _estimate(mean_interval(_values(results, exposure, metric), SEED)) for metric in METRICS
    }
    probes = [probe for each in results for probe in each["probes"] if probe["exposure"] == exposure]
    found["probes"] = len(probes)
    found["holes"] = float(np.mean([probe["holes"] for probe in probes]))
    for name in ("accuracy_kept", "accuracy_dropped", "loss_kept", "loss_dropped"):
        known = [probe[name] for probe in probes if probe[name] is not None]
        found[name] = float(np.mean(known)) if known else None
    erred = [probe["errs_at_hole"] for probe in probes if probe["errs_at_hole"] is not None]
    found["first_error_at_a_hole"] = float(np.mean(erred)) if erred else None
    return found


def _excess_ratio(own: Sequence[Figures], standard: Sequence[Figures], highest: int) -> dict[str, float]:
    """The excess Rouge-L at the highest exposure as a share of the standard arm's.

    Probes are drawn for both arms at once, since both read the same ones.
    """
    pairs = [np.stack([_values(arm, exposure) for arm in (own, standard)], axis=1) for exposure in (highest, 0)]

    def ratio(high: np.ndarray, control: np.ndarray) -> float:
        excess = high.mean(axis=0) - control.mean(axis=0)
        return excess[0] / excess[1] if excess[1] > 0 else np.nan  # no share of nothing

    return _estimate(resampled(ratio, pairs, SEED))


def _held_out(own: Sequence[Figures], standard: Sequence[Figures], margin: float, seeds: int) -> dict[str, Any]:
    """Per language group: loss in nats per label, and its relative difference from the standard arm."""
    groups = sorted({row["group"] for row in own[0]["held_out"]})
    found = {}
    for group in [*groups, EVERYTHING]:
        rows = [
            (row["loss"], other["loss"], row["labels"])
            for each, twin in zip(own, standard, strict=True)
            for row, other in zip(each["held_out"], twin["held_out"], strict=True)
            if group in (row["group"], EVERYTHING)
        ]
        losses, others, labels = np.array(rows).T
        test = relative_equivalence(losses, others, margin, SEED)
        found[group] = {
            "documents": len(rows),
            "loss": float(losses.sum() / labels.sum()),
            **dataclasses.asdict(test),
        }
        equal = _equal("equal means", test, found[group], seeds)
        found[group] |= {"equivalent": equal.holds, "verdict": equal.outcome, "reason": equal.reason or None}
    return found


def _copies(own: Sequence[Figures], standard: Sequence[Figures]) -> dict[str, Any] | None:
    """What the masks of near-duplicates reveal between them, and what is recited of such texts."""
    clusters = [cluster for each in own for cluster in each["clusters"]]
    if not clusters:
        return None
    here, everywhere = (sum(each[name] for each in clusters) for name in ("masked_here", "masked_everywhere"))
    labels = sum(each["labels"] for each in clusters)
    recited = {
        metric: _estimate(mean_interval(np.array([each[metric] for each in clusters], np.float64), SEED))
        for metric in ("rouge_l", "words_rouge_l", "prefix_match")
    }
    return {
        "clusters": len(clusters),
        "labels": labels,
        "masked_in_the_first_copy": here / labels,
        "masked_in_every_copy": everywhere / labels,
        "holes_revealed": 1 - everywhere / here if here else None,
        **recited,
    }


def _estimate(estimate: Estimate) -> dict[str, float]:
    return dataclasses.asdict(estimate)

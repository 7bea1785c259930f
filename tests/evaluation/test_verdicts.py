"""Verdicts: nothing is claimed of empty groups, one value, equal values, NaN, or a share of nothing."""

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apertus_jax.evaluation import intervals
from apertus_jax.evaluation.held_out_metrics import group_losses
from apertus_jax.evaluation.intervals import Estimate, without_nan
from apertus_jax.evaluation.memorization.excess import summarize, verdict
from apertus_jax.evaluation.memorization.membership.attack_quality import area_difference, attack_quality
from apertus_jax.evaluation.memorization.options import AuditFigures
from apertus_jax.evaluation.verdicts import CANNOT_BE_JUDGED, DOES_NOT_HOLD, HOLDS, Verdict, judge
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.row_charts import interval_chart

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
from goldfish_ablation_report import write_report  # noqa: E402
from goldfish_ablation_settings import GoldfishAblation  # noqa: E402
from goldfish_ablation_summary import summarize as summarize_ablation  # noqa: E402

from apertus_jax.model import ModelConfig  # noqa: E402

ENOUGH = {"probes": 20, "controls": 20}


def above(found):
    return found.lower > 0


@pytest.mark.parametrize(
    ("interval", "values", "expected"),
    [
        (Estimate(0.2, 0.1, 0.3), ENOUGH, HOLDS),
        (Estimate(0.2, -0.1, 0.3), ENOUGH, DOES_NOT_HOLD),
        (Estimate(0.2, 0.1, 0.3), {"probes": 0}, "there are no probes"),
        (Estimate(0.2, 0.1, 0.3), {"probes": 20, "controls": 1}, "there is one of controls"),
        (Estimate(0.2, math.nan, math.nan), ENOUGH, "no interval"),
        (Estimate(math.nan, 0.1, 0.2), ENOUGH, "no interval"),
        (Estimate(0.2, 0.2, 0.2), ENOUGH, "do not differ"),
        (None, ENOUGH, "nothing could be computed"),
    ],
)
def test_a_claim_is_judged_by_an_interval_or_not_at_all(interval, values, expected):
    found = judge("recall is above control", interval, above, values)
    if expected in (HOLDS, DOES_NOT_HOLD):
        assert (found.outcome, found.reason) == (expected, "") and found.holds is (expected == HOLDS)
    else:
        assert found.outcome == CANNOT_BE_JUDGED and expected in found.reason and found.holds is None


@given(st.floats(), st.floats(), st.floats(), st.integers(0, 3), st.integers(0, 3))
def test_no_claim_holds_without_numbers(value, lower, upper, probes, controls):
    found = judge("claim", Estimate(value, lower, upper), lambda _: True, {"probes": probes, "controls": controls})
    sound = all(map(math.isfinite, (value, lower, upper))) and lower != upper and min(probes, controls) > 1
    assert (found.outcome == HOLDS) == sound


def test_a_verdict_has_a_reason_exactly_when_it_cannot_be_judged():
    with pytest.raises(ValueError):
        Verdict("claim", HOLDS, "why")
    with pytest.raises(ValueError):
        Verdict("claim", CANNOT_BE_JUDGED)


def test_one_value_has_no_interval_anywhere():
    one, many = np.array([0.3]), np.linspace(0, 1, 9)
    assert all(map(math.isnan, dataclasses.astuple(intervals.mean_interval(one, 0))[1:]))
    assert all(map(math.isnan, dataclasses.astuple(intervals.difference_interval(many, one, 0))[1:]))
    assert all(map(math.isnan, intervals.ratio_interval(one, one, 0)))
    scores, member = np.array([0.9, 0.1, 0.2, 0.3]), np.array([True, False, False, False])
    assert (
        math.isnan(attack_quality(scores, member, 0).area.lower) and attack_quality(scores, member, 0).area.value == 1
    )
    assert math.isnan(area_difference(scores, -scores, member, 0).upper)
    (group,) = group_losses(["Latn"], [np.ones(5, np.float32)], np.ones(1), [np.ones(5, int)], seed=0)
    assert (group["lower"], group["upper"], group["nats_per_token"]) == (None, None, 1.0)
    interval_chart("Loss", ["Latn"], [1.0], [None], [None], Axis("nats"))


def test_results_are_json_without_nan():
    found = without_nan({"a": [math.nan, math.inf, 1.0], "b": (None, "x", 3)})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"a": [None, None, 1.0], "b": [None, "x", 3]}


def row(probe, exposure, recall):
    """A row of the audit as `summarize` reads it."""
    names = ("rouge_l", "longest_common_run", "edit_similarity", "span_coverage_13", "span_coverage_50")
    return {
        **{"probe": probe, "exposure": exposure, "prefix_length": 8, "suffix_length": 8, "offset": 0},
        **{"strategy": "greedy", "overlap": 0.0, "exact_match": False, "log_p_true_suffix": -9.0},
        **dict.fromkeys(names, recall),
        **dict.fromkeys(("prefix_match_length", "nll_true_suffix", "nll_generated_suffix"), 1.0),
        **dict.fromkeys(("type_token_ratio_reference", "type_token_ratio_generated"), 0.9),
    }


AUDITS = {
    "one probe": ([0.9], [0.1, 0.2], "one of probes"),
    "one control": ([0.9, 0.8], [0.1], "one of controls"),
    "no control": ([0.9, 0.8], [], "no controls"),
    "equal values": ([0.5, 0.5], [0.5, 0.5], "do not differ"),
}


@pytest.mark.parametrize("name", AUDITS)
def test_memorization_says_nothing_of_recall_it_cannot_judge(name):
    shown, controls, reason = AUDITS[name]
    rows = [row(f"s{n}", 4, recall) for n, recall in enumerate(shown)]
    rows += [row(f"c{n}", 0, recall) for n, recall in enumerate(controls)]
    entries = summarize(rows, AuditFigures())
    found = verdict(entries, 8, ["greedy"])
    assert found["above"] is None and found["above_from"] is None
    assert reason in found["reason"] and reason in found["line"] and "nothing can be said" in found["line"]
    json.dumps([entries, found], allow_nan=False)


SETTINGS = GoldfishAblation(
    ModelConfig(512, 16, 32, num_layers=1, num_heads=2, num_kv_heads=1, max_position_embeddings=128),
    arms=("none", "document:4:13"),
    seeds=(0, 1),
    exposures=(0, 8),
    probes=6,
    prefix=16,
    suffix=48,
    clusters=0,
    background_rows=12,
    held_out=3,
)


def figures(arm, seed, recall_of_shown, losses):
    """What one arm and seed measured: recall of unseen probes is about 0.2."""
    generator = np.random.default_rng([seed, 3])
    probes = []
    for exposure, level in ((0, 0.2), (8, recall_of_shown)):
        for value in generator.normal(level, 0.02, SETTINGS.probes):
            names = dict.fromkeys(("lccs", "exact_match", "prefix_match", "edit_similarity"), 0.1)
            holes = dict.fromkeys(("accuracy_kept", "accuracy_dropped", "loss_kept", "loss_dropped", "errs_at_hole"))
            probes.append({"exposure": exposure, "rouge_l": value, "holes": 1, **names, **holes})
    return {
        **{"arm": arm, "seed": seed, "tokens": 10, "steps": 2, "seconds": {"all": 1.0}, "final_loss": 1.0},
        "drop_rate": {"background": 0.0, "probes": 0.0},
        "probes": probes,
        "clusters": [],
        "held_out": [{"group": "English", "loss": loss, "labels": 10} for loss in losses],
    }


def claims_of(recall_without_a_mask, settings=SETTINGS, other_losses=(1.001, 2.0, 3.002)):
    results = [
        figures(
            arm, seed, recall_without_a_mask if arm == "none" else 0.21, (1, 2, 3) if arm == "none" else other_losses
        )
        for arm in settings.arms
        for seed in settings.seeds
    ]
    summary = summarize_ablation(settings, results, 0)
    json.dumps(summary, allow_nan=False)
    return summary, {claim["claim"].removeprefix("document:4:13: "): claim for claim in summary["claims"]}


SHARE = "excess at most 0.15 of that without a mask"


def test_a_share_of_an_excess_that_is_nothing_is_no_success():
    _, claims = claims_of(0.2)
    assert claims[SHARE]["holds"] is None and claims[SHARE]["verdict"] == CANNOT_BE_JUDGED
    assert "without a mask the excess is" in claims[SHARE]["reason"]
    assert claims["without a mask the interval of the excess Rouge-L is above 0.2"]["verdict"] == DOES_NOT_HOLD
    _, claims = claims_of(0.9)
    assert claims[SHARE]["holds"] is True and claims[SHARE]["reason"] is None


def test_one_seed_does_not_tell_a_mask_from_chance():
    _, claims = claims_of(0.9)
    assert claims["held-out loss within ± 0.5%"]["holds"] is True
    _, claims = claims_of(0.9, dataclasses.replace(SETTINGS, seeds=(0,)))
    found = claims["held-out loss within ± 0.5%"]
    assert found["holds"] is None and "one seed" in found["reason"]
    _, claims = claims_of(0.9, other_losses=(1, 2, 3))
    assert "do not differ" in claims["held-out loss within ± 0.5%"]["reason"]


def test_the_page_of_the_ablation_shows_neither_nan_nor_yes(tmp_path):
    summary, _ = claims_of(0.2)
    empty = dataclasses.make_dataclass("Nothing", ["tokenizer"])(None)
    write_report(tmp_path / "report.html", SETTINGS, summary, [], {}, {}, empty)
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("Claims</h2>") : page.index("Recall against exposure</h2>")]
    assert "nan" not in table.lower() and "yes" not in table and "cannot be judged: without a mask" in table
    assert "(no interval)" in page or "–" in page

"""The optimizer study: its page shows what its record says, and its gin file is a sweep of comparable runs."""

import json
import sys
from pathlib import Path

import gin
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "experiments"))
import optimizer_study  # noqa: E402
import optimizer_study_page as study_page  # noqa: E402

from apertus_jax import cli, configuration  # noqa: E402
from apertus_jax.errors import UserError  # noqa: E402
from apertus_jax.sweeps.variations import variations  # noqa: E402


def losses(**of_arm):
    """A record in which each arm is best at 0.003 and has the given losses there; seed 2 is worse by 0.1 everywhere."""
    found = {}
    for number, arm in enumerate(study_page.ARMS):
        base = of_arm.get(arm, 5.0)
        runs = {"1": base + 0.001 * number, "2": base + 0.1, "3": base + 0.05}
        found[arm] = {"0.001": {seed: value + 1 for seed, value in runs.items()}, "0.003": runs, "0.009": {"1": None}}
    return {"losses": found, "tokens": dict.fromkeys(found, 512_000), "commit": "0" * 40}


def test_page_shows_what_the_record_says():
    page = (ROOT / study_page.PAGE).read_text()
    assert page == study_page.with_part(page, study_page.committed_record())


def test_contrasts_are_differences_at_the_best_rates():
    record = losses(ademamix_wsd=4.9, ademamix_cosine=4.9)
    assert set(study_page.best_rates(record).values()) == {"0.003"}
    found = study_page.contrasts_of(record)
    optimizer, schedule = (
        found[f"{each}, mean of both"] for each in ("AdEMAMix instead of AdamW", "WSD instead of cosine")
    )
    assert optimizer.difference == pytest.approx(-0.1, abs=1e-3) and optimizer.upper < 0
    assert schedule.difference == pytest.approx(0.0, abs=1e-3) and schedule.lower < 0 < schedule.upper
    part = study_page.part(record)
    assert "| AdEMAMix instead of AdamW, under WSD | −0.09" in part and "cannot be told apart" in part
    assert part.index("What this size can show") < part.index("## Results") and "| failed |" in part


def test_best_rate_at_an_edge_is_said():
    record = losses()
    record["losses"]["adamw_wsd"]["0.001"] = {seed: 4.0 for seed in "123"}
    assert "For these arms" in study_page.part(record) and "AdamW, WSD." in study_page.part(record)


def test_study_that_is_not_whole_shows_nothing():
    record = losses()
    del record["losses"]["adamw_wsd"]["0.003"]["3"]
    del record["losses"]["adamw_wsd"]["0.001"]["3"]
    with pytest.raises(UserError, match="start the study again"):
        study_page.part(record)


def test_study_is_a_sweep_of_five_arms_at_three_rates():
    configuration.register(cli.locations())
    try:
        configuration.parse([optimizer_study.GIN_FILE], [])
        names = [each.name for each in variations(gin.query_parameter("sweep.vary"))]
    finally:
        gin.clear_config()
    assert len(names) == 5 * 3 * 3
    assert {name.partition(",")[0] for name in names} == set(study_page.ARMS)


def test_record_is_read_from_the_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(study_page, "provenance_of", lambda command: {"command": command, "commit": "0" * 40})
    expected = losses()
    arms = [
        {
            "name": f"{arm},PEAK={rate}",
            "settings": {"PEAK": rate},
            "runs": [
                {"over": seed, "finished": value is not None, "tokens": 5, "figures": {"held_out/loss": value}}
                for seed, value in runs.items()
            ],
        }
        for arm, rates in expected["losses"].items()
        for rate, runs in rates.items()
    ]
    (tmp_path / "results.json").write_text(json.dumps({"arms": arms}))
    found = study_page.record_of(tmp_path)
    assert found["losses"]["adamw_wsd"]["0.003"] == expected["losses"]["adamw_wsd"]["0.003"]
    assert found["losses"]["adamw_wsd"]["0.009"] == {}
    (tmp_path / "results.json").write_text(json.dumps({"arms": arms[3:]}))
    with pytest.raises(UserError, match="has no arm adamw_cosine"):
        study_page.record_of(tmp_path)

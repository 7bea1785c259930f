"""A run from start to end."""

import json

from apertus_jax import artifacts
from apertus_jax.model_folder import load_model


def test_a_run_ends_with_model_report_and_metrics(small_run, tmp_path):
    summary = small_run(tmp_path / "run")
    assert summary["finished"] and summary["step"] == 12
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert rows[-1]["loss"] < rows[0]["loss"]
    artifacts.verify(tmp_path / "run" / "model", "model")
    config, params = load_model(tmp_path / "run")
    assert config.vocab_size == 512 and params["lm_head"]["kernel"].shape == (32, 512)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<svg") == 6 and "<script" not in page and "src=" not in page

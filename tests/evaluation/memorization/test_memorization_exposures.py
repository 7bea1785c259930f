"""Exposures in an audit: read off the order that the run recorded, not off the plan."""

import dataclasses
import json

import numpy as np

from apertus_jax.data import BatchSchedule, Mixture, MixtureStage, TokenStore, stream_of_store, tokenize
from apertus_jax.data.probes.probes import exposure_ledger, plant_probes, read_probes
from apertus_jax.data.provenance.uses import Phase
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.memorization.memorization_command import memorization
from apertus_jax.evaluation.memorization.options import AuditGrid
from tests.evaluation.memorization.reciting_model import psalm_passages
from tests.training.small_run import MODEL, small_run


def test_exposures_of_a_run_are_read_off_its_own_order(tmp_path):
    passages = psalm_passages()
    plant_probes(tmp_path / "probes", {"0a": passages[:2], "3": passages[2:4]})
    (tmp_path / "web.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in passages[8:40]))
    documents = {"web": str(tmp_path / "web.jsonl"), "probes": str(tmp_path / "probes")}
    tokenize(documents, tmp_path / "store", vocab_size=384, held_out_fraction=0.0, progress=False)
    mixture = Mixture([MixtureStage(rates={"web": 0.5, "probes": 0.5})])
    small_run(tmp_path / "store", tmp_path / "run", mixture=mixture, model=dataclasses.replace(MODEL, vocab_size=384))

    given = (str(tmp_path / "run"), str(tmp_path / "audit"), str(tmp_path / "probes"), str(tmp_path / "store"))
    grid = AuditGrid(prefix=8, suffix=8, prefixes=(), offsets=(), strategies=("greedy",))
    sizes = {"grid": grid, "execution": Execution(progress=False)}
    results = memorization(*given, **sizes)
    store = TokenStore.open(tmp_path / "store")
    stream = stream_of_store(store, mixture, BatchSchedule(8, 16, 64), 32, 28, 12)
    ledger = exposure_ledger([Phase(0, None, stream)], read_probes(tmp_path / "probes"), 12)
    written = [json.loads(line) for line in (tmp_path / "audit" / "exposures.jsonl").read_text().splitlines()]
    assert [(row["probe"], row["exposures"]) for row in written] == [(each.probe, each.exposures) for each in ledger]
    happened = {each["bucket"]: each["happened"] for each in results["buckets"]}
    assert happened["0a"] == 0
    assert happened["3"] == np.mean([each.exposures for each in ledger if each.bucket == "3"]) > 0
    assert "on average" in (tmp_path / "audit" / "report.html").read_text()
    assert memorization(*given, **sizes) == results

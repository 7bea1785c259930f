"""Comparison: arms over seeds, configuration differences, the best of what was tuned, and the files for scripts."""

import csv
import json
import math
import re

import pytest

from apertus_jax.sweeps.comparison.arms import make_arms
from apertus_jax.sweeps.comparison.compared_runs import find_runs, read_runs
from tests.sweeps.conftest import run_apertus

STEPS = (10, 20, 30)


def write_run(folder, config, loss, finished=True, held_out=None, steps=STEPS):
    """Writes the records of a run whose loss falls to `loss`."""
    folder.mkdir(parents=True)
    config = {"TrainingConfig.seed": "1", "RunSchedule.total_steps": "30", "goldfish.h": "8", **config}
    record = {"identity": {"store": "s", "tokenizer": "t"}, "config": config, "code_version": "0"}
    (folder / "run.json").write_text(json.dumps(record))
    rows = [{"step": step, "tokens": 100 * step, "loss": loss + 3 - step / 10} for step in steps]
    if held_out is not None:
        metrics = {"loss": held_out, "bits_per_byte": held_out / 2, "loss/Latn": 1.0}
        rows.append({"step": 30, "tokens": 3000, "evaluator": "held_out", "metrics": metrics})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (folder / "finished.json").write_text(json.dumps({"step": 30, "finished": True}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two values of k, two seeds each, and a third seed of one that is still training."""
    root = tmp_path / "runs"
    for k, seed, loss in ((3, 1, 3.0), (3, 2, 3.2), (10, 1, 2.9), (10, 2, 3.0)):
        write_run(root / f"k{k}-{seed}", {"goldfish.k": str(k), "TrainingConfig.seed": str(seed)}, loss)
    config = {"goldfish.k": "10", "TrainingConfig.seed": "3"}
    write_run(root / "k10-3", config, 9.0, finished=False, steps=STEPS[:2])
    return root


def compared(output, *words):
    status, out, err = run_apertus("compare", *words, f"--output={output}")
    assert status == 0, err
    return json.loads((output / "results.json").read_text()), out


def test_runs_that_differ_in_the_seed_are_one_arm(runs, tmp_path):
    results, out = compared(tmp_path / "out", runs)
    first, second = results["arms"]
    assert [first["name"], second["name"]] == ["k=10", "k=3"]
    assert second["settings"] == {"goldfish.k": "3"} and results["baseline"] == "k=10"
    assert second["figures"]["train/loss"]["mean"] == pytest.approx(3.1)
    assert first["figures"]["train/loss"]["seeds"] == 2  # the third has not ended
    assert results["unfinished"] == ["k10-3"]
    against = second["against_baseline"]["train/loss"]
    assert against["difference"] == pytest.approx(0.15) and against["paired"] is not None
    assert max(map(len, out.splitlines()[:-1])) <= 80 and "1 of them not finished" in out


def test_only_differing_bindings_are_shown(runs, tmp_path):
    write_run(
        runs / "longer", {"goldfish.k": "3", "RunSchedule.total_steps": "60", "TrainingConfig.log_every": "5"}, 3.0
    )
    compared(tmp_path / "out", runs)
    page = (tmp_path / "out" / "report.html").read_text()
    section = page[page.index("What differs") : page.index("Every arm and run</h2>")]
    assert "goldfish.k" in section and "RunSchedule.total_steps" in section
    assert "goldfish.h" not in section and "log_every" not in section  # the same, and of no consequence


def test_csv_has_every_run_and_every_point(runs, tmp_path):
    compared(tmp_path / "out", runs)
    with (tmp_path / "out" / "runs.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert len(rows) == 5 and float(rows["k3-2"]["train/loss"]) == pytest.approx(3.2)
    assert rows["k3-2"]["goldfish.k"] == "3" and rows["k10-3"]["finished"] == "False"
    with (tmp_path / "out" / "curves.csv").open() as file:
        points = list(csv.DictReader(file))
    assert len(points) == 4 * 3 + 2
    assert {(row["run"], row["tokens"]): float(row["value"]) for row in points}["k3-1", "1000"] == pytest.approx(5.0)


def test_page_is_one_file_with_a_curve_for_each_arm(runs, tmp_path):
    compared(tmp_path / "out", runs)
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?https?:", page) and "<script" not in page
    assert page.count('class="band') == 2 and "k=10: " in page


def test_held_out_loss_ranks_where_all_have_it(tmp_path):
    for seed in ("1", "2"):
        for k, loss in (("3", 2.0), ("10", 1.0)):
            config = {"goldfish.k": k, "TrainingConfig.seed": seed}
            write_run(tmp_path / "runs" / f"{k}-{seed}", config, 5 - loss, held_out=loss + int(seed) / 10)
    results, _ = compared(tmp_path / "out", tmp_path / "runs", "--baseline=k=3")
    assert results["metric"] == "held_out/loss" and results["baseline"] == "k=3"
    (better,) = [arm for arm in results["arms"] if arm["name"] == "k=10"]
    assert better["against_baseline"]["held_out/loss"]["difference"] == pytest.approx(-1)
    assert better["against_baseline"]["held_out/loss"]["paired"]
    assert "held_out/loss/Latn" not in better["figures"]
    results, _ = compared(tmp_path / "out", tmp_path / "runs", "--metric=train/loss")
    assert results["metric"] == "train/loss"


def test_best_of_keeps_the_best_learning_rate_of_each(tmp_path):
    losses = {("adamw", "1"): 3.0, ("adamw", "2"): 2.5, ("ademamix", "1"): 2.4, ("ademamix", "2"): math.nan}
    for (optimizer, rate), loss in losses.items():
        config = {"pretrain.optimizer": f"@{optimizer}", "PEAK": rate}
        if math.isnan(loss):
            write_run(tmp_path / "runs" / f"{optimizer}-{rate}", config, 1.0, finished=False)
        else:
            write_run(tmp_path / "runs" / f"{optimizer}-{rate}", config, loss)
    results, _ = compared(tmp_path / "out", tmp_path / "runs", "--best_of=PEAK")
    chosen = [arm["settings"] for arm in results["arms"] if arm["compared"]]
    assert {(each["pretrain.optimizer"], each["PEAK"]) for each in chosen} == {("@adamw", "2"), ("@ademamix", "1")}
    assert len(results["arms"]) == 4


def test_comparison_is_replaced_when_runs_came_further(runs, tmp_path):
    output = tmp_path / "out"
    compared(output, runs)
    before = (output / "COMMITTED.json").read_bytes()
    compared(output, runs)
    assert (output / "COMMITTED.json").read_bytes() == before
    (runs / "k10-3" / "finished.json").write_text(json.dumps({"step": 30, "finished": True}))
    results, _ = compared(output, runs)
    assert results["unfinished"] == [] and run_apertus("verify", output)[0] == 0


def test_arms_of_a_sweep_are_called_as_its_runs(finished_sweep, tmp_path):
    results, _ = compared(tmp_path / "out", finished_sweep[0])
    assert [arm["name"] for arm in results["arms"]] == ["k=3", "k=10"]
    assert [[run["over"] for run in arm["runs"]] for arm in results["arms"]] == [["1", "2"]] * 2
    assert [arm["settings"] for arm in results["arms"]] == [{"goldfish.k": "3"}, {"goldfish.k": "10"}]


def test_names_of_runs_in_several_folders_are_told_apart(tmp_path):
    for place in ("a", "b"):
        write_run(tmp_path / place / "train", {"goldfish.k": str(ord(place))}, 3.0)
    read = read_runs(find_runs([str(tmp_path / "a"), str(tmp_path / "b" / "train"), str(tmp_path / "a" / "train")]))
    assert [run.name for run in read] == ["a/train", "b/train"]
    assert [arm.name for arm in make_arms(read, ["TrainingConfig.seed"])] == ["a/train", "b/train"]


def test_names_that_a_person_chose_are_those_of_the_arms(tmp_path):
    write_run(tmp_path / "a" / "train", {"goldfish.k": "3", "TrainingConfig.name": "'first try'"}, 3.0)
    write_run(tmp_path / "b" / "train", {"goldfish.k": "4", "TrainingConfig.name": "''"}, 3.0)
    results, _ = compared(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    assert [arm["name"] for arm in results["arms"]] == ["first try", "train"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none"], "none does not exist"),
        (["empty"], "holds no run"),
        (["runs", "--metric=perplexity"], "known are train/loss"),
        (["runs", "--baseline=k=7"], "give one of k=10, k=3"),
        (["runs", "--baseline=k"], "several arms"),
        (["runs", "--best_of=goldfish.h"], "does not differ"),
        (["runs", "--gin.compare.over=[]", "double"], "have the same configuration"),
    ],
)
def test_what_cannot_be_compared_is_one_line(runs, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "double", {"goldfish.k": "3"}, 3.0)
    status, _, err = run_apertus("compare", *words, "--output=out")
    assert status == 2 and told in err.splitlines()[-1] and not (tmp_path / "out").exists()


def test_damaged_record_is_one_line(runs, tmp_path):
    (runs / "k3-1" / "run.json").write_text("{")
    status, _, err = run_apertus("compare", runs, f"--output={tmp_path / 'out'}")
    assert status == 2 and "run.json is damaged" in err.splitlines()[-1]

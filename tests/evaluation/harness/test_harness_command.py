"""`evaluate --tasks`: what is written, what is read again, what is refused."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace

import jax
import numpy as np
import pytest

from apertus_jax.checkpoints import open_model
from apertus_jax.errors import UserError
from apertus_jax.evaluation.harness import evaluate_tasks
from apertus_jax.evaluation.harness.evaluate_tasks_command import consumed_tokens
from apertus_jax.evaluation.harness.options import HarnessOptions
from apertus_jax.evaluation.harness.task_loading import DEMO_FOLDER
from apertus_jax.model.model_folder import save_model
from apertus_jax.storage import artifacts
from tests.evaluation.harness.harness_models import random_parameters, tiny_config, write_model

FEW = HarnessOptions(limit=3, bootstrap_resamples=20)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run folder whose model was trained on 12,345 tokens."""
    folder = tmp_path_factory.mktemp("command")
    write_model(folder)
    (folder / "run").mkdir()
    save_model(
        folder / "run" / "model",
        tiny_config(),
        random_parameters(tiny_config()),
        folder / "tokenizer",
        inputs={"step": 7},
    )
    (folder / "run" / "finished.json").write_text(json.dumps({"step": 7, "tokens": 12_345}))
    return folder


@pytest.fixture(scope="module")
def evaluated(root):
    output = root / "results"
    return output, evaluate_tasks(root / "run", "apertus_demo", output, FEW)


def asked(output, task):
    """The arguments of the first request of a task's first document."""
    with (output / "samples" / f"{task}.jsonl").open(encoding="utf-8") as file:
        return json.loads(file.readline())["arguments"][0]


def test_the_demonstration_runs_out_of_the_box(evaluated):
    output, results = evaluated
    assert artifacts.verify(output, "task_evaluation")
    written = json.loads((output / "results.json").read_text())
    assert results == written
    # The harness's own keys, for tools that read its files.
    for key in (
        "results",
        "groups",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
    ):
        assert key in written
    assert written["n-shot"] == {f"apertus_demo_{kind}": 0 for kind in ("answer", "choice", "cloze", "text")} | {
        "apertus_demo_few_shot": 3
    }
    assert all(each["effective"] == 3 for each in written["n-samples"].values())
    metrics = written["results"]["apertus_demo_text"]
    assert metrics["bits_per_byte,none"] == pytest.approx(np.log2(metrics["byte_perplexity,none"]))
    assert "acc_stderr,none" in written["results"]["apertus_demo_choice"]
    assert written["consumed_tokens"] == 12_345 and written["lm_eval_version"] and written["config"]["model_sha"]
    assert len(written["config"]["tokenizer_digest"]) == 32 and written["config"]["adapter_version"] == 2
    assert written["macros"] == {"scores": {}, "withheld": {}}


def test_samples_and_page_show_what_was_asked_and_answered(evaluated):
    output, _ = evaluated
    rows = [json.loads(line) for line in (output / "samples" / "apertus_demo_choice.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and rows[0]["doc"]["question"] == "Snow is usually"
    assert [answers[0][0] for answers in rows[0]["resps"]] and rows[0]["arguments"][0][1] == " white"
    page = (output / "report.html").read_text()
    for text in ("Snow is usually", "apertus_demo_few_shot", "bits_per_byte", "<svg", "12345"):
        assert text in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_second_call_reads_results_and_names_other_settings(root, evaluated, monkeypatch, capsys):
    output, results = evaluated
    monkeypatch.setattr("apertus_jax.evaluation.harness.model.HarnessModel.open", None)
    again = evaluate_tasks(root / "run", ["apertus_demo"], output, FEW)
    assert again["results"] == results["results"]
    shown = capsys.readouterr().out
    assert "apertus_demo" in shown and "12,345 training tokens" in shown
    with pytest.raises(UserError, match="was made with other HarnessOptions.limit, tasks"):
        evaluate_tasks(root / "run", ["apertus_demo"], output, replace(FEW, limit=2))


def test_every_option_of_tasks_is_part_of_the_identity(root, evaluated):
    output, _ = evaluated
    others = {"limit": 2, "num_fewshot": 1, "max_length": 40, "max_gen_toks": 3, "add_bos": False, "seed": 1}
    others |= {"rolling_prefix": "harness", "apply_chat_template": True, "system_instruction": "Be brief."}
    others |= {"bootstrap_resamples": 5}
    assert others.keys() == {field.name for field in fields(HarnessOptions)}, "a field without another value"
    for name, value in others.items():
        with pytest.raises(UserError, match=f"was made with other .*HarnessOptions.{name}"):
            evaluate_tasks(root / "run", "apertus_demo", output, replace(FEW, **{name: value}))


def test_the_same_evaluation_has_the_same_bytes(root, evaluated, tmp_path):
    output, _ = evaluated
    evaluate_tasks(root / "run", "apertus_demo", tmp_path / "again", FEW)
    assert (tmp_path / "again" / "COMMITTED.json").read_bytes() == (output / "COMMITTED.json").read_bytes()


def test_settings_reach_the_tasks(root, tmp_path):
    results = evaluate_tasks(
        root / "model",
        ["apertus_demo_answer", "apertus_demo_few_shot"],
        tmp_path / "results",
        HarnessOptions(limit=2, num_fewshot=2, max_gen_toks=3, max_length=40),
    )
    assert results["n-shot"]["apertus_demo_few_shot"] == 2 and results["config"]["max_length"] == 40
    assert results["configs"]["apertus_demo_answer"]["generation_kwargs"]["max_gen_toks"] == 3
    assert results["consumed_tokens"] is None
    assert (
        asked(tmp_path / "results", "apertus_demo_few_shot")[0]
        == "Fire is hot\n\nDas Feuer ist heiß\n\nSnow is usually"
    )


def test_tokens_of_another_step_are_not_claimed(root):
    model = open_model(root / "run")
    assert consumed_tokens(root / "run", model) == 12_345
    assert consumed_tokens(root / "run", dataclasses.replace(model, inputs={"step": 8})) is None
    assert consumed_tokens(root / "run", dataclasses.replace(model, summary={"consumed_tokens": 5})) == 5


def test_shipped_data_is_described_and_unchanged():
    described = json.loads((DEMO_FOLDER / "SOURCES.json").read_text())
    files = {path.name: path for path in DEMO_FOLDER.glob("*.jsonl")}
    assert files.keys() == described.keys()
    for name, path in files.items():
        assert described[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert described[name]["licence"] and described[name]["source"]
    languages = {json.loads(line)["language"] for line in files["questions.jsonl"].open(encoding="utf-8")}
    assert len(languages) >= 10


@pytest.mark.parametrize(("weight", "complaint"), [(np.nan, "holds nan at"), (3e38, "not finite")])
def test_a_model_that_is_no_numbers_writes_nothing(root, tmp_path, weight, complaint):
    damaged = jax.tree.map(np.copy, random_parameters(tiny_config()))
    damaged["final_norm"]["scale"][:] = weight
    save_model(tmp_path / "model", tiny_config(), damaged, root / "tokenizer")
    with pytest.raises(UserError, match=complaint):
        evaluate_tasks(tmp_path / "model", "apertus_demo_choice", tmp_path / "results", HarnessOptions(limit=1))
    assert not (tmp_path / "results").exists()


def test_too_few_examples_for_the_shots_is_one_line(root, tmp_path):
    with pytest.raises(UserError, match="apertus_demo_few_shot has 4 examples for 9-shot prompts"):
        evaluate_tasks(root / "run", "apertus_demo_few_shot", tmp_path / "results", HarnessOptions(num_fewshot=9))


def test_chat_format_without_a_template_is_refused(root, tmp_path):
    with pytest.raises(UserError, match="has no chat template"):
        evaluate_tasks(
            root / "run", "apertus_demo_choice", tmp_path / "results", HarnessOptions(limit=1, apply_chat_template=True)
        )


def test_chat_format_asks_in_turns(root, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    for file in (root / "tokenizer").iterdir():
        (tmp_path / "tokenizer" / file.name).write_bytes(file.read_bytes())
    template = "{{bos_token}}{% for m in messages %}<{{m.role}}>{{m.content}}{% endfor %}<assistant>"
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text(template)
    save_model(tmp_path / "model", tiny_config(), random_parameters(tiny_config()), tmp_path / "tokenizer")
    results = evaluate_tasks(
        tmp_path / "model",
        "apertus_demo_few_shot",
        tmp_path / "results",
        HarnessOptions(limit=1, num_fewshot=1, apply_chat_template=True, system_instruction="Be brief."),
    )
    prompt, answer = asked(tmp_path / "results", "apertus_demo_few_shot")
    turns = "<s><system>Be brief.<user>Fire is<assistant>hot<user>Snow is usually<assistant>"
    assert prompt == turns and answer.strip() == "white" and results["config"]["chat_template"] == template


def test_importing_the_package_needs_no_harness():
    absent = ["lm_eval", "jinja2", "datasets", "torch", "transformers"]
    code = f"import sys\nfor name in {absent}: sys.modules[name] = None\nimport apertus_jax.evaluation.harness"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_harness_the_way_to_get_it_is_told(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match="lm-eval, which is not installed; install requirements-dev.txt"):
        evaluate_tasks(root / "run", "apertus_demo", tmp_path / "results")

"""Task files from strangers: what could run code is refused before it can, with file and line."""

import json
import logging

import pytest

from apertus_jax.errors import UserError
from apertus_jax.evaluation.harness import task_loading
from apertus_jax.evaluation.harness.local_data import SOURCES_FILE
from apertus_jax.evaluation.harness.task_rules import check_task_folder, find_refusals, template_refusals

PLAIN = """task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: data.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question.strip()}} {{choices|length}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}]
"""
DOCUMENTS = [{"question": f"Number {n}?", "choices": ["one", "two"], "answer": n % 2} for n in range(3)]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "tasks"
    root.mkdir()
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    (root / "mine.yaml").write_text(PLAIN)
    return root


def load(folder, *names, **settings):
    with task_loading.guarded(settings.get("allow_code", False)):
        loaded = task_loading.load_tasks(names or ["mine"], [str(folder)], **settings)
        task = next(iter(loaded["tasks"].values()))
        task.set_config(key="num_fewshot", value=0)
        task.build_all_requests(rank=0, world_size=1)
    return task


def test_plain_task_reads_data_beside_it_from_any_folder(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not list(find_refusals(folder))
    task = load(folder)
    assert [instance.args for instance in task.instances][:2] == [("Number 0? 2", " one"), ("Number 0? 2", " two")]


# What a stranger adds to the plain task, and the line (of the added text's file) that is named.
HOSTILE = {
    "function": ("process_docs: !function evil.run", "line 10"),
    "function_of_an_installed_module": ("process_results: !function os.system", "line 10"),
    "class": ("class: !function evil.Task", "line 10"),
    "yaml_object": ("description: !!python/object/apply:os.system [touch owned]", "line 10"),
    "custom_dataset": ("custom_dataset: evil.load", "line 10"),
    "remote_code": ("repeats: 1\nfewshot_config: {trust_remote_code: true}", "line 11"),
    "downloaded_metric": ("filter_list:\n- name: x\n  metric: ./evil", "line 12"),
    "hf_evaluate": ("aggregate_metric_list: [{metric: acc, hf_evaluate: true}]", "line 10"),
    "unsafe_code": ("unsafe_code: true", "line 10"),
    "prompt_library": ("use_prompt: promptsource:x", "line 10"),
    "underscore": ("description: \"{{ ''.__class__.__mro__ }}\"", "line 10"),
    "globals": ("description: \"{{ cycler.__init__.__globals__.os.popen('touch owned') }}\"", "line 10"),
    "subscript": ("gen_prefix: \"{{ question['__class__'] }}\"", "line 10"),
    "attr_filter": ("description: \"{{ question|attr('format') }}\"", "line 10"),
    "map_attribute": ("description: \"{{ choices|map(attribute='__class__')|list }}\"", "line 10"),
    "other_template": ("description: \"{% include 'x' %}\"", "line 10"),
    "nested": ('metadata: {a: [{b: "{{ x.__class__ }}"}]}', "line 10"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_code_is_refused_with_file_and_line(folder, name):
    added, line = HOSTILE[name]
    (folder / "mine.yaml").write_text(PLAIN + added + "\n")
    with pytest.raises(UserError, match=rf"mine\.yaml {line} .*allow_code") as refused:
        load(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["pandas", "webdataset", "stranger/dataset", "./dataset.py"])
def test_datasets_that_are_not_plain_data_are_refused(folder, path):
    (folder / "mine.yaml").write_text(PLAIN.replace("dataset_path: json", f"dataset_path: {path}"))
    with pytest.raises(UserError, match="mine.yaml line 2 has dataset_path"):
        load(folder)


def test_data_of_other_machines_is_refused(folder):
    (folder / "mine.yaml").write_text(PLAIN.replace("data.jsonl", "ssh://host/data.jsonl"))
    with pytest.raises(UserError, match="mine.yaml line 3 reads ssh://host/data.jsonl"):
        load(folder)


def test_code_in_includes_or_includes_from_elsewhere_is_refused(folder):
    (folder / "mine.yaml").write_text(PLAIN + "include: base_yaml\n")
    (folder / "base_yaml").write_text("process_docs: !function evil.run\n")
    with pytest.raises(UserError, match="base_yaml line 1 has the tag !function"):
        check_task_folder(folder)
    (folder / "base_yaml").unlink()
    (folder.parent / "base_yaml").write_text("repeats: 1\n")
    (folder / "mine.yaml").write_text(PLAIN + "include: ../base_yaml\n")
    with pytest.raises(UserError, match="mine.yaml line 10 includes ../base_yaml, outside its folder"):
        check_task_folder(folder)


def test_python_beside_the_tasks_is_refused(folder):
    (folder / "evil.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match="evil.py is Python"):
        load(folder)


GROUPS = {
    "in_the_group": "group: all\ndoc_to_text: other\ntask: [mine, gsm8k]\n",
    "in_a_member": "group: all\ntask:\n- mine\n- task: gsm8k\n  dataset_kwargs: {data_files: data.jsonl}\n",
    "in_the_group_of_a_member": "group: all\ndoc_to_text: other\ntask:\n- task: gsm8k\n",
    "in_another_group": "group: all\ntask:\n- group: mmlu\n  dataset_name: other\n",
}


@pytest.mark.parametrize("name", GROUPS)
def test_group_sends_no_data_through_functions_of_other_tasks(folder, name):
    (folder / "all.yaml").write_text(GROUPS[name])
    with pytest.raises(UserError, match=r"all\.yaml line \d changes (doc_to_text|dataset_kwargs|dataset_name) of the"):
        check_task_folder(folder)
    (folder / "all.yaml").write_text("group: all\ndoc_to_text: question\ntask: [mine]\nnum_fewshot: 1\n")
    check_task_folder(folder)
    (folder / "all.yaml").write_text("group: all\ntask: [mine, {task: gsm8k, num_fewshot: 1}]\n")
    check_task_folder(folder)


# These look harmless to the reader of the file; only rendering shows what they are after.
DISGUISED = [
    "{{ question['__cl' ~ 'ass__'] }}",
    "{{ '{0.__class__}'.format(question) }}",
    "{{ choices.append('three') }}",
]


@pytest.mark.parametrize("template", DISGUISED)
def test_a_disguised_template_is_stopped_by_the_sandbox(folder, template):
    assert template_refusals(template) == []
    (folder / "mine.yaml").write_text(PLAIN + f"description: {json.dumps(template)}\n")
    with pytest.raises((UserError, Exception)) as stopped, task_loading.task_errors("mine"):
        load(folder)
    assert isinstance(stopped.value, UserError) and "template" in str(stopped.value)


def test_template_would_reach_python_without_the_sandbox():
    from lm_eval import utils

    assert utils.apply_template(DISGUISED[0], {"question": "x"}) == "<class 'str'>"
    with task_loading.guarded(), pytest.raises(Exception, match="unsafe|undefined|attribute"):
        utils.apply_template(DISGUISED[0], {"question": "x"})
    assert utils.apply_template(DISGUISED[0], {"question": "x"}) == "<class 'str'>"


def test_documents_are_no_templates(folder):
    row = {"question": "{{ 7 * 7 }} {{ x.__class__ }}", "choices": ["{{1}}", "b"], "answer": 0}
    (folder / "data.jsonl").write_text(json.dumps(row) + "\n")
    assert load(folder).instances[0].args == ("{{ 7 * 7 }} {{ x.__class__ }} 2", " {{1}}")


def test_allow_code_lets_trusted_files_run(folder):
    source = "def upper(docs):\n    return docs.map(lambda row: {'question': row['question'].upper()})\n"
    (folder / "mine_code.py").write_text(source)
    (folder / "mine.yaml").write_text(PLAIN + "process_docs: !function mine_code.upper\n")
    assert load(folder, allow_code=True).instances[0].args[0] == "NUMBER 0? 2"


def test_a_task_file_can_be_named_itself_and_is_checked_too(folder):
    path = str(folder / "mine.yaml")
    with task_loading.guarded():
        assert list(task_loading.load_tasks([path])["tasks"]) == ["mine"]
        (folder / "mine.yaml").write_text(PLAIN + "process_docs: !function evil.run\n")
        with pytest.raises(UserError, match="line 10 has the tag !function evil.run"):
            task_loading.load_tasks([path])


BROKEN = {
    "no YAML": ("mine.yaml", "task: [", r"mine\.yaml line \d is not YAML"),
    "no mapping": ("mine.yaml", "- a\n", "is not a mapping"),
    "no data file": ("mine.yaml", PLAIN.replace("data.jsonl", "none.jsonl"), "none.jsonl, which does not exist"),
    "no documents": ("data.jsonl", "\n", "task mine has no documents: .*data.jsonl is empty"),
    "no JSON": ("data.jsonl", '{"question": \n', "data.jsonl line 1: not valid JSON"),
    "deep JSON": ("data.jsonl", "[" * 10_000 + "]" * 10_000, "data.jsonl line 1: not valid JSON .nested more"),
    "long number": ("data.jsonl", '{"question": ' + "9" * 5000 + "}", "data.jsonl line 1: .*5000 digits"),
    "half a character": ("data.jsonl", '{"question": "\\ud800"}', "data.jsonl line 1: .*half of a surrogate"),
    "deep record": (SOURCES_FILE, '{"a":' * 10_000 + "1" + "}" * 10_000, "SOURCES.json: not valid JSON .nested more"),
    "odd record": (SOURCES_FILE, '{"data.jsonl": 3}', "data.jsonl is not described"),
    "no object": ("data.jsonl", "3\n", "data.jsonl line 1 is not a JSON object"),
    "mixed types": ("data.jsonl", '{"question": "a"}\n{"question": [1]}\n', "differ in the type of a field"),
    "unknown setting": ("mine.yaml", PLAIN + "colour: red\n", "cannot use mine .*colour"),
    "missing field": ("mine.yaml", PLAIN.replace("question.strip()", "qestion"), "cannot be filled in .*qestion"),
    "changed data": (SOURCES_FILE, '{"data.jsonl": {"sha256": "00"}}', "data.jsonl has changed"),
    "undescribed data": (SOURCES_FILE, "{}", "data.jsonl is not described"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_task_is_one_clear_line(folder, name):
    path, text, message = BROKEN[name]
    (folder / path).write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        load(folder)
    assert "\n" not in str(refused.value)


def test_an_unknown_task_gets_the_nearest_names(folder, monkeypatch):
    monkeypatch.setattr(task_loading, "harness", small_harness(monkeypatch))
    with pytest.raises(UserError, match="no task 'Apertus_demo_chioce'; the nearest are apertus_demo_choice, "):
        load(folder, "Apertus_demo_chioce")
    with pytest.raises(UserError, match="no task 'zzzz_qqqq'; none is similar"):
        load(folder, "zzzz_qqqq")
    with pytest.raises(UserError, match="no task was named"):
        load(folder, " ")


def test_tasks_that_run_a_model_s_code_are_refused_unloaded(folder, monkeypatch):
    (folder / "mine.yaml").write_text(PLAIN + "unsafe_code: true\nprocess_docs: !function gone.run\n")
    (folder / "all.yaml").write_text("group: all\ntask: [mine]\n")
    monkeypatch.setattr(task_loading, "check_task_folder", lambda folder: None)
    for name in ("mine", "all", "mi*"):
        with pytest.raises(UserError, match="task mine runs code that the model writes; allow it"):
            load(folder, name)


def small_harness(monkeypatch):
    """The harness without its fifteen thousand own tasks, whose reading would be most of the test."""
    harness = task_loading.harness()
    real = harness.tasks.TaskManager
    monkeypatch.setattr(
        harness.tasks, "TaskManager", lambda include_path, include_defaults: real(None, include_path, False)
    )
    return lambda: harness


def test_harness_task_reads_local_copies_of_its_hub_dataset(folder, monkeypatch, tmp_path):
    (folder / "mine.yaml").write_text(PLAIN.replace("dataset_path: json", "dataset_path: some/hub\ndataset_name: de"))
    monkeypatch.setattr(task_loading, "check_task_folder", lambda folder: None)
    with pytest.raises(UserError, match=r"needs the dataset some/hub.*FOLDER/some--hub/de/SPLIT.jsonl"):
        load(folder)
    copies = tmp_path / "copies" / "some--hub" / "de"
    copies.mkdir(parents=True)
    (copies / "test.jsonl").write_text(json.dumps(DOCUMENTS[1]) + "\n")
    assert load(folder, task_data=str(tmp_path / "copies")).instances[0].args[0] == "Number 1? 2"


def test_switzerland_qa_asks_by_letter_over_all_domains(folder, tmp_path):
    row = {"question": " Wo? ", "option_a": "Chur", "option_b": "Bern", "option_c": "Genf", "option_d": "Zug"}
    for language, name in (("de", "German"), ("rm", "Romansh")):
        copies = tmp_path / "copies" / "swiss-ai--switzerland_qa" / name
        copies.mkdir(parents=True)
        rows = [{**row, "answer": "C", "topic": "geography"}, {**row, "answer": "A", "topic": "history"}]
        (copies / "test.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        task = load(folder, f"switzerland_qa_{language}", task_data=str(tmp_path / "copies"))
        assert len(task.instances) == 8
        assert task.instances[0].args == ("Wo?\nA. Chur\nB. Bern\nC. Genf\nD. Zug\nAnswer:", " A")
        scores = [((-1.0, False), (-2.0, False), (-0.5, False), (-3.0, False))] * 2
        accuracies = [
            task.process_results(document, list(each))["acc"] for document, each in zip(rows, scores, strict=True)
        ]
        assert accuracies == [1.0, 0.0]


def test_the_harness_is_left_as_it_was(folder):
    from lm_eval import utils
    from lm_eval.api.task import ConfigurableTask

    before = utils.env, ConfigurableTask.download, logging.getLogger("lm_eval").level
    load(folder)
    assert before == (utils.env, ConfigurableTask.download, logging.getLogger("lm_eval").level)

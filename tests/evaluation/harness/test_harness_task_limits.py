"""Task files that never end, eat memory, read what is not theirs or lack parts: one line, within seconds."""

import json
import os
import re
import signal
import threading

import pytest

from apertus_jax.errors import UserError
from apertus_jax.evaluation.harness import task_loading, template_sandbox
from apertus_jax.evaluation.harness.template_sandbox import CostlyTemplateError, LimitedSandbox
from apertus_jax.evaluation.harness.tokenizer import HarnessTokenizer
from tests.evaluation.harness.harness_models import write_model
from tests.evaluation.harness.test_harness_task_rules import DOCUMENTS, PLAIN, folder, load, small_harness  # noqa: F401


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A second instead of five, and no thousands of files of the harness's own."""
    monkeypatch.setattr(template_sandbox, "SECONDS", 1.0)
    monkeypatch.setattr(task_loading, "harness", small_harness(monkeypatch))


def refused(call, *arguments, **settings):
    """The one line that a call ends with."""
    with pytest.raises(UserError) as stopped, task_loading.task_errors("mine"):
        call(*arguments, **settings)
    assert "\n" not in str(stopped.value)
    return str(stopped.value)


ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "product": "{{ ('a' * 10000000000)|length }}",
    "power": "{{ (10 ** (10 ** 9)) % 7 }}",
    "width": "{{ 'a'|center(10000000000)|length }}",
    "format": "{{ ('%' ~ '99999999999d')|format(1)|length }}",
    "doubling": "{% set n = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "replace": "{{ ('a' * 1000000).replace('a', 'b' * 1000000)|length }}",
    "batch": "{{ [1]|batch(10000000000, 'x')|list|length }}",
    "macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "pattern": "{{ ('a' * 40 ~ 'b')|regex_replace('(a+)+$', 'x') }}",
    "constant": "{{ 'a'|center(10000000000) }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_templates_are_stopped_within_seconds(folder, name):  # noqa: F811
    (folder / "mine.yaml").write_text(PLAIN + f"description: {json.dumps(ENDLESS[name])}\n")
    assert re.search("mine.*mend the task file", refused(load, folder))


def test_endless_patterns_of_filters_are_stopped_within_seconds(folder):  # noqa: F811
    (folder / "mine.yaml").write_text(
        PLAIN + "filter_list: [{name: slow, filter: [{function: regex, regex_pattern: '(a+)+$'}]}]\n"
    )

    def answer():
        task = load(folder)
        for instance in task.instances:
            instance.resps = ["a" * 40 + "b"]
        with task_loading.guarded():
            task.apply_filters()

    assert "filter of mine is stopped: it takes longer than" in refused(answer)


def test_chat_templates_of_strangers_have_the_same_limits(tmp_path):
    write_model(tmp_path)
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text(ENDLESS["loops"])
    tokenizer = HarnessTokenizer(tmp_path / "tokenizer")
    assert "takes longer than 1 seconds" in refused(tokenizer.render_chat, [{"role": "user", "content": "a"}])


def test_limits_leave_the_process_as_it_was():
    import resource

    before = signal.getsignal(signal.SIGALRM), resource.getrlimit(resource.RLIMIT_AS)
    assert LimitedSandbox().from_string("{{ 6 * a }}").render(a=7) == "42"
    with pytest.raises(CostlyTemplateError):
        LimitedSandbox().from_string(ENDLESS["product"]).render()
    assert (signal.getsignal(signal.SIGALRM), resource.getrlimit(resource.RLIMIT_AS)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_templates_outside_the_main_thread_are_refused():
    told = []

    def render():
        try:
            LimitedSandbox().from_string("a")
        except UserError as error:
            told.append(str(error))

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert "main thread" in told[0]


ELSEWHERE = {
    "absolute": "{outside}/secret.jsonl",
    "above": "../outside/secret.jsonl",
    "pattern": "../outside/*.jsonl",
    "a link": "linked.jsonl",
    "a list": "[data.jsonl, ../outside/secret.jsonl]",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_data_outside_the_task_folder_is_not_read(folder, tmp_path, name):  # noqa: F811
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text(json.dumps(DOCUMENTS[0]) + "\n")
    (folder / "linked.jsonl").symlink_to(outside / "secret.jsonl")
    text = PLAIN.replace("data.jsonl", ELSEWHERE[name].format(outside=outside))
    (folder / "mine.yaml").write_text(text)
    line = refused(load, folder)
    assert "mine.yaml reads" in line and "outside its folder" in line and "evaluate_tasks.task_data" in line
    assert load(folder, task_data=str(outside)).instances[0].args[0] == "Number 0? 2"
    assert load(folder, allow_code=True).instances[0].args[0] == "Number 0? 2"


def test_members_of_groups_and_data_folders_read_nothing_else(folder, tmp_path):  # noqa: F811
    (tmp_path / "secret.jsonl").write_text(json.dumps(DOCUMENTS[0]) + "\n")
    inline = "\n".join("    " + line for line in PLAIN.replace("data.jsonl", "../secret.jsonl").splitlines())
    (folder / "all.yaml").write_text(f"group: all\ntask:\n  -\n{inline.replace('task: mine', 'task: inside')}\n")
    assert "all.yaml" in refused(load, folder, "all")
    (folder / "all.yaml").unlink()
    (folder / "more").mkdir()
    (folder / "more" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "mine.yaml").write_text(PLAIN.replace("{data_files: {test: data.jsonl}}", "{data_dir: more}"))
    assert "link.jsonl, which lies outside" in refused(load, folder)
    (folder / "mine.yaml").write_text(PLAIN.replace("{test: data.jsonl}", "{test: data.jsonl}, cache_dir: /tmp/x"))
    assert "mine.yaml line 3 gives the dataset cache_dir" in refused(load, folder)


LOOPS = {
    "includes itself": ({"mine.yaml": PLAIN + "include: mine.yaml\n"}, "mine", "mine.yaml line 10 includes mine.yaml"),
    "includes in a ring": (
        {"mine.yaml": PLAIN + "include: a\n", "a": "include: b\n", "b": "repeats: 1\ninclude: [a]\n"},
        "mine",
        "b line 2 includes a, which includes it in turn",
    ),
    "a group of itself": ({"g.yaml": "group: g\ntask: [mine, g]\n"}, "g", "group g holds itself (g > g)"),
    "groups in a ring": (
        {"g.yaml": "group: g\ntask: [h]\n", "h.yaml": "group: h\ntask: [{group: g}]\n"},
        "g",
        "group g holds itself (g > h > g)",
    ),
    "groups that double": (
        {f"g{n}.yaml": f"group: g{n}\ntask: [g{n + 1}, g{n + 1}]\n" for n in range(40)}
        | {"g40.yaml": "group: g40\ntask: [mine]\n"},
        "g0",
        "holds more than 100,000 tasks",
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_task_files_are_named(folder, name):  # noqa: F811
    files, wanted, message = LOOPS[name]
    for path, text in files.items():
        (folder / path).write_text(text)
    assert message in refused(load, folder, wanted)


# Content of mine.yaml → what is told; all of them lack something or have a part of another kind than expected.
ODD = {
    "": "is not a mapping",
    "task: mine\n": "mine",
    "task:\n": "mine",
    "? [a, b]\n: c\ntask: mine\n": "mine.yaml line 1 has a list or mapping as a name",
    "task: mine\ninclude: {a: b}\n": "mine.yaml cannot be read as a task file",
    "task: mine\ninclude: .\n": "is no file, so it cannot be a task file",
    "task: mine\ninclude: gone\n": "mine.yaml line 2 includes gone, which does not exist",
    "task: mine\na: " + "[" * 5000 + "]" * 5000 + "\n": "mine.yaml is nested too deeply",
    PLAIN + 'gen_prefix: "{{ ' + "(" * 5000 + "1" + ")" * 5000 + ' }}"\n': "template that is nested too deeply",
    PLAIN + "num_fewshot: many\n": "mine",
    PLAIN.replace("{data_files: {test: data.jsonl}}", "3"): "mine",
    PLAIN.replace("{test: data.jsonl}", "{test: 3}"): "mine",
    PLAIN.replace("{test: data.jsonl}", "{test: [[data.jsonl], 3]}"): "mine",
    PLAIN.replace("test_split: test", "test_split: 3"): "mine",
    PLAIN.replace("[{metric: acc}]", "[acc]"): "mine",
    PLAIN.replace("[{metric: acc}]", "{metric: acc}"): "mine",
    PLAIN.replace("doc_to_choice: choices", "doc_to_choice: 3"): "mine",
    PLAIN.replace("doc_to_target: answer", ""): "mine",
    "group: mine\ntask: [3]\n": "group mine has the member 3, which names no task",
    "group: mine\ntask: [{num_fewshot: 1}]\n": "group mine has the member",
    "group: mine\ntask: [gone]\n": "mine",
    "task: mine\nx: !!timestamp y\n": "mine",
    "task: mine\nx: &a [*a]\n": "mine",
}


@pytest.mark.parametrize("text", ODD, ids=lambda text: re.sub(r"\W+", "_", text)[-30:] or "empty")
def test_odd_task_files_are_one_line_that_names_them(folder, text):  # noqa: F811
    (folder / "mine.yaml").write_text(text)
    assert ODD[text] in refused(load, folder)


def test_pipes_and_huge_files_are_not_read(folder):  # noqa: F811
    os.mkfifo(folder / "pipe.yaml")
    assert "pipe.yaml is no file" in refused(load, folder)
    (folder / "pipe.yaml").unlink()
    with (folder / "huge.yaml").open("wb") as file:
        file.truncate(1 << 30)
    assert "huge.yaml has 1,073,741,824 bytes" in refused(load, folder)
    (folder / "huge.yaml").unlink()
    (folder / "data.jsonl").unlink()
    os.mkfifo(folder / "data.jsonl")
    assert "data.jsonl" in refused(load, folder)


def test_a_byte_order_mark_is_no_part_of_a_task_file(folder):  # noqa: F811
    (folder / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + PLAIN.encode())
    assert load(folder).instances[0].args[0] == "Number 0? 2"
    (folder / "mine.yaml").write_bytes(PLAIN.replace("task: mine", "task: mine # caf\xe9").encode("latin-1"))
    assert "mine.yaml is not YAML" in refused(load, folder)


def test_unicode_line_separators_end_no_line_of_data(folder):  # noqa: F811
    row = {**DOCUMENTS[0], "question": "one\u2028two\u0085three"}
    (folder / "data.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load(folder).instances[0].args[0] == "one\u2028two\u0085three 2"


def test_tokenizers_of_strangers_lack_parts_in_one_line(tmp_path):
    write_model(tmp_path)
    place = tmp_path / "tokenizer"
    sound = {path.name: path.read_text() for path in place.iterdir()}
    whole = json.loads(sound["tokenizer.json"])
    broken = [("tokenizer.json", json.dumps({name: value for name, value in whole.items() if name != "model"}))]
    broken += [("tokenizer.json", text) for text in ("[]", "{}", "[" * 10_000, '{"a": ' + "9" * 5000 + "}", "\xff")]
    broken += [("tokenizer_config.json", text) for text in ("[]", "3", "{", '{"a": "\\ud800"}')]
    for name, text in broken:
        (place / name).write_text(text, encoding="latin-1")
        assert name in refused(HarnessTokenizer, place)
        (place / name).write_text(sound[name])
    HarnessTokenizer(place)

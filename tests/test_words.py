"""The field's words: each leads a search to the right place; docstrings begin with what one searches for."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "apertus_jax"
# What a practitioner types → where a search for it must lead, among other places.
FOUND_IN = {
    "stochastic rounding": "apertus_jax/optimization/moments.py",
    "MFU": "apertus_jax/training/records/telemetry.py",
    "gradient accumulation": "apertus_jax/training/train_step.py",
    "preemption": "apertus_jax/training/preemption.py",
    "multi-host": "apertus_jax/training/multihost.py",
    "SFT": "apertus_jax/objectives/masks.py",
    "fine-tuning": "apertus_jax/objectives/masks.py",
    "train state": "apertus_jax/training/state.py",
    "intra-document masking": "apertus_jax/model/config.py",
    "PII": "apertus_jax/corpus/personal_data/__init__.py",
    "deduplication": "apertus_jax/corpus/duplicates/__init__.py",
    "decontamination": "apertus_jax/corpus/contamination/__init__.py",
    "cooldown": "apertus_jax/optimization/schedules.py",
    "annealing": "apertus_jax/optimization/schedules.py",
    "dense": "apertus_jax/model/transformer.py",
    "linear": "apertus_jax/model/transformer.py",
    "shuffle": "apertus_jax/data/sample_order/shuffle.py",
    "shard": "apertus_jax/corpus/prepare/launching/tasks.py",
}
# A first line that begins so tells what the module is about and not what it is.
TRANSLATED = re.compile(r"(What|How|Which|Where|Whether|When|Who|Why|Is|Are|From|One|The one|A person)\b")
QUESTION = re.compile(r"(What|How|Which|Where|Who|Why|Whether|When)\b")
METAPHORS = re.compile(r"\b(rooms|hops|the house|(this|that|which|every|corpus|training|sharding|data) room)\b")


def first_lines() -> dict[str, str]:
    """Returns the first line of every module's docstring, by path."""
    lines = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines[path.relative_to(ROOT).as_posix()] = docstring.partition("\n")[0]
    return lines


@pytest.mark.parametrize(("word", "file"), FOUND_IN.items(), ids=FOUND_IN)
def test_word_of_the_field_is_found_where_it_belongs(word, file):
    assert re.search(rf"\b{word}", (ROOT / file).read_text(), re.IGNORECASE), f"{file} never says {word}"


@pytest.mark.parametrize("word", FOUND_IN)
def test_word_of_the_field_is_in_the_readme_or_contributing(word):
    pages = "".join((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
    assert re.search(rf"\b{word}", pages, re.IGNORECASE), f"neither README nor CONTRIBUTING says {word}"


def test_class_docstrings_begin_with_a_noun_phrase():
    lines = {
        f"{path.relative_to(ROOT).as_posix()}:{node.name}": (ast.get_docstring(node) or "").partition("\n")[0]
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert len(lines) > 250
    assert {name: line for name, line in lines.items() if QUESTION.match(line)} == {}


def test_module_docstrings_begin_with_a_noun_phrase():
    lines = first_lines()
    assert len(lines) > 350
    assert {file: line for file, line in lines.items() if not line or TRANSLATED.match(line)} == {}


def test_code_and_pages_use_no_private_metaphors():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("*.md")]
    found = {path: METAPHORS.findall(path.read_text()) for path in files if path != pathlib.Path(__file__)}
    assert {path.relative_to(ROOT).as_posix(): words for path, words in found.items() if words} == {}

"""Names of tests can be searched for, guessed and spoken: at most 60 characters, no name twice in a file."""

import ast
import collections
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LONGEST = 60


def names_of(path: Path) -> list[str]:
    """Returns the names of the tests of a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_names_of_tests_have_at_most_60_characters():
    files = sorted(TESTS.rglob("test_*.py"))
    assert len(files) > 150
    assert [(path.name, name) for path in files for name in names_of(path) if len(name) > LONGEST] == []


def test_names_of_tests_are_not_given_twice_in_a_file():
    # The second would replace the first, which would never run again.
    for path in sorted(TESTS.rglob("test_*.py")):
        assert [name for name, count in collections.Counter(names_of(path)).items() if count > 1] == [], path


def test_processor_time_is_asked_by_tests_marked_timed_alone():
    # A shared machine fails any other; two releases were held up by one.
    clocks = {"assert_linear", "assert_bounded", "process_time", "perf_counter"}
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or path.name == "processor_time.py":
                continue
            called = {
                part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in ast.walk(node)
            }
            if called & clocks and "pytest.mark.timed" not in map(ast.unparse, node.decorator_list):
                found.append(f"{path.name}: {node.name}")
    assert found == []

"""Types of the public API: an example that `make lint` checks, and what keeps the check honest."""

import ast
import math
import re
import tokenize
from pathlib import Path

import pytest

from tests.public_api_example import main

ROOT = Path(__file__).resolve().parent.parent
LAZY = [path for path in (ROOT / "apertus_jax").rglob("__init__.py") if "resolved_on_first_use(" in path.read_text()]
MOST_IGNORES = 15


def test_public_api_example_runs(tmp_path):
    assert math.isclose(main(tmp_path / "model"), math.log(64), rel_tol=0.05)


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_type_checkers_see_the_names_that_resolve(path):
    (branch,) = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    seen = {(node.module, alias.name, alias.asname) for node in branch.body for alias in node.names}
    table = ast.literal_eval(branch.orelse[0].value.args[1])
    assert seen == {(module, name, name) for module, names in table.items() for name in names}


def test_ignored_type_errors_are_few_and_have_reasons():
    found = []
    for path in sorted((ROOT / "apertus_jax").rglob("*.py")):
        with path.open("rb") as file:
            comments = [each.string for each in tokenize.tokenize(file.readline) if each.type == tokenize.COMMENT]
        found += [f"{path.name}: {comment}" for comment in comments if "type: ignore" in comment]
    assert 0 < len(found) <= MOST_IGNORES, found
    assert all(re.search(r"# type: ignore\[[a-z-]+\]  # \w.{10,}", each) for each in found), found


def test_type_checker_is_part_of_lint():
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert "$(RUN) -m mypy\n" in f"{lint}\n"

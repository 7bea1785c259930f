"""Renamed gin names: the old one is refused in one line that tells the new one, which exists."""

import re
from pathlib import Path

import gin
import pytest

from apertus_jax import cli, configuration
from apertus_jax.configuration.registry import bindables
from apertus_jax.configuration.renames import RENAMED, new_name
from apertus_jax.errors import UserError

TEXTS = (".py", ".md", ".gin", ".ipynb", ".sh", ".toml")


@pytest.fixture(autouse=True, scope="module")
def registered():
    configuration.register(cli.locations())
    yield
    gin.clear_config()


@pytest.mark.parametrize("old", RENAMED)
def test_old_name_is_refused_with_the_new_one(old):
    binding = old if "." in old else f"{old}.parameter"
    with pytest.raises(UserError) as error:
        configuration.parse([], [f"{binding} = 3"])
    assert f"{binding} is called {new_name(*binding.split('.'))} now" in str(error.value)
    assert "\n" not in str(error.value)


def test_old_names_stand_nowhere_any_more():
    root = Path(__file__).parents[2]
    old = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, RENAMED))})(?!\w|\.\w)")
    places = ("apertus_jax", "docs", "experiments", "gin_configs", "notebooks")
    files = [path for place in places for path in (root / place).rglob("*") if path.suffix in TEXTS]
    found = [
        f"{path.relative_to(root)}: {match[0]}"
        for path in (*files, root / "README.md", root / "CONTRIBUTING.md")
        for match in old.finditer(path.read_text())
        if path.name != "renames.py"
    ]
    assert found == []


@pytest.mark.parametrize("new", RENAMED.values())
def test_new_name_exists(new):
    name, _, parameter = new.partition(".")
    assert name in bindables and (not parameter or parameter in bindables[name].parameters)


def test_old_name_in_a_file_is_told_with_its_line(tmp_path):
    (tmp_path / "mine.gin").write_text("SEED = 3\nmemorization.seeds = [%SEED]\n")
    with pytest.raises(UserError, match=r"memorization.seeds is called AuditGrid.seeds now; .*mine.gin, line 2"):
        configuration.parse([str(tmp_path / "mine.gin")], [])


def test_renamed_class_is_told_in_bindings_and_references(monkeypatch):
    monkeypatch.setitem(RENAMED, "OldGrid", "AuditGrid")
    with pytest.raises(UserError, match=r"@OldGrid\(\) is called @AuditGrid now"):
        configuration.parse([], ["memorization.grid = @OldGrid()"])
    with pytest.raises(UserError, match="OldGrid.suffix is called AuditGrid.suffix now"):
        configuration.parse([], ["OldGrid.suffix = 3"])
    with pytest.raises(UserError, match="nothing is called 'NoGrid'"):
        configuration.parse([], ["NoGrid.suffix = 3"])


def test_options_a_command_takes_by_default_need_no_reference():
    configuration.parse([], ["AuditGrid.suffix = 7"])
    configuration.refer_to_options("memorization")
    assert gin.query_parameter("memorization.grid").configurable.name == "AuditGrid"
    configuration.parse([], ["mine/AuditGrid.suffix = 7", "memorization.grid = @mine/AuditGrid()"])
    configuration.refer_to_options("memorization")
    assert gin.query_parameter("memorization.grid").scoped_configurable_fn().suffix == 7


@pytest.mark.parametrize(
    ("lines", "bound"),
    [
        (["RunSchedule.total_steps = 3"], "RunSchedule"),
        (["pretrain.schedule = @long/RunSchedule()", "long/RunSchedule.total_steps = 3"], "long/RunSchedule"),
    ],
)
def test_flag_of_options_holds_in_every_scope(capsys, tmp_path, lines, bound):
    (tmp_path / "mine.gin").write_text("\n".join(lines))
    assert cli.main(["pretrain", f"--gin_file={tmp_path / 'mine.gin'}", "--steps=7", "--print_config"]) == 0
    assert f"{bound}.total_steps = 7" in capsys.readouterr().out

"""A secret comes from a file or an environment variable, and is neither recorded nor shown."""

import gin
import pytest

from apertus_jax import cli
from apertus_jax.errors import UserError
from apertus_jax.process.secret_source import read_secret

SECRET = "wanderfalke-4711-wanderfalke"
PLAN = [
    "--gin.plant_canaries.plan=@CanaryPlan()",
    "--gin.CanaryPlan.kinds=['characters']",
    "--gin.CanaryPlan.references=31",
]


@pytest.fixture(autouse=True)
def forgotten():
    yield
    gin.clear_config()


def test_a_secret_from_a_file_or_variable_is_never_recorded(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text(SECRET + "\n")
    monkeypatch.setenv("APERTUS_CANARY_SECRET", SECRET)
    outputs = {}
    for name, flag in (
        ("file", f"--gin.plant_canaries.secret_file='{tmp_path / 'secret'}'"),
        ("variable", "--gin.plant_canaries.secret_variable='APERTUS_CANARY_SECRET'"),
    ):
        folder = tmp_path / name
        assert cli.main(["plant-canaries", f"--output={folder}", flag, *PLAN]) == 0
        for path in folder.rglob("*"):
            assert path.is_dir() or SECRET not in path.read_text(), path
        outputs[name] = (folder / "canaries.jsonl").read_text()
    assert outputs["file"] == outputs["variable"]
    assert "secret_file" in (tmp_path / "file" / "operative_config.gin").read_text()


@pytest.mark.parametrize("value", [f"'{SECRET}'", SECRET, f"['{SECRET}'", f"'{SECRET}' 3", "%S", f"'{SECRET}\n'"])
@pytest.mark.parametrize("command", ["plant_canaries", "plant"])
def test_a_secret_on_the_command_line_is_refused_and_not_shown(tmp_path, capsys, command, value):
    name = command.replace("plant", "plant-probes") if command == "plant" else "plant-canaries"
    flags = [f"--gin.{command}.secret={value}", *(["--gin.S='x'"] if value == "%S" else [])]
    assert cli.main([name, f"--output={tmp_path / 'out'}", *flags]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "wanderfalke" not in line and not (tmp_path / "out").exists()


def test_a_secret_in_a_gin_file_is_refused_and_not_shown(tmp_path, capsys):
    (tmp_path / "mine.gin").write_text(f"plant_canaries.secret = '{SECRET}'\n")
    assert cli.main(["plant-canaries", f"--gin_file={tmp_path / 'mine.gin'}", f"--output={tmp_path / 'out'}"]) == 2
    line = capsys.readouterr().err
    assert "mine.gin, line 1" in line and "plant_canaries.secret_file" in line and "wanderfalke" not in line


def test_without_a_secret_nothing_is_planted(tmp_path, capsys):
    assert cli.main(["plant-canaries", f"--output={tmp_path / 'out'}", *PLAN]) == 2
    assert "plant_canaries.secret_file" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_sources_that_hold_no_secret_are_named(tmp_path, monkeypatch):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "big").write_text("x" * 100_000)
    monkeypatch.setenv("APERTUS_EMPTY", " ")
    for name in ("empty", "latin", "big", "absent", "."):
        with pytest.raises(UserError, match="secret"):
            read_secret("plant", file=str(tmp_path / name))
    for name in ("APERTUS_EMPTY", "APERTUS_NO_SUCH_VARIABLE"):
        with pytest.raises(UserError, match=f"plant.secret_variable = '{name}' holds no secret"):
            read_secret("plant", variable=name)
    with pytest.raises(UserError, match="more than one secret"):
        read_secret("plant", "a", variable="B")
    assert read_secret("plant") == "" and read_secret("plant", "a b ") == "a b "

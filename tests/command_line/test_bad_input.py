"""Bad input that is known before anything runs: one line that helps, status 2, and no output folder."""

import os
import subprocess
import sys

import pytest

from apertus_jax import cli, configuration

GIN = "--gin_file=models/test_1m.gin"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["pretrian"], ["'pretrian'", "did you mean pretrain"]),
        (["pretrain", "--setps=3"], ["--setps=3", "--help"]),
        (["pretrain", "--steps=many"], ["--steps", "'many'", "apertus pretrain --help"]),
        (["pretrain", "--gin.SEED"], ["--gin.SEED has no value", "--gin.SEED=VALUE"]),
        ([], ["COMMAND", "apertus --help"]),
        (["pretrain", GIN, "--gin.pretrain.modle=3"], ["no parameter 'modle'", "did you mean model"]),
        (["pretrain", GIN, "--gin.ModelConfig.hiden=3"], ["no parameter 'hiden'", "hidden_size"]),
        (["pretrain", GIN, "--gin.ModelConfg.hidden_size=3"], ["nothing is called 'ModelConfg'", "ModelConfig"]),
        (["pretrain", GIN, "--gin.pretrain.model=@ModelConfg()"], ["'ModelConfg", "ModelConfig"]),
        (["pretrain", "--gin_file=apertus8b.gin"], ["apertus8b.gin does not exist", "did you mean apertus_8b.gin"]),
        (["pretrain", "--gin_file=gin_configs"], ["gin file gin_configs does not exist"]),
        (["pretrain", GIN], ["no value for store", "--store=…"]),
        (["pretrain", GIN, "--gin.A.b=[1,"], ["bracket or quote is never closed"]),
        (["pretrain", GIN, "--gin.A.b==3"], ["A.b = =3", "NAME.PARAMETER = VALUE"]),
        (["pretrain", "--gin_file=recipes/apertus.gin"], ["%PEAK_LEARNING_RATE", "--gin.PEAK_LEARNING_RATE=VALUE"]),
        (["run", "--gin.run.stages=['train']"], ["'train'", "known stages are overlay"]),
        (["evaluate"], ["no value for run", "--input=…"]),
    ],
    ids=lambda value: " ".join(value) or "(nothing)" if value and isinstance(value, list) else None,
)
def test_a_wrong_command_line_is_one_line_with_what_to_do(apertus, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    takes_output = arguments and arguments[0] in cli.COMMANDS
    ended = apertus(*arguments, *(["--output=out"] if takes_output else []))
    assert all(part in ended.complaint for part in parts), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_in_a_gin_file_is_named_with_its_line(apertus, tmp_path):
    (tmp_path / "mine.gin").write_text("TrainingConfig.seed = 1\n\nTrainingConfig.learning_rate = 3\n")
    complaint = apertus("pretrain", f"--gin_file={tmp_path / 'mine.gin'}").complaint
    assert "no parameter 'learning_rate'" in complaint and "mine.gin" in complaint and "line 3" in complaint


def test_gin_file_with_a_foreign_import_is_refused_unimported(apertus, tmp_path, monkeypatch):
    (tmp_path / "foreign_module.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    (tmp_path / "mine.gin").write_text("import foreign_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    complaint = apertus("pretrain", "--gin_file=mine.gin", "--output=out").complaint
    assert "imports foreign_module" in complaint and "remove the import" in complaint
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("absent.jsonl", None, ["absent.jsonl does not exist", "give a .jsonl"]),
        ("empty.jsonl", "", ["empty.jsonl"]),
        ("blank.jsonl", '{"text": ""}\n', ["blank.jsonl"]),
        ("broken.jsonl", '{"text": "a b c"}\n{"text": \n', ["broken.jsonl", "2"]),
        ("other.jsonl", '{"body": "a b c"}\n', ["other.jsonl", "text"]),
        ("text.docx", "x", ["text.docx", ".jsonl"]),
    ],
)
def test_a_missing_empty_or_damaged_corpus_leaves_nothing(apertus, tmp_path, name, text, parts):
    if text is not None:
        (tmp_path / name).write_text(text)
    ended = apertus("tokenize", f"--input={tmp_path / name}", f"--output={tmp_path / 'store'}")
    assert all(part in ended.complaint for part in parts), ended.stderr
    assert not (tmp_path / "store").exists()


def test_an_empty_folder_as_corpus_leaves_nothing(apertus, tmp_path):
    (tmp_path / "corpus").mkdir()
    complaint = apertus("tokenize", f"--input={tmp_path / 'corpus'}", f"--output={tmp_path / 'store'}").complaint
    assert "corpus" in complaint and not (tmp_path / "store").exists()


def test_under_run_the_message_is_one_line_too(apertus, workshop, tmp_path):
    ended = apertus(
        "run",
        f"--gin_file={workshop / 'experiment.gin'}",
        "--gin.run.stages=['pretrain']",
        f"--output={tmp_path / 'out'}",
    )
    assert f"{tmp_path / 'out' / 'store'} does not exist" in ended.complaint
    assert "In call to configurable" not in ended.stderr
    assert not (tmp_path / "out" / "train").exists()


def test_a_folder_that_cannot_be_written_is_one_line(apertus, workshop, tmp_path):
    (tmp_path / "file").touch()
    ended = apertus(
        "pretrain",
        f"--gin_file={workshop / 'experiment.gin'}",
        f"--input={workshop / 'store'}",
        f"--output={tmp_path / 'file' / 'run'}",
    )
    assert "not a folder" in ended.complaint and str(tmp_path / "file") in ended.complaint


def test_a_real_process_says_its_one_line_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "apertus_jax", "pretrain", "--gin_file=apertus_8b_as_run.gin"]
    done = subprocess.run(
        [*command, "--input=absent", "--output=out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(configuration.GIN_CONFIGS.parent)},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "apertus: --input=absent does not exist; a token_store folder is expected there\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_every_command_teaches_by_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    assert cli.COMMANDS[command].summary in " ".join(page.split())
    example = page.partition("Example:\n")[2].strip()
    assert example.startswith(f"apertus {command}")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_examples_in_the_help_can_be_parsed(command):
    import shlex

    words = shlex.split(cli.COMMANDS[command].example)[1:]
    others, bindings = cli.split_gin_flags(words)
    options = cli.build_parser().parse_args(others)
    configuration.register(cli.locations())
    configuration.parse([name for name in options.gin_file if name != "my.gin"], bindings)
    for given in cli.given_flags(cli.COMMANDS[command], options, bindings):
        owner, _, parameter = given.binding.partition(".")
        assert parameter in configuration.signature(owner).parameters


def test_help_comes_at_once_without_jax():
    code = (
        "import sys; from apertus_jax import cli\n"
        "try:\n    cli.main(['--help'])\n"
        "except SystemExit:\n    print([m for m in ('jax', 'numpy', 'gin') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "apertus run --gin_file" in done.stdout

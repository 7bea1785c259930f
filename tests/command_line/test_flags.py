"""Plain flags: paths and common settings, what they bind, conflicts, and errors that name the flag."""

import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apertus_jax import cli, configuration
from apertus_jax.commands import COMMANDS
from apertus_jax.configuration.registry import bindables
from apertus_jax.errors import UserError
from apertus_jax.process import surroundings

ROOT = Path(cli.__file__).parent.parent
SHARED = ("store", "probes", "tombstones", "device", "devices", "step")
DAYS = {"today", "date", "as_of", "tombstones_date"}


def every_command():
    return [each for command in COMMANDS.values() for each in (command, *command.variants.values())]


@pytest.fixture(scope="module", autouse=True)
def registered():
    configuration.register(cli.locations())


def test_shared_flags_are_wherever_the_parameter_is():
    for command in every_command():
        parameters = set(inspect.signature(bindables[command.function].target).parameters)
        for name in SHARED:
            assert name not in parameters or command.flags.get(name) == name, (command.function, name)
        assert not parameters & DAYS or command.flags["date"] in DAYS, command.function


def test_every_flag_binds_something_that_exists():
    for command in every_command():
        for flag in command.flags:
            owner, _, parameter = command.binding_of(flag).partition(".")
            assert parameter in bindables[owner].parameters, (command.function, flag)
            assert flag in cli.PLAIN_FLAGS


def test_help_shows_the_flag_of_a_parameter(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    shown = capsys.readouterr().out
    assert "evaluate.store: str (required)  [--store]" in shown and "--devices N" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evaluate", "--input=r", "--output=o"], "evaluate has no value for store; give --store=…"),
        (["pretrain"], "give --store=… and --output=…, and bind pretrain.model, "),
        (["plan"], "bind pretrain.model, "),
        (["plan", "--gin.RunSchedule.learning_rate=1"], "and bind RunSchedule.batch_schedule in a gin file"),
        (["plan", "--gin.RunSchedule.learning_rate=1"], "give --steps=…"),
        (["pretrain", "--input=a", "--store=b"], "--input=a and --store=b both set pretrain.store; give one of them"),
        (
            ["pretrain", "--store=b", "--gin.pretrain.store=c"],
            "--store=b and --gin.pretrain.store=c both set pretrain.store; give one of them",
        ),
        (["provenance", "3", "--input=nowhere"], "--input=nowhere has no run.json"),
        (["provenance", "3", "--input=."], "--input=. has no run.json"),
        (["evaluate", "--input=r", "--store=nowhere", "--output=o"], "--store=nowhere does not exist"),
        (["plan", "--devices=many"], "argument --devices: 'many' is not a whole number of at least 1"),
        (["doctor", "--devices=5000"], "argument --devices: 5000 devices are more than 4,096"),
        (["doctor", "--device=npu"], "argument --device: invalid choice: 'npu'"),
        (["robots-snapshot", "--input=.", "--output=../o", "--date=31.1.2025"], "--date=31.1.2025 is not a day"),
        (["prepare", "--tombstones=t", "--output=o"], "--tombstones=t is for @RemovalScoring(), which"),
        (["prepare", "--gin_file=policies/strict.gin", "--input=my.jsonl", "--output=o"], "--tombstones is empty"),
        (["tokenize", "--output=o", "--gin.tokenize.documents=nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_error_names_the_flag_to_type(apertus, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert told in apertus(*arguments).complaint


def test_error_about_a_gin_file_keeps_the_gin_name(apertus, tmp_path):
    (tmp_path / "a.gin").write_text("RunSchedule.total_steps = 'many'\n")
    complaint = apertus("pretrain", f"--gin_file={tmp_path / 'a.gin'}").complaint
    assert "RunSchedule.total_steps = 'many' must be a whole number" in complaint and "line 1" in complaint


def test_flag_over_a_gin_file_is_told_with_file_and_line(workshop, caplog, capsys):
    caplog.set_level(logging.INFO)
    file = workshop / "experiment.gin"
    arguments = ["pretrain", f"--gin_file={file}", "--print_config"]
    assert cli.main([*arguments, "--steps=9"]) == 0
    assert "RunSchedule.total_steps = 9" in capsys.readouterr().out
    (told,) = [record.getMessage() for record in caplog.records]
    line = file.read_text().splitlines().index("RunSchedule.total_steps = 4") + 1
    assert told == f"--steps=9 holds in place of RunSchedule.total_steps = 4 (gin file {file}, line {line})"
    caplog.clear()
    assert cli.main([*arguments, "--steps=4"]) == 0 and not caplog.records


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "apertus_jax", *arguments],
        env={name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
        | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_devices_on_a_cpu_are_simulated():
    done = run("doctor", "--device=cpu", "--devices=3")
    assert done.returncode == 0 and "3 × cpu" in done.stdout, done.stderr


def test_device_that_is_not_here_is_one_line():
    done = run("doctor", "--device=tpu")
    if done.returncode == 0:
        pytest.skip("there is one here")
    assert done.stderr.splitlines()[-1].startswith("apertus: --device=tpu: jax finds none here"), done.stderr


def test_devices_of_xla_flags_and_flag_must_agree(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,1")
    surroundings.choose_devices("", 0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,3,1"
    with pytest.raises(UserError, match="--devices=2, and XLA_FLAGS has .*=8; give one of them"):
        surroundings.choose_devices("", 2)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "")
    surroundings.choose_devices("gpu", 2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,3" and os.environ["JAX_PLATFORMS"] == "gpu,cpu"
    assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=2"


def test_number_of_devices_that_jax_did_not_take_is_refused():
    import jax

    surroundings.check_devices("", jax.device_count())
    with pytest.raises(UserError, match=f"--devices={jax.device_count() + 1}: jax has {jax.device_count()} devices"):
        surroundings.check_devices("", jax.device_count() + 1)

"""What a command shows: every character on every terminal, no control that a stranger wrote, one line when it fails."""

import ast
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import gin
import pytest
from rich.table import Table

from apertus_jax import cli, configuration
from apertus_jax.errors import UserError
from apertus_jax.process.surroundings import check_xla_flags, prepare_jax
from apertus_jax.terminal.screen import Screen
from apertus_jax.terminal.streams import ShownLogs, silence_late_storage_callbacks

PACKAGE = Path(cli.__file__).parent
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\r\x08\x00"
OBEYED = set("\x1b\x07\x9b\u202e\r\x08\x00")


def run(*arguments, environment=None, **options):
    """Runs a real process and returns its status and both streams as bytes."""
    return subprocess.run(
        [sys.executable, "-m", "apertus_jax", *arguments],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "JAX_PLATFORMS": "cpu"} | (environment or {}),
        capture_output=True,
        check=False,
        **options,
    )


def test_what_a_terminal_obeys_is_shown_by_console_and_log():
    shown = io.StringIO()
    table = Table(title=f"title {HOSTILE}")
    table.add_column(f"column {HOSTILE}")
    table.add_row(f"cell {HOSTILE}")
    console = Screen(file=shown, width=200)
    console.print(table)
    console.print(f"plain {HOSTILE}\ttext", markup=False)
    console.rule(f"rule {HOSTILE}")
    assert not OBEYED & set(shown.getvalue()) and all(
        w in shown.getvalue() for w in ("title", "column", "cell", "plain")
    )
    record = logging.LogRecord("name", logging.INFO, "", 0, "found %s\napertus: forged", (HOSTILE,), None)
    line = ShownLogs("%(name)s: %(message)s").format(record)
    assert not OBEYED & set(line) and "found" in line and "\napertus" not in line


def test_a_terminal_still_gets_its_colours():
    shown = io.StringIO()
    Screen(file=shown, force_terminal=True, color_system="standard", no_color=False).print("[red]stop[/]")
    assert "\x1b[31mstop" in shown.getvalue()


def test_every_console_of_the_package_is_the_screen():
    for path in PACKAGE.rglob("*.py"):
        names = [
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module in ("rich.console", "rich")
            for alias in node.names
        ]
        assert path.name == "screen.py" or not {"Console", "print", "get_console"} & set(names), path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_is_not_utf8_ends_no_command(encoding):
    done = run("doctor", environment={"PYTHONIOENCODING": encoding, "COLUMNS": "200"})
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"Python" in done.stdout
    if encoding == "ascii":
        assert b"\\xd7" in done.stdout  # the × between number and kind of devices


def test_error_about_a_name_the_terminal_lacks_is_one_line(tmp_path):
    done = run("why", "x", "--input=Größe", environment={"PYTHONIOENCODING": "ascii"}, cwd=tmp_path)
    assert done.returncode == 2 and rb"Gr\xf6\xdfe" in done.stderr and done.stderr.count(b"\n") == 1


def test_an_argument_that_is_not_utf8_is_one_line():
    for arguments in (["generate", b"--prompt=\xff"], ["why", b"\xe4"], ["plan", b"--gin.plan.device='\xff'"]):
        done = run(*arguments)
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
        assert b"is not UTF-8" in done.stderr


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_who_leaves_ends_no_command(tmp_path, name):
    reader, writer = os.pipe()
    os.close(reader)
    other = tmp_path / "other"
    with other.open("wb") as file:
        status = subprocess.run(
            [sys.executable, "-m", "apertus_jax", *(["--help"] if name == "stdout" else ["pretrian"])],
            env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
            check=False,
            **{name: writer, "stderr" if name == "stdout" else "stdout": file},
        ).returncode
    os.close(writer)
    assert status == (0 if name == "stdout" else 2) and other.read_bytes() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "apertus_jax"]
        environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run([*command, "doctor"], env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 2 and b"the disk is full" in done.stderr and done.stderr.count(b"\n") == 1
        done = subprocess.run([*command, "pretrian"], env=environment, stdout=subprocess.PIPE, stderr=full, check=False)
        assert done.returncode == 2 and done.stdout == b""


@pytest.fixture
def broken(monkeypatch):
    """The command `doctor` with a bug in it."""
    from apertus_jax import doctor_command

    configuration.register(cli.locations())

    def check_rows(root):
        raise KeyError(f"unexpected {HOSTILE}")

    monkeypatch.setattr(doctor_command, "check_rows", check_rows)
    yield
    gin.clear_config()


def test_a_bug_of_ours_is_one_line_and_says_how_to_see_it(broken, capsys):
    assert cli.main(["doctor"]) == 70
    line = capsys.readouterr().err
    assert line.startswith("apertus: internal error: KeyError: ") and "--debug" in line and line.count("\n") == 1
    assert not OBEYED & set(line)


@pytest.mark.parametrize("arguments", [["doctor", "--debug"], ["--debug", "doctor"]])
def test_debug_shows_the_traceback(broken, capsys, arguments):
    assert cli.main(arguments) == 70
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "check_rows" in shown and not OBEYED & set(shown)
    assert shown.splitlines()[-1].startswith("apertus: internal error: KeyError: ")


def test_debug_shows_where_a_line_for_people_came_from(tmp_path, capsys):
    assert cli.main(["why", "x", f"--input={tmp_path / 'none'}", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "why_command.py" in shown and shown.splitlines()[-1].startswith("apertus: ")
    assert cli.main(["why", "x", f"--input={tmp_path / 'none'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


STARTING_JAX = """
import sys
from apertus_jax.process.failures import as_user_error
try:
    import jax
    jax.devices()
except Exception as error:
    sys.exit(str(as_user_error(error, "plan")))
"""


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("JAX_PLATFORMS", "cqu", "JAX_PLATFORMS='cqu': jax cannot start this platform here"),
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS='cuda': jax cannot start this platform here"),
        ("JAX_ENABLE_X64", "maybe", "JAX_ENABLE_X64='maybe' is no value jax takes"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "best", "JAX_DEFAULT_MATMUL_PRECISION='best' is no value jax takes"),
    ],
)
def test_settings_that_jax_refuses_are_one_line(variable, value, part):
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "XLA_FLAGS": "", variable: value}
    command = [sys.executable, "-c", STARTING_JAX]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if value == "cuda" and done.returncode == 0:
        pytest.skip("there is one here")
    assert done.returncode == 1 and part in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--xla_cpu_no_such_flag=3", "--xla_cpu_no_such_flag"),
        ("--xla_force_host_platform_device_count=two", "value two"),
        ("no_such_file", "no_such_file"),
        ("--xla_force_host_platform_device_count=0", "device_count=0"),
    ],
)
def test_flags_that_xla_refuses_are_one_line(flags, part):
    with pytest.raises(UserError, match="XLA_FLAGS") as error:
        check_xla_flags(flags)
    assert part in str(error.value) and "unset it" in str(error.value) and "\n" not in str(error.value)


def test_flags_that_xla_takes_cost_no_other_process(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    check_xla_flags("")
    check_xla_flags(" --xla_force_host_platform_device_count=8 --xla_cpu_enable_concurrency_optimized_scheduler=false")


def test_a_typing_error_in_xla_flags_does_not_abort_the_process():
    done = run("doctor", environment={"XLA_FLAGS": "--xla_cpu_no_such_flag=3"})
    assert done.returncode == 2 and b"--xla_cpu_no_such_flag" in done.stderr and done.stderr.count(b"\n") == 1


def test_flags_of_blanks_are_no_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", " \n")
    monkeypatch.setattr(subprocess, "run", None)
    prepare_jax()
    assert os.environ["XLA_FLAGS"] == ""


COMPUTING = """
import sys
from apertus_jax.process.surroundings import prepare_jax
prepare_jax()
from apertus_jax.process.failures import as_user_error
try:
    import jax
    jax.numpy.zeros(3) + 1
except Exception as error:
    sys.exit(str(as_user_error(error, "generate")))
"""


def test_missing_platform_is_told_wherever_it_is_first_used():
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "XLA_FLAGS": "", "JAX_PLATFORMS": "cuda"}
    done = subprocess.run(
        [sys.executable, "-c", COMPUTING], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        pytest.skip("there is one here")
    assert "JAX_PLATFORMS='cuda': jax cannot start this platform here" in done.stderr, done.stderr


@pytest.mark.parametrize("value", ["-5", "0", "²", "٣", "1_0", "3.0", "9" * 30, ""])
def test_steps_are_a_plain_number(capsys, value):
    assert cli.main(["pretrain", f"--steps={value}"]) == 2
    line = capsys.readouterr().err
    assert "--steps" in line and "whole number of at least 1" in line and line.count("\n") == 1


@pytest.mark.parametrize("value", ["²/3", "1/²", "٣/٤", "1", "1/0", "-1/2", "1/2/3", "4/3"])
def test_shares_of_the_work_are_plain_numbers(value):
    from apertus_jax.process.share_of_work import Share

    with pytest.raises(UserError, match="task"):
        Share.parse(value)


def test_tasks_of_a_failed_save_are_silent_and_others_are_not(caplog):
    silence_late_storage_callbacks()
    asyncio_log = logging.getLogger("asyncio")
    asyncio_log.error("Task exception was never retrieved\nfuture: <Task coro=<f() at /x/orbax/checkpoint/_src/s.py:1>")
    asyncio_log.error("Task exception was never retrieved\nfuture: <Task coro=<f() at /home/me/mine.py:1>")
    assert [record.getMessage().count("mine.py") for record in caplog.records] == [1]

"""Shell completion: commands, flags, gin files and bindable names, at once and without jax."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from apertus_jax import cli, configuration
from apertus_jax.command_line.completion import bindable_locations, bindings_that_begin, gin_files_that_begin
from apertus_jax.configuration.parameters_in_source import parameters_in_source
from apertus_jax.configuration.registry import bindables

ROOT = Path(cli.__file__).parent.parent
ANSWERING = """
import sys
from apertus_jax.command_line.completion import complete
complete(exit_method=lambda status: print(status, sorted({"jax", "numpy", "rich", "pyarrow"} & set(sys.modules))))
"""


def test_source_tells_the_parameters_of_every_bindable_name():
    configuration.register(cli.locations())
    for name, location in bindable_locations().items():
        assert parameters_in_source(location) == bindables[name].parameters, name


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("wsd", ["--gin.wsd_schedule.peak=", "--gin.wsd_schedule.warmup_samples="]),
        ("ModelConfig.vocab", ["--gin.ModelConfig.vocab_size="]),
        ("Robots", ["--gin.RobotsRule.", "--gin.RobotsScoring."]),
        ("evaluate.sto", ["--gin.evaluate.store="]),
        ("nothing", []),
        ("nothing.at", []),
    ],
)
def test_names_after_gin_are_completed_part_by_part(prefix, found):
    assert bindings_that_begin(prefix)[: len(found) or None][:2] == found[:2]


def test_gin_files_are_found_here_and_in_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("")
    (tmp_path / "mine.txt").write_text("")
    (tmp_path / "models").mkdir()
    assert list(gin_files_that_begin("mi")) == ["mine.gin"]
    assert "quickstart.gin" in gin_files_that_begin("")
    assert set(gin_files_that_begin("policies/st")) == {"policies/strict.gin"}


def asked(line, folder):
    """Returns what a shell is answered about a command line, and which heavy modules were imported for it."""
    pytest.importorskip("argcomplete")
    told = folder / "told"
    environment = {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
        "_ARGCOMPLETE_IFS": "\n",
    }
    done = subprocess.run(
        [sys.executable, "-c", ANSWERING],
        env=os.environ | environment | {"PYTHONPATH": str(ROOT), "_ARGCOMPLETE_STDOUT_FILENAME": str(told)},
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert done.stdout == "0 []\n", done.stdout + done.stderr
    return [each.strip() for each in told.read_text().splitlines()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("apertus pre", ["prepare", "pretrain"]),
        ("apertus pretrain --tom", ["--tombstones"]),
        ("apertus pretrain --device ", ["cpu", "gpu", "tpu"]),
        ("apertus pretrain --gin_file=policies/st", ["--gin_file=policies/strict.gin"]),
        ("apertus pretrain --gin.BatchSch", ["--gin.BatchSchedule.initial="]),
        ("apertus help wsd", ["wsd_schedule"]),
    ],
)
def test_shell_is_answered_without_jax(line, expected, tmp_path):
    answer = asked(line, tmp_path)
    assert answer[: len(expected)] == expected and all(each.startswith(line.split(" ")[-1]) for each in answer)


def test_bash_completes_with_the_line_of_the_documentation(tmp_path):
    pytest.importorskip("argcomplete")
    page = (ROOT / "docs" / "installation.md").read_text()
    registration = 'eval "$(register-python-argcomplete apertus)"'
    assert registration in page
    (tmp_path / "apertus").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m apertus_jax "$@"\n')
    (tmp_path / "apertus").chmod(0o755)
    script = f"""{registration}
COMP_LINE='apertus mem' COMP_POINT=11 COMP_TYPE=9 COMP_WORDS=(apertus mem) COMP_CWORD=1
_python_argcomplete apertus mem apertus; echo "${{COMPREPLY[@]}}" """
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "memorization", done.stdout + done.stderr

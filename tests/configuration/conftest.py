"""A lab's own folder with modules for `--import`, and a registry that forgets what they brought."""

import contextlib
import shlex
import sys

import gin
import pytest

from apertus_jax import cli, configuration
from apertus_jax.configuration import registry
from apertus_jax.model.attention import IMPLEMENTATIONS
from apertus_jax.model.feedforwards import FEEDFORWARDS
from apertus_jax.training.records.recorder import Recorder

MASKS = '''
"""Masks of a lab."""
import dataclasses
import jax.numpy as jnp

__all__ = ["drop_odd", "Pick"]
__version__ = "1.2"
HIDDEN = 3


def drop_odd(offset: int = 0):
    """Masks odd tokens."""

    def mask(batch):
        return (batch["targets"] + offset) % 2 == 0

    return mask


@dataclasses.dataclass(frozen=True)
class Pick:
    """A rule of a lab."""

    share: float = 0.5


def not_listed():
    pass
'''


@contextlib.contextmanager
def own_folder(folder):
    """Makes a folder the one we are in; everything that modules register meanwhile is forgotten afterwards."""
    configuration.register(cli.locations())
    tables = (registry.bindables, registry.imported, registry.model_parts, FEEDFORWARDS, IMPLEMENTATIONS)
    before, modules, registered = [dict(table) for table in tables], set(sys.modules), gin.config._REGISTRY.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        yield folder
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    gin.config._REGISTRY = registered
    for name in set(sys.modules) - modules:
        if name.startswith(("my_lab", "lab_")):
            del sys.modules[name]
    gin.clear_config()


@pytest.fixture
def lab(tmp_path):
    """The folder we are in, with a package my_lab."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "__init__.py").write_text("")
    (tmp_path / "my_lab" / "masks.py").write_text(MASKS)
    with own_folder(tmp_path):
        yield tmp_path


def called(line):
    """Runs one printed command line in this process; returns the status."""
    return cli.main(shlex.split(line)[1:])


def killed_at_step_3(line, time=1):
    """Runs a command until it is, for the so-manieth time, about to write the row of step 4; returns the status."""
    original, times = Recorder.write_row, []

    def kill(self, step):
        times.extend([step] * (step == 4))
        if len(times) == time:
            raise KeyboardInterrupt
        original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "write_row", kill)
        return called(line)


def called_without_import(line):
    """Runs a command line as another process would, to which nobody gave a module; returns the status."""
    imported = dict(registry.imported)
    registry.imported.clear()
    try:
        return called(" ".join(word for word in line.split(" ") if not word.startswith("--import=")))
    finally:
        registry.imported.update(imported)

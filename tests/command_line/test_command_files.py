"""Command files: a command is found in `<command>_command.py`."""

import importlib

import pytest

from apertus_jax.commands import COMMANDS

PLACES = {name: command.location for name, command in COMMANDS.items()}
PLACES |= {each.function: each.location for command in COMMANDS.values() for each in command.variants.values()}
# The anchor of training, known by its own name.
ANCHORS = {"pretrain": "pretrain"}


@pytest.mark.parametrize("name", PLACES)
def test_command_lives_in_a_file_of_its_name(name):
    module, _, function = PLACES[name].partition(":")
    found = getattr(importlib.import_module(module), function).__module__.rpartition(".")[2]
    assert found == ANCHORS.get(name, f"{name.replace('-', '_')}_command")

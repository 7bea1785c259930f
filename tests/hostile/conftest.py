"""The workspace of the hostile table: one small artefact of every kind, made once."""

import os

import pytest

from apertus_jax.corpus.overlay import write_overlay
from tests.hostile import invocations


@pytest.fixture(scope="session")
def good_calls(tmp_path_factory):
    """The folder that the good call of every command has made, and what each of them wrote to the terminal."""
    root = tmp_path_factory.mktemp("hostile")
    invocations.write_materials(root)
    write_overlay(root / "overlay")
    previous = os.getcwd()
    os.chdir(root)
    try:
        calls = list(invocations.good_calls())
    finally:
        os.chdir(previous)
    failed = [f"{call.command}: {call.complaints[-500:]}" for call in calls if call.status]
    assert not failed, "\n".join(failed)
    return root, {call.command: call for call in calls}


@pytest.fixture(scope="session")
def workspace(good_calls):
    """A folder with an artefact of every command."""
    return good_calls[0]

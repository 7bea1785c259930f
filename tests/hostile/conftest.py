"""The workspace of the hostile table: one small artefact of every kind, made once."""

import os

import pytest

from apertus_jax.corpus.overlay import write_overlay
from tests.hostile import invocations


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder with an artefact of every command, and the results of the good calls that made them."""
    root = tmp_path_factory.mktemp("hostile")
    invocations.write_materials(root)
    write_overlay(root / "overlay")
    previous = os.getcwd()
    os.chdir(root)
    try:
        root_results = list(invocations.good_calls(root))
    finally:
        os.chdir(previous)
    failed = [f"{command}: {complaints[-500:]}" for command, status, complaints in root_results if status]
    assert not failed, "\n".join(failed)
    return root

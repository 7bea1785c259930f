"""Examples in the docstrings of optimizers run and print what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["ademamix"])
def test_docstring_example_runs(module):
    examined = importlib.import_module(f"apertus_jax.optimization.{module}")
    failed, attempted = doctest.testmod(examined)
    assert attempted > 0 and failed == 0

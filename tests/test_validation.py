"""Checks of single values: what is allowed passes, everything else is one line with name, value and remedy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apertus_jax import validation
from apertus_jax.errors import UserError

ANYTHING = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(), st.none(), st.lists(st.integers()), st.integers(10**60)
)


def refused(check, *arguments, **options):
    """Returns the message of a refusal, "" where there is none."""
    try:
        check("Settings.size", *arguments, **options)
    except UserError as error:
        assert str(error).startswith("Settings.size = ") and "\n" not in str(error)
        return str(error)
    return ""


@given(ANYTHING)
def test_whole_numbers_are_integers_within_bounds(value):
    allowed = type(value) is int and 1 <= value <= 9
    assert bool(refused(validation.require_whole_number, value, at_least=1, at_most=9)) != allowed


@given(ANYTHING)
def test_numbers_are_finite_and_within_open_bounds(value):
    allowed = type(value) in (int, float) and abs(value) < 1e308 and math.isfinite(value) and 0 < value < 1
    assert bool(refused(validation.require_number, value, above=0, below=1)) != allowed


def test_what_only_looks_like_a_number_is_refused():
    for value in (True, False, float("nan"), float("inf"), 10**400, -(10**5000), "1", None, [1], 1j):
        assert refused(validation.require_number, value)
        assert refused(validation.require_whole_number, value, at_least=0, at_most=2**63)


def test_numbers_of_numpy_are_numbers():
    assert not refused(validation.require_whole_number, np.int64(3), at_least=3)
    assert not refused(validation.require_number, np.float32(0.5), above=0)
    assert refused(validation.require_whole_number, np.bool_(True))


def test_the_line_says_what_is_allowed():
    message = refused(validation.require_whole_number, 0, at_least=1, at_most=8, optional=True)
    assert message == "Settings.size = 0 must be a whole number of at least 1 and at most 8, or None"
    assert refused(validation.require_choice, "wide", ("narrow", 3)).endswith("must be one of 'narrow', 3")
    assert refused(validation.require_choice, True, (1, 2))
    assert "stands there twice" in refused(validation.require_list, ["a", "b", "a"], distinct=True)
    assert "at least 1" in refused(validation.require_list, [], at_least=1)
    assert "in square brackets" in refused(validation.require_list, "abc")
    assert "3 is none" in refused(validation.require_list, ["a", 3], of=str)
    assert "{'name': number}" in refused(validation.require_mapping, [("a", 1)])
    assert len(refused(validation.require_number, "x" * 10_000)) < 200


@pytest.mark.parametrize("value", [-1, 2**32, 1.0, True])
def test_seeds_are_32_bit_numbers(value):
    assert refused(validation.require_seed, value) and not refused(validation.require_seed, 2**32 - 1)

"""Shared executables: only programs that are the same in every constant, shape and donation share one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.training.compiled_steps import CompiledSteps

ARGUMENT = jax.ShapeDtypeStruct((4,), jnp.float32)


def add(constant, argument=ARGUMENT, **options):
    """Lowers x + constant."""
    return jax.jit(lambda x: x + constant, **options).lower(argument)


def test_same_program_is_compiled_once():
    programs = CompiledSteps()
    first, second = (programs.compile(add(np.arange(4.0, dtype=np.float32))) for _ in range(2))
    assert first is second and (programs.compiled, programs.reused) == (1, 1)


@pytest.mark.parametrize("kind", [np.float32, jnp.array], ids=["on the host", "on the device"])
def test_another_closed_over_array_is_another_program(kind):
    programs, x = CompiledSteps(), jnp.zeros(4)
    found = [programs.compile(add(kind(np.float32([1, 2, 3, last])))) for last in (4, 5)]
    assert [float(each(x)[-1]) for each in found] == [4.0, 5.0] and programs.reused == 0


@pytest.mark.parametrize(
    "other",
    [
        lambda: add(1.0, jax.ShapeDtypeStruct((5,), jnp.float32)),
        lambda: add(1.0, jax.ShapeDtypeStruct((4,), jnp.bfloat16)),
        lambda: add(1.0, donate_argnums=0),
        lambda: jax.jit(lambda x: (x + 1.0,)).lower(ARGUMENT),
        lambda: jax.jit(lambda x: x["a"] + 1.0).lower({"a": ARGUMENT}),
    ],
    ids=["shape", "dtype", "donation", "output", "input"],
)
def test_another_signature_is_another_program(other):
    programs = CompiledSteps()
    assert programs.compile(add(1.0)) is not programs.compile(other())
    assert programs.reused == 0


def test_least_recently_used_is_forgotten():
    programs = CompiledSteps(capacity=2)
    for constant in (1.0, 2.0, 1.0, 3.0, 1.0, 2.0):
        programs.compile(add(constant))
    assert (programs.compiled, programs.reused) == (4, 2)

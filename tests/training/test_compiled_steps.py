"""Shared executables: only programs that are the same in every constant, shape and donation share one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.training import TrainingConfig
from apertus_jax.training.compiled_steps import CompiledSteps, compile_lowered, compiler_options_of

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


def test_another_compiler_option_is_another_program():
    programs, options = (
        CompiledSteps(),
        compiler_options_of(["xla_llvm_disable_expensive_passes=TRUE"], jax.devices()[0]),
    )
    assert options == {"xla_llvm_disable_expensive_passes": True}
    assert programs.compile(add(1.0)) is not programs.compile(add(1.0), options)
    assert programs.compile(add(1.0), options) is programs.compile(add(1.0), dict(options))


def test_no_options_are_those_of_jax(monkeypatch):
    lowered, given = add(1.0), []
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self, compiler_options: given.append(compiler_options))
    compile_lowered(lowered)
    compile_lowered(lowered, {"xla_flag": 3})
    assert given == [None, {"xla_flag": 3}]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("xla_no_such=1", "TrainingConfig.compiler_options: the compiler for cpu refuses xla_no_such=1 "),
        ("xla_cpu_enable_fast_math=maybe", "refuses xla_cpu_enable_fast_math=maybe .*not a valid bool value"),
    ],
)
def test_an_option_that_does_not_exist_is_one_line(option, message):
    with pytest.raises(UserError, match=message) as refusal:
        compiler_options_of([option], jax.devices()[0])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("options", [["xla_flag"], ["=true"], ["xla_flag="], ["--xla_flag=1"], ["xla_a=1", "xla_a=2"]])
def test_options_are_name_and_value_once_each(options):
    with pytest.raises(UserError, match="TrainingConfig.compiler_options (holds .* NAME=VALUE|sets xla_a twice)"):
        TrainingConfig(compiler_options=options)

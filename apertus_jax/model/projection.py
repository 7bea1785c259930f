"""Matrix products with a backward pass that XLA:CPU runs without transposing activations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def project(equation: str, inputs: Array, kernel: Array) -> Array:
    """einsum(equation, inputs, kernel) for an equation such as "BTD,DF->BTF", in the dtype of the inputs.

    The derivative of einsum forms a kernel's gradient as outputs x inputs and transposes it; XLA:CPU answers with a
    transposed copy of the large activation gradient, three times the cost of the product. Here the gradient is formed
    in the kernel's own order.
    """
    return jnp.einsum(equation, inputs, kernel)


def _forward_rule(equation: str, inputs: Array, kernel: Array):
    return jnp.einsum(equation, inputs, kernel), (inputs, kernel)


def _backward_rule(equation: str, residuals: tuple[Array, Array], gradient: Array):
    inputs, kernel = residuals
    operands, output_axes = equation.split("->")
    input_axes, kernel_axes = operands.split(",")
    return (
        jnp.einsum(f"{output_axes},{kernel_axes}->{input_axes}", gradient, kernel),
        jnp.einsum(f"{input_axes},{output_axes}->{kernel_axes}", inputs, gradient),
    )


project.defvjp(_forward_rule, _backward_rule)

"""Dense matrix products whose backward pass runs on XLA:CPU at the speed of the forward pass."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from apertus_jax.model.context_parallelism import context_axes

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def project(equation: str, inputs: Array, kernel: Array) -> Array:
    """einsum(equation, inputs, kernel) for an equation such as "BTD,DF->BTF", in the dtype of the inputs.

    The contracted axes must be the last of `inputs` and the first of `kernel`. The derivative of einsum forms a
    kernel's gradient as outputs x inputs over two axes (B, T) and transposes it, for which XLA:CPU makes transposed
    copies of the large activations. Here it is one plain matrix product in the kernel's own order.
    """
    return jnp.einsum(equation, inputs, kernel)


def _forward_rule(equation: str, inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return jnp.einsum(equation, inputs, kernel), (inputs, kernel)


def _backward_rule(equation: str, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    inputs, kernel = residuals
    operands, output_axes = equation.split("->")
    input_axes, kernel_axes = operands.split(",")
    if context_axes():
        # Merging B and T would gather what the mesh has split, so the partitioner gets the axes apart.
        return (
            jnp.einsum(f"{output_axes},{kernel_axes}->{input_axes}", gradient, kernel),
            jnp.einsum(f"{input_axes},{output_axes}->{kernel_axes}", inputs, gradient),
        )
    contracted = math.prod(kernel.shape[: sum(axis in input_axes for axis in kernel_axes)])
    rows, matrix = inputs.reshape(-1, contracted), kernel.reshape(contracted, -1)
    upstream = gradient.reshape(rows.shape[0], -1)
    return (upstream @ matrix.T).reshape(inputs.shape), (rows.T @ upstream).reshape(kernel.shape)


project.defvjp(_forward_rule, _backward_rule)

"""Arithmetic of a compiled step: FLOPs of its matrix products and attention kernels, and how much is done again."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from apertus_jax.training.planning.hlo_text import HloText, Instruction

AGAIN = "rematted_computation"  # JAX's scope of what `jax.checkpoint` computes for the second time
# Products [T, S] of the causal half that a splash kernel does, by what its name holds; without a "_dq" beside it,
# "_dkv" does the product of the queries' gradient too.
KERNEL_PRODUCTS = {"_fwd": 2, "_dq": 3, "_dkv": 4}
FUSED_PRODUCTS = {"_fwd": 2, "_dkv": 5}
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one device in one step; multiplications and additions count separately.

    Attributes:
      products: of `dot` and, as XLA:TPU spells them, `convolution`.
      kernels: of splash attention, the causal half alone; 0 where attention is made of products.
      again: the part of both that recomputes the forward pass.
    """

    products: int
    kernels: int
    again: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.products + self.kernels

    @property
    def share_again(self) -> float:
        """Recomputed of all."""
        return self.again / self.total if self.total else 0.0


def step_flops(program: HloText, sequence_length: int) -> StepFlops:
    """Returns the FLOPs of a program of sequences of that length (keys of a kernel: all of them)."""
    products = kernels = again = 0
    names = [each.name for computation in program.computations.values() for each in computation]
    apart = any(name.startswith("splash_") and "_dq" in name for name in names)
    products_of_kernel = KERNEL_PRODUCTS if apart else FUSED_PRODUCTS
    for name, times in program.runs.items():
        backward = any(each.name.startswith("splash_") and "_dkv" in each.name for each in program.computations[name])
        for each in program.computations[name]:
            product, kernel = (
                times * product_flops(program, each),
                times * _kernel_flops(program, each, sequence_length, products_of_kernel),
            )
            products += product
            kernels += kernel
            # Kernels lose their op_name: one of the forward pass beside those of the backward pass is again.
            is_again = AGAIN in each.op_name or (backward and "_fwd" in each.name)
            again += (product + kernel) if is_again else 0
    return StepFlops(products, kernels, again)


def product_flops(program: HloText, instruction: Instruction) -> int:
    """Returns the FLOPs of a `dot` or `convolution`, padding apart: 0 of anything else."""
    if instruction.operation == "dot":
        left = program.by_name[instruction.operands[0]].result[0].shape
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        return 2 * math.prod(instruction.result[0].shape) * math.prod(left[axis] for axis in axes)
    labels = _LABELS.search(instruction.rest)
    if instruction.operation != "convolution" or labels is None:
        return 0
    left, right = (program.by_name[name].result[0].shape for name in instruction.operands[:2])
    result = instruction.result[0].shape
    groups = re.search(r"batch_group_count=(\d+)", instruction.rest)
    flops = 2 * result[labels[3].index("b")] * result[labels[3].index("f")] * right[labels[2].index("i")]
    window = _window(instruction)
    for number in range(len(result) - 2):
        label = str(number)
        sizes = left[labels[1].index(label)], right[labels[2].index(label)], result[labels[3].index(label)]
        flops *= _meetings(*sizes, **{name: values[number] for name, values in window.items()})
    return flops // int(groups[1]) if groups else flops


def _window(instruction: Instruction) -> dict[str, list[int]]:
    """Returns strides, padding before and dilations of a convolution, by spatial dimension."""
    found = re.search(r"window=\{([^}]*)\}", instruction.rest)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    count = len(fields.get("size", "").split("x")) if "size" in fields else 0
    ones = "x".join(["1"] * count)
    return {
        "stride": [int(each) for each in fields.get("stride", ones).split("x") if each],
        "padding": [
            int(each.split("_")[0]) for each in fields.get("pad", "x".join(["0_0"] * count)).split("x") if each
        ],
        "left_dilation": [int(each) for each in fields.get("lhs_dilate", ones).split("x") if each],
        "right_dilation": [int(each) for each in fields.get("rhs_dilate", ones).split("x") if each],
    }


def _meetings(
    left: int, right: int, result: int, stride: int, padding: int, left_dilation: int, right_dilation: int
) -> int:
    """Returns how many pairs of a place of the result and one of the kernel meet an element that is there."""
    span = (left - 1) * left_dilation
    return sum(
        0 <= at <= span and at % left_dilation == 0
        for place in range(result)
        for tap in range(right)
        for at in [place * stride + tap * right_dilation - padding]
    )


def _kernel_flops(
    program: HloText, instruction: Instruction, sequence_length: int, products_of_kernel: Mapping[str, int]
) -> int:
    """Returns the FLOPs of a splash kernel, whose largest array is [B, N, T, H]: the queries, or as large as they."""
    if instruction.operation != "custom-call" or not instruction.name.startswith("splash_"):
        return 0
    products = sum(count for part, count in products_of_kernel.items() if part in instruction.name)
    read = [array for name in instruction.operands if name in program.by_name for array in program.by_name[name].result]
    shapes = [array.shape for array in (*instruction.result, *read) if len(array.shape) == 4]
    return products * max(map(math.prod, shapes), default=0) * sequence_length

"""Reuse of compiled programs: one executable serves every run of a process whose program has the same text."""

from __future__ import annotations

import hashlib
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from apertus_jax.errors import UserError

# Of a lowered program, and options of the compiler by name.
Compile = Callable[[jax.stages.Lowered, Mapping[str, Any]], jax.stages.Compiled]
NO_OPTIONS: Mapping[str, Any] = types.MappingProxyType({})
DEFAULT_CAPACITY = 64
BOOLEANS = {"true": True, "false": False}  # XLA's own options take no text for them


class CompiledSteps:
    """Compiled programs of the runs of one process, the least recently used of more than `capacity` forgotten.

    A program is known by its text before optimization (StableHLO, in which shapes, shardings, donation and every
    constant stand), by the trees of what goes in and comes out, and by the compiler's options. So two runs share an
    executable exactly when they would compile the same one: runs that differ in seed, data or intervals of saving do,
    runs that differ in a loss mask or in a learning rate, which are constants of the program, do not.

    Attributes:
      compiled: how many programs were compiled.
      reused: how often one was there already.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY):
        self._capacity = capacity
        self._executables: OrderedDict[bytes, jax.stages.Compiled] = OrderedDict()
        self.compiled = 0
        self.reused = 0

    def compile(self, lowered: jax.stages.Lowered, options: Mapping[str, Any] = NO_OPTIONS) -> jax.stages.Compiled:
        """Returns the executable of a lowered program; takes the place of `compile_lowered`."""
        key = _identity(lowered, options)
        if key in self._executables:
            self.reused += 1
            self._executables.move_to_end(key)
            return self._executables[key]
        executable = compile_lowered(lowered, options)
        self.compiled += 1
        self._executables[key] = executable
        if len(self._executables) > self._capacity:
            self._executables.popitem(last=False)
        return executable


def compile_lowered(lowered: jax.stages.Lowered, options: Mapping[str, Any] = NO_OPTIONS) -> jax.stages.Compiled:
    """Returns the executable of a lowered program, with options of the compiler by name."""
    return lowered.compile(compiler_options=dict(options) or None)


def compiler_options_of(settings: Sequence[str], device: jax.Device) -> dict[str, Any]:
    """Returns NAME=VALUE settings as options of the compiler for a device, here or described.

    A program of one addition is compiled with them, so that what the compiler would refuse is refused at once.

    Raises:
      UserError: the compiler does not know one, or not its value.
    """
    pairs = (setting.partition("=") for setting in settings)
    options = {name: BOOLEANS.get(value.lower(), value) for name, _, value in pairs}
    if options:
        place = jax.sharding.SingleDeviceSharding(device)
        tiny = jax.jit(lambda x: x + 1, in_shardings=place, out_shardings=place)
        lowered = tiny.lower(jax.ShapeDtypeStruct((8,), jnp.float32))
        for name, value in options.items():
            try:
                compile_lowered(lowered, {name: value})
            except jax.errors.JaxRuntimeError as error:
                told = " ".join(str(error).split()).removeprefix("INVALID_ARGUMENT: ")
                raise UserError(
                    f"TrainingConfig.compiler_options: the compiler for {device.device_kind} refuses {name}={value} "
                    f"({told}); correct it, or leave it out on this hardware"
                ) from error
    return options


def _identity(lowered: jax.stages.Lowered, options: Mapping[str, Any]) -> bytes:
    digest = hashlib.blake2b(lowered.as_text().encode())
    digest.update(repr((lowered.args_info, lowered.out_info, lowered.in_tree, lowered.out_tree)).encode())
    digest.update(repr(sorted(options.items())).encode())
    return digest.digest()

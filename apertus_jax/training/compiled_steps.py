"""Reuse of compiled programs: one executable serves every run of a process whose program has the same text."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import jax

Compile = Callable[[jax.stages.Lowered], jax.stages.Compiled]
DEFAULT_CAPACITY = 64


class CompiledSteps:
    """Compiled programs of the runs of one process, the least recently used of more than `capacity` forgotten.

    A program is known by its text before optimization (StableHLO, in which shapes, shardings, donation and every
    constant stand) and by the trees of what goes in and comes out. So two runs share an executable exactly when they
    would compile the same one: runs that differ in seed, data or intervals of saving do, runs that differ in a loss
    mask or in a learning rate, which are constants of the program, do not.

    Attributes:
      compiled: how many programs were compiled.
      reused: how often one was there already.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY):
        self._capacity = capacity
        self._executables: OrderedDict[bytes, jax.stages.Compiled] = OrderedDict()
        self.compiled = 0
        self.reused = 0

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        """Returns the executable of a lowered program; takes the place of `jax.stages.Lowered.compile`."""
        key = _identity(lowered)
        if key in self._executables:
            self.reused += 1
            self._executables.move_to_end(key)
            return self._executables[key]
        executable = lowered.compile()
        self.compiled += 1
        self._executables[key] = executable
        if len(self._executables) > self._capacity:
            self._executables.popitem(last=False)
        return executable


def _identity(lowered: jax.stages.Lowered) -> bytes:
    digest = hashlib.blake2b(lowered.as_text().encode())
    digest.update(repr((lowered.args_info, lowered.out_info, lowered.in_tree, lowered.out_tree)).encode())
    return digest.digest()

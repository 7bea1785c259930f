"""Sweeps: many runs of one configuration, and runs compared side by side."""

from typing import TYPE_CHECKING

from apertus_jax.lazy_imports import resolved_on_first_use

if TYPE_CHECKING:  # what the names are; a test holds it equal to the table below
    from apertus_jax.sweeps.compare_command import compare as compare
    from apertus_jax.sweeps.sweep_command import sweep as sweep
else:
    # Comparing needs none of what training imports.
    __getattr__, __dir__, __all__ = resolved_on_first_use(
        __name__,
        {"apertus_jax.sweeps.compare_command": ("compare",), "apertus_jax.sweeps.sweep_command": ("sweep",)},
    )

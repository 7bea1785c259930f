"""Memorization audit: how much training text a model reproduces, verbatim or nearly.

Names are resolved on first use, so that the pure functions do not bring a model with them.
"""

from typing import TYPE_CHECKING

from apertus_jax.lazy_imports import resolved_on_first_use

if TYPE_CHECKING:  # what the names are; a test holds it equal to the table below
    from apertus_jax.evaluation.memorization.canaries.plant_canaries_command import CanaryPlan as CanaryPlan
    from apertus_jax.evaluation.memorization.canaries.plant_canaries_command import plant_canaries as plant_canaries
    from apertus_jax.evaluation.memorization.memorization_command import memorization as memorization
    from apertus_jax.evaluation.memorization.near_duplicates import key_degeneracy as key_degeneracy
    from apertus_jax.evaluation.memorization.near_duplicates import mask_leak as mask_leak
else:
    __getattr__, __dir__, __all__ = resolved_on_first_use(
        __name__,
        {
            "apertus_jax.evaluation.memorization.memorization_command": ("memorization",),
            "apertus_jax.evaluation.memorization.canaries.plant_canaries_command": ("CanaryPlan", "plant_canaries"),
            "apertus_jax.evaluation.memorization.near_duplicates": ("key_degeneracy", "mask_leak"),
        },
    )

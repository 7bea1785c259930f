"""The memorization audit: how much of its training text a model gives back, word for word or nearly so.

Names are resolved on first use, so that the pure functions do not bring a model with them.
"""

from apertus_jax.lazy_names import resolved_on_first_use

__getattr__, __dir__, __all__ = resolved_on_first_use(
    __name__,
    {
        "apertus_jax.evaluation.memorization.audit": ("memorization",),
        "apertus_jax.evaluation.memorization.canaries": ("CanaryPlan", "plant_canaries"),
        "apertus_jax.evaluation.memorization.near_duplicates": ("key_degeneracy", "mask_leak"),
    },
)

"""The memorization audit: how much of its training text a model gives back, word for word or nearly so.

Names are resolved on first use, so that the pure functions do not bring a model with them.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name → the module that defines it. Modules are named so that none shares its name with what is listed here.
_MODULES = {
    "apertus_jax.evaluation.memorization.audit": ("memorization",),
    "apertus_jax.evaluation.memorization.canaries": ("CanaryPlan", "plant_canaries"),
    "apertus_jax.evaluation.memorization.near_duplicates": ("key_degeneracy", "mask_leak"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

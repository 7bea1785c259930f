"""Missing packages: which extra of apertus_jax brings a module that is not installed."""

from __future__ import annotations

import importlib.metadata
import re

from apertus_jax.errors import UserError

# Modules whose distribution has another name, by their first part.
DISTRIBUTION_OF = {
    "gin": "gin-config",
    "orbax": "orbax-checkpoint",
    "google": "protobuf",
    "yaml": "pyyaml",
    "fasttext": "fasttext-predict",
}
PREFERRED = ("train", "corpus", "evaluate", "plots", "seqio", "wandb", "dev")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*?(?:extra == ['\"]([a-z]+)['\"])?$")


def extras_of_packages() -> dict[str, list[str]]:
    """Returns distribution → the extras that name it, from the metadata of what is installed; empty without any."""
    try:
        requirements = importlib.metadata.requires("apertus_jax") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that pip does not know
        return {}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        parts = _REQUIREMENT.match(requirement)
        assert parts is not None  # every requirement begins with a name
        name, extra = parts.groups()
        if extra in PREFERRED and _normalized(name) != "apertus-jax":
            found.setdefault(_normalized(name), []).append(extra)
    return found


def as_missing_package(error: ModuleNotFoundError) -> UserError | None:
    """Returns the line that says what to install, None when the module is no package that an extra brings."""
    module = (error.name or "").partition(".")[0]
    distribution = _normalized(DISTRIBUTION_OF.get(module, module))
    extras = extras_of_packages().get(distribution)
    if not extras:
        return None
    extra = min(extras, key=PREFERRED.index)
    return UserError(f"the package {distribution} is not installed; run pip install 'apertus_jax[{extra}]'")


def _normalized(name: str) -> str:
    """Returns the one spelling of a distribution's name by which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()

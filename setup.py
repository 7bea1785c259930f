"""Packages of the wheel: the code, and `gin_configs/` as `apertus_jax.gin_configs`; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["apertus_jax*"]), "apertus_jax.gin_configs"],
    package_dir={"apertus_jax.gin_configs": "gin_configs"},
    package_data={
        "apertus_jax": ["py.typed", "**/*.json", "**/*.html", "**/*.css", "**/*.jinja", "evaluation/harness/data/**/*"],
        "apertus_jax.gin_configs": ["**/*.gin", "**/*.jsonl"],
    },
)

"""The `doctor` command: what this machine can run, before anything long is started."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "gin-config", "tokenizers", "pyarrow", "seqio")
OPTIONAL = ("tensorflow", "torch", "transformers", "lm_eval", "apache_beam", "wandb")
LOWEST_PYTHON = (3, 11)


def installed_version(name: str) -> str | None:
    """Returns the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def pinned_versions(requirements: Path) -> dict[str, str]:
    """Returns `name -> version` of the exact pins in a requirements file."""
    if not requirements.exists():
        return {}
    pins = (line.split("#")[0].strip().partition("==") for line in requirements.read_text().splitlines())
    return {name.lower(): version for name, separator, version in pins if separator}


def check_rows(root: Path) -> list[tuple[str, str, str]]:
    """Returns `(what, finding, advice)` for each thing worth knowing; advice is empty when all is well."""
    import jax

    rows = []
    python_advice = "" if sys.version_info >= LOWEST_PYTHON else "use Python 3.11 or newer"
    rows.append(("Python", platform.python_version(), python_advice))
    rows.append(("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", ""))
    pins = pinned_versions(root / "requirements.txt")
    for name in PACKAGES:
        found = installed_version(name)
        pinned = pins.get(name)
        advice = "run `make install`" if found is None else ""
        if found and pinned and found != pinned:
            advice = f"tested with {pinned}; run `make install`"
        rows.append((name, found or "missing", advice))
    devices = jax.devices()
    rows.append(("devices", f"{len(devices)} × {devices[0].device_kind} ({jax.default_backend()})", ""))
    rows.append(("attention", ", ".join(usable_attention(jax.default_backend())), ""))
    free = shutil.disk_usage(root).free / 2**30
    rows.append(("free disk", f"{free:,.0f} GiB", "" if free > 5 else "a small run needs about 5 GiB"))
    for name in OPTIONAL:
        present = importlib.util.find_spec(name) is not None
        rows.append((f"optional: {name}", "installed" if present else "not installed", ""))
    return rows


def usable_attention(backend: str) -> list[str]:
    """Returns the attention implementations that can run on a backend."""
    by_backend = {"gpu": ["pallas_gpu_mha"], "tpu": ["tpu_splash"]}
    return ["xla", "xla_blockwise", *by_backend.get(backend, [])]


def doctor() -> None:
    """Prints a table of this machine's Python, packages, devices and what they can run."""
    table = Table(title="apertus doctor")
    for column in ("what", "finding", "advice"):
        table.add_column(column)
    rows = check_rows(Path(__file__).resolve().parent.parent)
    for what, finding, advice in rows:
        table.add_row(what, finding, f"[yellow]{advice}[/]" if advice else "[green]ok[/]")
    Console().print(table)

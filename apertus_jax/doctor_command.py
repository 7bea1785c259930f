"""The `doctor` command: what this machine can run, before anything long is started."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from apertus_jax.terminal.json_output import print_json
from apertus_jax.terminal.tables import show_table

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "gin-config", "tokenizers", "pyarrow", "seqio")
OPTIONAL = ("tensorflow", "torch", "transformers", "lm_eval", "apache_beam", "wandb")
LOWEST_PYTHON = (3, 11)
COLUMNS = ("what", "finding", "advice")


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
    rows = []
    python_advice = "" if sys.version_info >= LOWEST_PYTHON else "use Python 3.11 or newer"
    rows.append(("Python", platform.python_version(), python_advice))
    rows.append(("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", ""))
    pins = pinned_versions(root / "requirements.txt")
    for name in PACKAGES:
        found = installed_version(name)
        pinned = pins.get(name)
        advice = "run `make install`, or pip install 'apertus_jax[all]'" if found is None else ""
        if found and pinned and found != pinned:
            advice = f"tested with {pinned}; run `make install`"
        rows.append((name, found or "missing", advice))
    rows += device_rows()
    free = shutil.disk_usage(root).free / 2**30
    rows.append(("free disk", f"{free:,.0f} GiB", "" if free > 5 else "a small run needs about 5 GiB"))
    for name in OPTIONAL:
        present = importlib.util.find_spec(name) is not None
        rows.append((f"optional: {name}", "installed" if present else "not installed", ""))
    return rows


def device_rows() -> list[tuple[str, str, str]]:
    """Returns what JAX finds to compute on, and the attention implementations that can run there."""
    try:
        import jax
    except ModuleNotFoundError:
        return [("devices", "unknown without jax", "run `make install`")]
    devices = jax.devices()
    return [
        ("devices", f"{len(devices)} × {devices[0].device_kind} ({jax.default_backend()})", ""),
        ("attention", ", ".join(usable_attention(jax.default_backend())), ""),
    ]


def usable_attention(backend: str) -> list[str]:
    """Returns the attention implementations that can run on a backend."""
    from apertus_jax.model.attention import IMPLEMENTATIONS

    return [name for name, implementation in IMPLEMENTATIONS.items() if implementation.runs_on(backend)]


def doctor(json: bool = False) -> None:
    """Prints a table of this machine's Python, packages, devices and what they can run.

    Needs nothing but the standard library, for it has to say what is missing.

    Args:
      json: print one JSON object in place of the table.
    """
    rows = check_rows(Path(__file__).resolve().parent.parent)
    if json:
        checks = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        print_json({"well": not any(advice for *_, advice in rows), "checks": checks})
        return
    if importlib.util.find_spec("rich") is None:
        for what, finding, advice in rows:
            print(f"{what}: {finding}{f' ({advice})' if advice else ''}")
    else:
        show_table(COLUMNS, [(what, finding, advice or "ok") for what, finding, advice in rows], "apertus doctor")
    to_mend = [what for what, _, advice in rows if advice]
    print(f"doctor: to mend: {', '.join(to_mend)}" if to_mend else "doctor: all is well")

"""The `run` command: the commands of one experiment in order, each reading what the one before wrote."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import gin
from etils import epath
from rich.console import Console

from apertus_jax import __version__
from apertus_jax.artifacts import write_atomically
from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command of the chain: its gin name, and which parameter gets which folder below the chain's output."""

    command: str
    folders: dict[str, str]


STAGES = {
    "tokenize": Stage("tokenize", {"output": "store"}),
    "pretrain": Stage("pretrain", {"store": "store", "output": "train"}),
    "evaluate": Stage("evaluate", {"run": "train", "store": "store", "output": "evaluation"}),
    "export": Stage("export", {"model": "train", "output": "huggingface"}),
    "generate": Stage("generate", {"model": "train", "output": "samples"}),
}


def run(output: str, stages: Sequence[str] = tuple(STAGES)) -> dict[str, Any]:
    """Runs the stages in order below `output`; a stage whose result is already there returns at once.

    Args:
      output: folder of the whole chain; each stage writes its own folder below it.
      stages: names from the table of stages.

    Returns:
      What each stage returned, by name.

    Raises:
      UserError: an unknown stage, or whatever a stage raises; finished stages stay and are not repeated.
    """
    for name in stages:
        if name not in STAGES:
            raise UserError(f"run.stages names {name!r}; known stages are {', '.join(STAGES)}")
    root = epath.Path(output)
    root.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    results = {}
    for number, name in enumerate(stages, 1):
        stage = STAGES[name]
        console.rule(f"{number}/{len(stages)} {name}")
        started = time.monotonic()
        results[name] = bind(stage, root)()
        console.print(f"{name}: {root / stage.folders['output']} ({time.monotonic() - started:.1f} s)")
        record_configuration(root)
    return results


def bind(stage: Stage, root: epath.Path) -> Callable[[], Any]:
    """Returns the stage's command with its folders bound, so that the operative configuration records them."""
    with gin.unlock_config():
        for parameter, folder in stage.folders.items():
            gin.bind_parameter(f"{stage.command}.{parameter}", str(root / folder))
    return gin.get_configurable(stage.command)


def record_configuration(root: epath.Path) -> None:
    """Writes the configuration in effect and the version beside the results."""
    write_atomically(root / "operative_config.gin", f"# apertus_jax {__version__}\n{gin.operative_config_str()}")

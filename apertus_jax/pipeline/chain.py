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
    """One command of the chain.

    Attributes:
      command: its gin name.
      folders: parameter → folder below the chain's output.
      links: earlier stage → what it feeds into this one: gin name → folder. They hold only when that stage is run too.
    """

    command: str
    folders: dict[str, str]
    links: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)


STAGES = {
    "overlay": Stage("write_overlay", {"output": "overlay"}),
    "robots-snapshot": Stage("build_robots_snapshot", {"output": "robots"}, {"overlay": {"input": "overlay/robots"}}),
    "remove": Stage("remove", {"output": "tombstones"}, {"overlay": {"input": "overlay/removal_requests.jsonl"}}),
    "train-classifier": Stage(
        "train_classifier", {"output": "toxicity"}, {"overlay": {"input": "overlay/labelled_toxicity.jsonl"}}
    ),
    "prepare": Stage(
        "prepare",
        {"output": "prepared", "work": "prepared.work"},
        {
            "overlay": {
                "overlay/Source.path": "overlay/documents",
                "SignalScoring.tdmrep": "overlay/tdmrep",
                "ContaminationScoring.benchmarks": "overlay/benchmark.jsonl",
            },
            "robots-snapshot": {"RobotsScoring.snapshot": "robots", "SignalScoring.snapshot": "robots"},
            "remove": {"RemovalScoring.tombstones": "tombstones"},
            "train-classifier": {"ClassifierScoring.toxicity": "toxicity"},
        },
    ),
    "plant-probes": Stage("plant", {"output": "probes"}, {"prepare": {"documents": "prepared"}}),
    "tokenize": Stage(
        "tokenize", {"output": "store"}, {"prepare": {"documents": "prepared"}, "plant-probes": {"planted": "probes"}}
    ),
    "pretrain": Stage("pretrain", {"store": "store", "output": "train"}),
    "evaluate": Stage("evaluate", {"run": "train", "store": "store", "output": "evaluation"}),
    "languages": Stage("languages", {"run": "train", "store": "store", "output": "languages"}),
    "memorization": Stage(
        "memorization", {"run": "train", "store": "store", "probes": "probes", "output": "memorization"}
    ),
    "export": Stage("export", {"model": "train", "output": "huggingface"}),
    "data-summary": Stage("data_summary", {"output": "data_summary"}, {"prepare": {"prepared": "prepared"}}),
    "generate": Stage("generate", {"model": "train", "output": "samples"}),
}
# Without a policy there is nothing to prepare by: a gin file that has one names its stages.
DEFAULT_STAGES = ("tokenize", "pretrain", "evaluate", "export", "generate")


def run(output: str, stages: Sequence[str] = DEFAULT_STAGES) -> dict[str, Any]:
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
        results[name] = bind(stage, root, stages[: number - 1])()
        console.print(f"{name}: {root / stage.folders['output']} ({time.monotonic() - started:.1f} s)")
        record_configuration(root)
    return results


def bind(stage: Stage, root: epath.Path, before: Sequence[str]) -> Callable[[], Any]:
    """Returns the stage's command with its folders bound, so that the operative configuration records them."""
    bindings = dict(stage.folders)
    for producer, links in stage.links.items():
        if producer in before:
            bindings |= links
    with gin.unlock_config():
        for parameter, folder in bindings.items():
            name = parameter if "." in parameter else f"{stage.command}.{parameter}"
            gin.bind_parameter(name, str(root / folder))
    return gin.get_configurable(stage.command)


def record_configuration(root: epath.Path) -> None:
    """Writes the configuration in effect and the version beside the results."""
    write_atomically(root / "operative_config.gin", f"# apertus_jax {__version__}\n{gin.operative_config_str()}")

"""The `run` command: the commands of one experiment in order, each reading what the one before wrote."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import gin
from etils import epath

from apertus_jax import __version__
from apertus_jax.configuration import OPERATIVE_CONFIG, operative_text, refer_to_options
from apertus_jax.errors import UserError
from apertus_jax.storage.artifacts import write_atomically
from apertus_jax.storage.lease import acquire_lease
from apertus_jax.storage.listing import LEASE_FILE
from apertus_jax.storage.run_folder import check_folder_of_outputs
from apertus_jax.terminal.screen import Screen


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
# Source → the question that it answers, which `Policy.not_asked` may switch off; then nothing is fed to it.
QUESTION_OF = {
    "RobotsScoring.snapshot": "robots",
    "SignalScoring.snapshot": "signals",
    "SignalScoring.tdmrep": "signals",
    "RemovalScoring.tombstones": "removal",
    "ContaminationScoring.benchmarks": "contamination",
    "ClassifierScoring.toxicity": "toxicity",
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
      UserError: an unknown stage, a folder that is something else, or whatever a stage raises; finished stages stay
        and are not repeated.
    """
    return run_stages(output, stages, lambda name, command: command())


def run_stages(output: str, stages: Sequence[str], perform: Callable[[str, Callable[[], Any]], Any]) -> dict[str, Any]:
    """Runs the stages as `run` does; `perform` is given the name of each and its command, to call."""
    for name in stages:
        if name not in STAGES:
            raise UserError(f"run.stages names {name!r}; known stages are {', '.join(STAGES)}")
    root = epath.Path(output)
    check_chain_folder(root)
    if {"pretrain", "export"} <= set(stages):
        check_exportable()
    console = Screen(stderr=True)
    results = {}
    with acquire_lease(root, stays=False):
        for number, name in enumerate(stages, 1):
            stage = STAGES[name]
            console.rule(f"{number}/{len(stages)} {name}")
            started = time.monotonic()
            results[name] = perform(name, bind(stage, root, stages[: number - 1]))
            console.print(f"{name}: {root / stage.folders['output']} ({time.monotonic() - started:.1f} s)")
            record_configuration(root)
    return results


def check_exportable() -> None:
    """Checks that the model which `pretrain` is configured to train can be exported, before hours go into it.

    Raises:
      UserError: it cannot, or its configuration is refused.
    """
    from apertus_jax.model.tensor_table import export_obstacle

    refer_to_options("pretrain")
    try:
        reference = gin.query_parameter("pretrain.model")
    except ValueError:  # not bound: `pretrain` itself says so
        return
    obstacle = export_obstacle(copy.deepcopy(reference))  # gin makes what a reference stands for when it is copied
    if obstacle:
        raise UserError(
            f"run.stages names 'export', and this architecture cannot be exported to Hugging Face: {obstacle}; leave "
            "'export' out, or add its format there"
        )


def check_chain_folder(root: epath.Path) -> None:
    """Checks that a folder may hold a chain: it does already, or is empty, or holds nothing but results of stages.

    Raises:
      UserError: it is something else; nothing was touched.
    """
    known = {folder for stage in STAGES.values() for folder in stage.folders.values()}
    known |= {f".{OPERATIVE_CONFIG}.partial", LEASE_FILE}
    begun = (root / OPERATIVE_CONFIG).exists()
    check_folder_of_outputs(root, "run.output", "chain", begun, lambda path: path.name in known)


def bind(stage: Stage, root: epath.Path, before: Sequence[str]) -> Callable[[], Any]:
    """Returns the stage's command with its folders bound, so that the operative configuration records them."""
    bindings = dict(stage.folders)
    for producer, links in stage.links.items():
        if producer in before:
            bindings |= links
    with gin.unlock_config():
        for parameter, folder in bindings.items():
            if _is_switched_off(parameter):
                continue
            name = parameter if "." in parameter else f"{stage.command}.{parameter}"
            gin.bind_parameter(name, str(root / folder))
    refer_to_options(stage.command)
    return gin.get_configurable(stage.command)


def _is_switched_off(name: str) -> bool:
    """Returns whether a link would feed a question that the policy does not ask."""
    try:
        return QUESTION_OF.get(name) in gin.query_parameter("Policy.not_asked")
    except ValueError:  # no policy, or one that asks everything
        return False


def record_configuration(root: epath.Path) -> None:
    """Writes the configuration in effect and the version beside the results."""
    write_atomically(root / OPERATIVE_CONFIG, operative_text(f"apertus_jax {__version__}"))

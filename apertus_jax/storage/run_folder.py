"""Run folder: every name in it, the steps that can be read, and where a model of the run lies.

RUN/config.gin                  bindings in effect, for people
   /run.json                    digests of store and tokenizer, bindings, and what changed on the way
   /mixture.json                the orders of samples that the run was trained in
   /metrics.jsonl               one line per logged step, one per evaluation
   /tensorboard/…               the same numbers as event files
   /tracked.json                what trackers that keep their points were told
   /tracker_…                   what other trackers write
   /tokenizer/…                 a copy of the token store's, so that a step can be read without the store
   /checkpoints/step_0000000200/state/…          what Orbax writes
                               /metadata.json    step, table of leaves, the trainer's metadata (architecture included)
                               /COMMITTED.json   size and digest of every file; written last, removed first
   /model/…                     the model folder of the last step, written when the run has ended
   /report.html                 the same, for looking
   /finished.json               summary of a run that has ended; written last
   /starts.jsonl                when each start began and what it reached, for the goodput
   /profiles/…                  what the profiler recorded
   /LEASE.json                  locked by the process that trains
   /save, /exit, /profile       put there by a person: save a checkpoint now; save and stop; record a profile
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.listing import BUILDING_MARKER, COMMIT_MARKER, LEASE_FILE

CONFIG_FILE = "config.gin"
RECORD_FILE = "run.json"
MIXTURE_FILE = "mixture.json"
METRICS_FILE = "metrics.jsonl"
TRACKED_FILE = "tracked.json"
TRACKER_PREFIX = "tracker_"
TENSORBOARD_FOLDER = "tensorboard"
TOKENIZER_FOLDER = "tokenizer"
CHECKPOINTS_FOLDER = "checkpoints"
MODEL_FOLDER = "model"
REPORT_FILE = "report.html"
FINISHED_FILE = "finished.json"
STARTS_FILE = "starts.jsonl"
PROFILES_FOLDER = "profiles"
SAVE_TRIGGER, EXIT_TRIGGER, PROFILE_TRIGGER = "save", "exit", "profile"
MAX_STEPS_NAMED = 20
# Everything that a run writes into its folder, and the files by which it is asked to save or stop.
OWN_NAMES = frozenset(
    (CONFIG_FILE, RECORD_FILE, MIXTURE_FILE, METRICS_FILE, TENSORBOARD_FOLDER, TOKENIZER_FOLDER, CHECKPOINTS_FOLDER)
    + (MODEL_FOLDER, REPORT_FILE, FINISHED_FILE, LEASE_FILE, SAVE_TRIGGER, EXIT_TRIGGER, TRACKED_FILE)
    + (STARTS_FILE, PROFILES_FOLDER, PROFILE_TRIGGER)
)
_STEP_NAME = re.compile(r"step_(\d{10})")


def check_folder_of_outputs(
    root: epath.Path, setting: str, maker: str, is_begun: bool, is_known: Callable[[epath.Path], bool]
) -> None:
    """Checks that a folder may hold the outputs of several commands, as those of `run` and `sweep` do.

    Args:
      root: the folder: begun already, empty, not there, or with nothing but what is known.
      setting: gin name that gave it.
      maker: what makes such folders, for the message.
      is_begun: whether it is one already.
      is_known: whether an entry of it may be there.

    Raises:
      UserError: it is something else; nothing was touched.
    """
    for place in (root, *root.parents):
        if any((place / name).exists() for name in (COMMIT_MARKER, BUILDING_MARKER, RECORD_FILE)):
            what = "is" if place == root else f"lies inside {place}, which is"
            raise UserError(f"{root} {what} the output of a single command; give {setting} a folder of its own")
    if not root.exists() or is_begun:
        return
    if not root.is_dir():
        raise UserError(f"{root} is a file; give {setting} a folder of its own")
    foreign = sorted(path.name for path in root.iterdir() if not is_known(path))
    if foreign:
        raise UserError(f"{root} holds {foreign[0]!r}, which no {maker} wrote; give {setting} an empty folder")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The places in the folder of one run, which need not exist; see the module's drawing."""

    path: epath.Path

    def __init__(self, path: epath.PathLike) -> None:
        object.__setattr__(self, "path", epath.Path(path))

    @property
    def config(self) -> epath.Path:
        """The bindings in effect, as gin lines for people."""
        return self.path / CONFIG_FILE

    @property
    def record(self) -> epath.Path:
        """What the run is bound to, and the history of its changes."""
        return self.path / RECORD_FILE

    @property
    def mixture(self) -> epath.Path:
        """The orders of samples."""
        return self.path / MIXTURE_FILE

    @property
    def metrics(self) -> epath.Path:
        """The rows of logged steps and of evaluations."""
        return self.path / METRICS_FILE

    @property
    def tensorboard(self) -> epath.Path:
        """The folder of event files."""
        return self.path / TENSORBOARD_FOLDER

    @property
    def tracked(self) -> epath.Path:
        """The record of what trackers were told."""
        return self.path / TRACKED_FILE

    @property
    def starts(self) -> epath.Path:
        """The record of when each start began and what it reached."""
        return self.path / STARTS_FILE

    @property
    def tokenizer(self) -> epath.Path:
        """The copy of the token store's tokenizer."""
        return self.path / TOKENIZER_FOLDER

    @property
    def checkpoints(self) -> epath.Path:
        """The folder of checkpoints, one folder per step."""
        return self.path / CHECKPOINTS_FOLDER

    @property
    def final_model(self) -> epath.Path:
        """The model folder of the last step."""
        return self.path / MODEL_FOLDER

    @property
    def report(self) -> epath.Path:
        """The page for looking."""
        return self.path / REPORT_FILE

    @property
    def finished(self) -> epath.Path:
        """The summary of a run that has ended."""
        return self.path / FINISHED_FILE

    def is_run(self) -> bool:
        """Returns whether the folder is that of a run, running or finished."""
        return self.record.exists()

    def committed_steps(self) -> list[int]:
        """Returns the steps that have a commit marker, ascending; nothing is verified."""
        return list_steps(self.checkpoints, committed=True)

    def model(self, step: int | None = None) -> epath.Path:
        """Returns the folder that holds the model of a committed step; None stands for the model of a finished run.

        Raises:
          UserError: the run has not finished, or has no such step; the committed steps are named.
        """
        if step is not None:
            if step not in self.committed_steps():
                raise UserError(f"{self.path} has no checkpoint of step {step}; {self._steps_to_choose()}")
            return step_folder(self.checkpoints, step)
        if not artifacts.is_complete(self.final_model):
            raise UserError(f"{self.path} is a run that has not finished; {self._steps_to_choose()}")
        return self.final_model

    def _steps_to_choose(self) -> str:
        steps = self.committed_steps()
        if not steps:
            return "it has no committed checkpoint yet, wait for the first"
        named = ", ".join(map(str, steps[-MAX_STEPS_NAMED:]))
        earlier = f" and {len(steps) - MAX_STEPS_NAMED} earlier ones" if len(steps) > MAX_STEPS_NAMED else ""
        return f"give one of its committed steps with --step: {named}{earlier}"


def step_folder(checkpoints: epath.PathLike, step: int) -> epath.Path:
    """Returns the folder of a step in a folder of checkpoints."""
    return epath.Path(checkpoints) / f"step_{step:010d}"


def step_of_folder(name: str) -> int | None:
    """Returns the step whose folder has this name, None when it is no such name."""
    match = _STEP_NAME.fullmatch(name)
    return int(match[1]) if match else None


def list_steps(checkpoints: epath.PathLike, committed: bool) -> list[int]:
    """Returns the steps, ascending, whose folders have a commit marker (`committed`) or lack one (leftovers)."""
    root = epath.Path(checkpoints)
    if not root.exists():
        return []
    steps = [(step_of_folder(child.name), child) for child in root.iterdir()]
    return sorted(step for step, child in steps if step is not None and artifacts.is_complete(child) == committed)

"""Weights & Biases tracker: `TrainingConfig.trackers = [@TensorBoardTracker(), @WandbTracker()]`; extra `[wandb]`."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Literal

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.training.trackers import TrackedRun
from apertus_jax.validation import fields_by_annotation, require_choice, require_text

MODES = ("online", "offline")
FOLDER = "tracker_wandb"
STEP = "step"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
@fields_by_annotation
class WandbTracker:
    """Figures of a run in Weights & Biases, over the step of the run.

    Online a resumed run goes on as the same run of the service, which keeps its points. Offline its files are written
    anew at each start, in `tracker_wandb` in the run folder; `wandb sync` sends them. The service is told the name of
    the run (`TrainingConfig.name`) and the bindings in effect, not code, console or git; its library adds what it sees
    of the machine. Who may write is a matter of `wandb login`, never of a gin file.

    Attributes:
      project: of the service.
      entity: user or team; "" for the default one.
      mode: "online", or "offline" for files alone.
      name: unique among the trackers of a run.
    """

    project: str = "apertus"
    entity: str = ""
    mode: Literal["online", "offline"] = "online"
    name: str = "wandb"

    def __post_init__(self) -> None:
        require_text("WandbTracker.project", self.project, empty_allowed=False)
        require_text("WandbTracker.name", self.name, empty_allowed=False)
        require_choice("WandbTracker.mode", self.mode, MODES)

    @property
    def keeps_points(self) -> bool:
        """Whether what was written stays: in the service."""
        return self.mode == "online"

    def check(self) -> None:
        """Raises UserError where the package is not installed."""
        if importlib.util.find_spec("wandb") is None:
            raise UserError("WandbTracker needs the package wandb; run pip install 'apertus_jax[wandb]'")

    def open(self, run: TrackedRun) -> None:
        """Begins or, online, goes on with the run of the service."""
        import wandb  # here: it takes a second, and only who writes to it needs it

        folder = run.folder / FOLDER
        if "://" in os.fspath(folder):
            if not self.keeps_points:
                raise UserError(f"WandbTracker.mode = 'offline' writes local files, not {folder}; take 'online'")
            folder = epath.Path(tempfile.mkdtemp(prefix=FOLDER))  # what is sent passes through local files
        if not self.keeps_points:
            shutil.rmtree(folder, ignore_errors=True)  # what it holds is written again below
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity or None,
            name=run.name,
            id=run.identifier,
            mode=self.mode,
            resume="allow" if self.keeps_points else None,
            dir=os.fspath(folder),
            config=dict(run.bindings),
            settings=wandb.Settings(console="off", silent=True, save_code=False, disable_git=True),
        )
        self._run.define_metric("*", step_metric=STEP)
        if self.keeps_points:
            _log.info("Weights & Biases: %s", self._run.url)
            return
        _log.info("Weights & Biases, offline: wandb sync %s", folder / "wandb" / "offline-run-*")
        for point in run.points:
            self.write(point.step, point.figures)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Logs figures; those of one step are one row of the service."""
        # The service drops what lies before its own count, such as an evaluation that a resume makes up for.
        self._run.log({**figures, STEP: step}, step=max(step, self._run.step))

    def close(self) -> None:
        """Waits until everything is written or sent."""
        self._run.finish()

"""Parent of a run: the weights that it started from, and what those started from, as the records say.

It stands in `run.json` of a run, in the summary of the model folder that the run leaves, and in that of an export, so
that a model says what it is based on wherever its folder goes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.run_folder import RunFolder

PARENT = "parent"
MODEL, HUGGINGFACE, RUN = "model folder", "Hugging Face folder", "run"
KINDS = (MODEL, HUGGINGFACE, RUN)
MOST_ANCESTORS = 100
SHOWN_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Parent:
    """Weights that a run started from.

    Attributes:
      kind: of the folder, one of `KINDS`.
      path: where it lay.
      digest: of its content; of a step, that of the step's commit marker.
      with_optimizer: the run goes on with the parent's optimizer state, step count and order of samples.
      step: how many steps the weights were trained in the run that made them; None where nothing says so.
      run: folder of the run that made them; "" where nothing says so.
      store, tokenizer: digests of what that run read; "" where nothing says so.
      changed: field of the architecture → value in the parent and value in the run, where they differ.
      parent: what that run started from itself; None for random weights, and where nothing says so.
    """

    kind: str
    path: str
    digest: str
    with_optimizer: bool = False
    step: int | None = None
    run: str = ""
    store: str = ""
    tokenizer: str = ""
    changed: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    parent: Parent | None = None

    @property
    def name(self) -> str:
        """The parent for people: the last part of its path, the step of a run, and the begin of its digest."""
        place = epath.Path(self.path)
        called = place.parent.name if self.kind == MODEL and self.run and place.name == "model" else place.name
        step = "" if self.step is None else f", step {self.step}"
        return f"{called}{step} ({self.kind}, digest {self.digest[:SHOWN_DIGITS]})"

    def lineage(self) -> Iterator[Parent]:
        """Yields this parent, its own, and so on, the oldest last."""
        here: Parent | None = self
        while here is not None:
            yield here
            here = here.parent

    def to_json(self) -> dict[str, Any]:
        """Returns the parent as JSON values."""
        return dataclasses.asdict(self)


def parent_from_json(value: Any, where: str) -> Parent | None:
    """Returns the parent that `to_json` wrote, None for None; `where` names the record in errors.

    Raises:
      UserError: it is damaged.
    """
    chain: list[Mapping[str, Any]] = []
    while value is not None:
        require_fields(value, {"kind": str, "path": str, "digest": str, "with_optimizer": bool}, f"{where}: parent")
        require_fields(value, {"run": str, "store": str, "tokenizer": str, "changed": dict}, f"{where}: parent")
        if value.get("step") is not None:
            require_fields(value, {"step": int}, f"{where}: parent")
        if value["kind"] not in KINDS or len(chain) == MOST_ANCESTORS:
            raise UserError(f"{where}: parent is none that this version writes; restore the file")
        chain.append(value)
        value = value.get("parent")
    parent = None
    fields = [field.name for field in dataclasses.fields(Parent) if field.name != "parent"]
    for each in reversed(chain):
        parent = Parent(**{name: each.get(name) for name in fields}, parent=parent)
    return parent


def recorded_parent(folder: epath.PathLike) -> Parent | None:
    """Returns what the model of a run, of a model folder or of an export is based on, as that folder records it.

    Raises:
      UserError: the folder is none of these, or its record is damaged.
    """
    if RunFolder(folder).is_run():
        return read_parent(folder)
    if not artifacts.is_complete(folder):
        raise UserError(f"{folder} is neither a run nor a finished model folder or export; give one of these")
    return parent_from_json(artifacts.read_any(folder)["summary"].get(PARENT), str(folder))


def read_parent(run: epath.PathLike) -> Parent | None:
    """Returns what a run started from, as its run.json says; None for random weights, and for a folder without one.

    Raises:
      UserError: the record is damaged.
    """
    record = RunFolder(run).record
    if not record.exists():
        return None
    return parent_from_json(read_json_object(record, allow_nan=True).get(PARENT), str(record))

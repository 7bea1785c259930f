"""Opened models: a model folder, the final model of a run, or any committed step of any run.

Every command that takes a model opens it here. A step needs neither the mesh nor the token store of its run, and the
run may go on meanwhile: retention leaves the step alone as long as it is open. Of the checkpoint only the parameters
are restored, after every file of it has been compared with its digest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
from etils import epath

from apertus_jax.checkpoints import leaves as leaf_tools
from apertus_jax.checkpoints import step_folders
from apertus_jax.checkpoints.checkpointer import Checkpointer
from apertus_jax.checkpoints.stored_parameters import copy_leaves
from apertus_jax.errors import UserError
from apertus_jax.model import model_folder
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.parameters import abstract_parameters, count_parameters
from apertus_jax.sharding import with_shardings
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.places import absolute_place
from apertus_jax.storage.reader_lease import ReaderLease
from apertus_jax.storage.run_folder import TOKENIZER_FOLDER, RunFolder
from apertus_jax.storage.run_parent import PARENT, Parent, parent_from_json, read_parent
from apertus_jax.storage.tensors.boxes import ReadBox
from apertus_jax.storage.tensors.reader import check_memory
from apertus_jax.storage.tokenizer_files import copy_tokenizer
from apertus_jax.validation import require_count

PARAMETERS = "params"
# The trainer's metadata in a checkpoint that a reader needs.
MODEL, TOKENIZER, STORE = "model", "tokenizer", "store"


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model whose records have been checked and whose parameters can be read.

    Attributes:
      place: the model folder, or the folder of the step.
      config: the architecture.
      identity: what decides the content, for the inputs of what is made with it: {"model": digest}, and the step.
      inputs: what it was made from, as far as it says: digests of store and tokenizer, the step.
      tokenizer: its tokenizer folder; None when it has none.
      name: what to call it in reports, with the step.
      summary: more that its writer said of a model folder.
      step: the step that was asked for; None for a model folder.
      parent: the weights that its training started from; None for random ones, and where nothing says so.
    """

    place: epath.Path
    config: ModelConfig
    identity: Mapping[str, Any]
    inputs: Mapping[str, Any]
    tokenizer: epath.Path | None
    name: str
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    step: int | None = None
    parent: Parent | None = None
    _lease: ReaderLease | None = None

    def load(self, shardings: Any = None) -> dict[str, Any]:
        """Returns the parameters, float32, in the model's own tree, every file compared with its digest.

        Args:
          shardings: the parameter tree with a `jax.sharding.Sharding` for each leaf; then every process reads the
            shards of its own devices and gets jax arrays. None: NumPy arrays, whole.

        Raises:
          UserError: damaged files, parameters that do not fit the configuration, or too little memory.
        """
        if self.step is None:
            return model_folder.load_model(self.place, shardings=shardings)[1]
        try:
            return self._restore(self.step, shardings)
        finally:
            if self._lease is not None:
                self._lease.release()

    @contextlib.contextmanager
    def boxes(self) -> Iterator[ReadBox]:
        """Opens the parameters to be read in boxes, float32, every file compared with its digest first.

        Those of a model folder stay in their files. Those of a step are copied once into a scratch file of their size,
        in the folder for temporary files (TMPDIR), chunk by chunk.

        Raises:
          UserError: damaged files, or parameters that do not fit the configuration; while reading, a value that is not
            finite.
          OSError: there is no room for the copy.
        """
        if self.step is None:
            artifacts.verify(self.place, model_folder.KIND)
            with model_folder.open_parameters(self.place, self.config) as read:
                yield read
            return
        with tempfile.TemporaryDirectory(prefix="apertus_step_") as scratch:
            try:
                self._copy(self.step, scratch)
            finally:
                if self._lease is not None:
                    self._lease.release()
            with model_folder.open_parameters(scratch, self.config) as read:
                yield read

    def _copy(self, step: int, scratch: str) -> None:
        """Writes the parameters of a step, verified, as the tensor file of a model folder."""
        saved, wanted = self._saved(step), {PARAMETERS: nn.unbox(abstract_parameters(self.config))}
        leaf_tools.check_compatible(saved, leaf_tools.describe(leaf_tools.named_leaves(wanted)), str(self.place), True)
        with Checkpointer(absolute_place(self.place.parent)) as reader:
            reader.require_valid(step)
        specs = model_folder.parameter_tensors(self.config)
        leaves = {spec.name: (PARAMETERS, *spec.name.split("/")) for spec in specs}
        copy_leaves(self.place / step_folders.STATE_FOLDER, leaves, specs, f"{scratch}/{model_folder.PARAMETERS_FILE}")

    def _saved(self, step: int) -> Mapping[str, Any]:
        """Returns the table of leaves of a step, which has no parameter that the architecture lacks."""
        leaves = step_folders.read_metadata(self.place.parent, step)["leaves"]
        _check_no_others(leaves, {PARAMETERS: nn.unbox(abstract_parameters(self.config))}, self.place)
        return leaves

    def _restore(self, step: int, shardings: Any) -> dict[str, Any]:
        self._saved(step)
        wanted = {PARAMETERS: nn.unbox(abstract_parameters(self.config))}
        if shardings is None:  # then they come into host memory, whatever mesh they were saved from
            check_memory(4 * count_parameters(wanted), f"the model of {self.place}")
        else:
            wanted = {PARAMETERS: with_shardings(wanted[PARAMETERS], shardings)}
        with Checkpointer(absolute_place(self.place.parent)) as reader:
            state, _, _ = reader.restore(wanted, step, partial=True)
        return state[PARAMETERS]


def _check_no_others(leaves: Mapping[str, Any], wanted: Mapping[str, Any], place: epath.Path) -> None:
    """Raises UserError for a stored parameter that the architecture lacks: it would be left out without a word."""
    stored = {name for name in leaves if name.startswith(f"{PARAMETERS}/")}
    if unknown := sorted(stored - leaf_tools.describe(leaf_tools.named_leaves(wanted)).keys()):
        raise UserError(
            f"{place} holds the parameter {unknown[0]}, which the architecture in its record lacks; use the version "
            "of apertus_jax that trained it"
        )


def open_model(folder: epath.PathLike, step: int | None = None) -> OpenedModel:
    """Returns the model of a model folder or of a run; its parameters are read by `load`.

    Args:
      folder: a model folder, or a run folder.
      step: a committed step of the run, which may still be training; None for the model of a run that has finished.

    Raises:
      UserError: no model, a run that has not finished, or a step that is missing, damaged or of another run; the
        committed steps are named.
    """
    require_count("step", step, at_least=1, optional=True)
    if step is not None:
        return _open_step(RunFolder(folder), step)
    root = model_folder.find_model(folder)
    manifest = artifacts.read_manifest(root, model_folder.KIND)
    return OpenedModel(
        place=root,
        config=model_folder.read_config(root),
        identity={"model": manifest["digest"]},
        inputs=manifest.get("inputs", {}),
        tokenizer=model_folder.tokenizer_folder(root),
        name=epath.Path(folder).name,
        summary=manifest["summary"],
        parent=parent_from_json(manifest["summary"].get(PARENT), str(root)),
    )


def _open_step(run: RunFolder, step: int) -> OpenedModel:
    """Returns the model of a committed step, which is not removed while it is open."""
    if not run.is_run():
        raise UserError(f"{run.path} is no run folder and has no step {step}; leave --step out, or give a run folder")
    place = run.model(step)
    lease = ReaderLease(place)
    manifest = step_folders.read_manifest(run.checkpoints, step)
    if isinstance(manifest, step_folders.Rejection):
        raise UserError(f"{place / manifest.file} {manifest.reason}; give another step, or restore the file")
    saved = step_folders.read_metadata(run.checkpoints, step)
    where = f"{place / step_folders.METADATA_FILE}"
    require_fields(saved, {"leaves": dict, "metadata": dict}, where)
    metadata = saved["metadata"]
    if MODEL not in metadata:
        raise UserError(
            f"{where} does not say what model it is of (an earlier version saved it); let the run go on and take a "
            "later step"
        )
    require_fields(metadata, {STORE: str, TOKENIZER: str}, where)
    _check_of_run(run, metadata, place)
    return OpenedModel(
        place=place,
        config=model_folder.config_from_json(metadata[MODEL], where),
        identity={"model": manifest["digest"], "step": step},
        inputs={STORE: metadata[STORE], TOKENIZER: metadata[TOKENIZER], "step": step},
        tokenizer=_tokenizer_of(run, metadata[TOKENIZER]),
        name=f"{run.path.name}, step {step}",
        step=step,
        parent=read_parent(run.path),
        _lease=lease,
    )


def _check_of_run(run: RunFolder, metadata: Mapping[str, Any], place: epath.Path) -> None:
    """Raises UserError when a step was saved by a run on other data: somebody put its folder here."""
    identity: Any = read_json_object(run.record, allow_nan=True).get("identity")
    require_fields(identity, {STORE: str, TOKENIZER: str}, f"{run.record}: identity")
    for name in (STORE, TOKENIZER):
        if metadata[name] != identity[name]:
            raise UserError(
                f"{place} is a step of another run: its {name} is {metadata[name]} and that of {run.record} "
                f"{identity[name]}; move it to its own run, or give another step"
            )


def _tokenizer_of(run: RunFolder, digest: str) -> epath.Path | None:
    """Returns the run's copy of its tokenizer, compared with its digests."""
    if not run.tokenizer.exists():
        return None
    inputs = artifacts.verify(run.tokenizer, TOKENIZER_FOLDER)["inputs"]
    if inputs.get(TOKENIZER) != digest:
        raise UserError(f"{run.tokenizer} is not the tokenizer {digest} of {run.record}; put the run's own back")
    return run.tokenizer


def keep_tokenizer(run: RunFolder, tokenizer: epath.PathLike, digest: str) -> None:
    """Copies the tokenizer of the training data into a run folder, once, so that its steps can be read without them."""
    inputs = {TOKENIZER: digest}
    if not artifacts.same_inputs(run.tokenizer, TOKENIZER_FOLDER, inputs):
        with artifacts.build(run.tokenizer, TOKENIZER_FOLDER, inputs) as build:
            copy_tokenizer(tokenizer, build.path)

"""Weights of before, opened and checked: a model folder, a Hugging Face Apertus folder, or a step of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from apertus_jax.checkpoints import open_model
from apertus_jax.checkpoints.huggingface_config import CONFIG_FILE
from apertus_jax.checkpoints.huggingface_repository import KIND as HUGGINGFACE_KIND
from apertus_jax.checkpoints.huggingface_repository import load_huggingface, open_repository
from apertus_jax.data import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.model.model_folder import KIND as MODEL_KIND
from apertus_jax.process.agreement import first_says
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json
from apertus_jax.storage.places import absolute_place
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.run_parent import HUGGINGFACE, MODEL, PARENT, RUN, Parent, parent_from_json
from apertus_jax.storage.tokenizer_files import TOKENIZER_FILE, read_tokenizer_file, read_vocabulary

SETTING = "TrainingConfig.init_from"
# What a run may do otherwise than its parent with the same weights, which is written down.
ON_RECORD = ("rope_theta", "rope_scaling", "max_position_embeddings", "doc_attention", "reset_positions")
# The published format does not say how documents were told apart, only our exports do.
NOT_PUBLISHED = ("doc_attention", "reset_positions")
# How the same numbers are computed, and what random weights are drawn from.
WITHOUT_MEANING = (
    ("compute_dtype", "attention_implementation", "remat_policy", "scan_unroll")
    + ("attention_tile", "attention_fused_backward")
    + ("init_std", "xielu_alpha_p", "xielu_alpha_n")
)  # fmt: skip
DIFFERENCES_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class StartFrom:
    """Request to start from weights of before.

    Attributes:
      path: a model folder, a Hugging Face Apertus folder, or the folder of a run; "" for random weights.
      step: a committed step of the run; None for its last one.
      with_optimizer: go on with the optimizer's state, the step count and the order of samples of that step.
    """

    path: str = ""
    step: int | None = None
    with_optimizer: bool = False

    def __post_init__(self) -> None:
        if not self.path and (self.step is not None or self.with_optimizer):
            name = "init_optimizer" if self.with_optimizer else "init_step"
            raise UserError(f"TrainingConfig.{name} is set and {SETTING} is not; give --init_from=FOLDER")

    @property
    def place(self) -> epath.Path:
        """The folder with its whole path."""
        return absolute_place(self.path)


@dataclasses.dataclass(frozen=True)
class ParentWeights:
    """Weights that have been found and can be read.

    Attributes:
      record: what is written down of them.
      config: their architecture.
      tokenizer: folder of their tokenizer; None when they have none.
      load: shardings of the parameter tree → the parameters, float32, read shard by shard.
    """

    record: Parent
    config: ModelConfig
    tokenizer: epath.Path | None
    load: Callable[[Any], dict[str, Any]]


def open_parent(asked: StartFrom) -> ParentWeights:
    """Returns the weights that a run is to start from; their files are complete, their values are not read yet.

    Raises:
      UserError: no such folder, another architecture, missing or cut files, a run without such a step.
    """
    with errors_name_the_setting(asked):
        place = asked.place
        if RunFolder(place).is_run():
            return _step_of_run(RunFolder(place), asked)
        if asked.step is not None or asked.with_optimizer:
            name = "init_optimizer" if asked.with_optimizer else "init_step"
            raise UserError(f"TrainingConfig.{name} is for the folder of a run, which this is not; leave it out")
        kind = artifacts.kind_of(place) if artifacts.is_complete(place) else HUGGINGFACE_KIND
        return _repository(place, asked.path) if kind == HUGGINGFACE_KIND else _model_folder(place)


@contextlib.contextmanager
def errors_name_the_setting(asked: StartFrom) -> Iterator[None]:
    """Puts the name and the value of the setting before errors of the block that a person can mend."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{SETTING} = {asked.path!r}: {error}") from error


def _step_of_run(run: RunFolder, asked: StartFrom) -> ParentWeights:
    step = asked.step
    if step is None:
        steps = first_says(run.committed_steps)
        if not steps:
            raise UserError("this run has no committed step yet; wait for its first, or give another folder")
        step = steps[-1]
    opened = open_model(run.path, step)
    if asked.with_optimizer and not run.mixture.exists():
        raise UserError(f"{run.mixture} is missing, without which nobody knows its samples; start from weights alone")
    record = Parent(
        kind=RUN,
        path=str(run.path),
        digest=opened.identity["model"],
        with_optimizer=asked.with_optimizer,
        step=step,
        run=str(run.path),
        store=opened.inputs["store"],
        tokenizer=opened.inputs["tokenizer"],
        parent=opened.parent,
    )
    return ParentWeights(record, opened.config, opened.tokenizer, opened.load)


def _model_folder(place: epath.Path) -> ParentWeights:
    artifacts.read_manifest(place, MODEL_KIND)
    opened = open_model(place)
    run = RunFolder(place.parent)
    is_of_run = run.is_run() and place.name == run.final_model.name
    step = opened.inputs.get("step")
    record = Parent(
        kind=MODEL,
        path=str(place),
        digest=opened.identity["model"],
        step=step if isinstance(step, int) else None,
        run=str(run.path) if is_of_run else "",
        store=str(opened.inputs.get("store", "")),
        tokenizer=str(opened.inputs.get("tokenizer", "")),
        parent=opened.parent,
    )
    return ParentWeights(record, opened.config, opened.tokenizer, opened.load)


def _repository(place: epath.Path, path: str) -> ParentWeights:
    # A name that is no folder is told how to fetch it; made absolute it would look like one.
    with open_repository(place if place.exists() else path) as (config, _):
        pass
    digest, summary = first_says(lambda: _content_of(place))
    has_tokenizer = (place / TOKENIZER_FILE).exists()
    record = Parent(
        kind=HUGGINGFACE,
        path=str(place),
        digest=digest,
        tokenizer=_tokenizer_digest(place) if has_tokenizer else "",
        parent=parent_from_json(summary.get(PARENT), str(place)),
    )
    load = functools.partial(_load_repository, place)
    return ParentWeights(record, config, place if has_tokenizer else None, load)


def _load_repository(place: epath.Path, shardings: Any) -> dict[str, Any]:
    return load_huggingface(place, shardings=shardings)[1]


def _content_of(place: epath.Path) -> tuple[str, dict[str, Any]]:
    """Returns the digest of a repository, every file of it read, and what its writer said of it where that was us."""
    if artifacts.is_complete(place):
        manifest = artifacts.verify(place, HUGGINGFACE_KIND)
        return manifest["digest"], manifest["summary"]
    names = [CONFIG_FILE, *sorted(path.name for path in place.iterdir() if ".safetensors" in path.name)]
    return artifacts.digest_json({name: artifacts.digest_file(place / name) for name in names}), {}


def _tokenizer_digest(folder: epath.Path) -> str:
    path = folder / TOKENIZER_FILE
    return artifacts.digest_json(parse_json(read_tokenizer_file(path), str(path)))


def check_architecture(weights: ParentWeights, model: ModelConfig) -> dict[str, list[str]]:
    """Returns what the run does otherwise than its parent with the same weights: field → value there and here.

    Raises:
      UserError: the weights are of another architecture; the fields are named.
    """
    differences = {
        field.name: [repr(getattr(weights.config, field.name)), repr(getattr(model, field.name))]
        for field in dataclasses.fields(ModelConfig)
        if field.name not in WITHOUT_MEANING and getattr(weights.config, field.name) != getattr(model, field.name)
    }
    if other := [name for name in differences if name not in ON_RECORD]:
        shown = [f"{name} = {differences[name][0]}, ModelConfig has {differences[name][1]}" for name in other]
        more = f"; and {len(other) - DIFFERENCES_SHOWN} more" if len(other) > DIFFERENCES_SHOWN else ""
        raise UserError(
            f"these weights have {'; '.join(shown[:DIFFERENCES_SHOWN])}{more}; give ModelConfig the architecture of "
            "the weights, or start from others"
        )
    unknown = NOT_PUBLISHED if weights.record.kind == HUGGINGFACE else ()
    return {name: values for name, values in differences.items() if name not in unknown}


def check_tokenizer_of(weights: ParentWeights, store: TokenStore) -> None:
    """Checks that every id of the store stands for the token that it stood for when the weights were trained.

    Raises:
      UserError: it does not; the first such id is named.
    """
    if weights.tokenizer is None or weights.record.tokenizer == store.tokenizer_digest:
        return
    theirs, ours = read_vocabulary(weights.tokenizer), read_vocabulary(store.tokenizer_folder)
    their_tokens = {number: token for token, number in theirs.items()}
    for token, number in sorted(ours.items(), key=lambda entry: entry[1]):
        if their_tokens.get(number) != token:
            raise UserError(
                f"these weights were trained with another vocabulary: id {number} is {their_tokens.get(number)!r:.60} "
                f"there and {token!r:.60} in {store.folder}; tokenize the corpus with {weights.tokenizer}"
            )

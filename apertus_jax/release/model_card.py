"""Model card: the README.md of an exported model, from its architecture and the record of its run.

What the record does not say stands as a line that says so, with what fills it: a licence is never assumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.run_parent import Parent
from apertus_jax.terminal.terminal_text import printable
from apertus_jax.validation import require_number

CARD_FILE = "README.md"
LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
ADDRESS = re.compile(r"[^\s<>()\[\]`|]+")
REFERENCE = re.compile(r"@(?:[\w.]+/)*([\w.]+)(?:\(\))?")
LONGEST_VALUE = 240
ARCHITECTURE = (
    ("layers", "num_layers"),
    ("hidden size", "hidden_size"),
    ("feed-forward width", "intermediate_size"),
    ("query heads", "num_heads"),
    ("key and value heads", "num_kv_heads"),
    ("head size", "head_dim"),
    ("vocabulary", "vocab_size"),
    ("positions", "max_position_embeddings"),
    ("rotary base", "rope_theta"),
    ("attention across documents", "doc_attention"),
)
# What of a run's bindings decides what the model has learned.
SETTINGS = (
    ("steps", "RunSchedule.total_steps"),
    ("samples per step at first", "BatchSchedule.initial"),
    ("tokens per sample", "TrainingConfig.sequence_length"),
    ("loss masks", "Objective.loss_masks"),
    ("optimizer", "pretrain.optimizer"),
    ("learning rate", "RunSchedule.learning_rate"),
    ("seed", "TrainingConfig.seed"),
)
NO_LICENSE = (
    "**No licence has been chosen.** Until the owner of this model chooses one, others have no permission to use it. "
    "`apertus export --gin.export.license=apache-2.0` writes it here and above."
)
NO_SUMMARY = (
    "**No summary of the training content is linked.** `apertus data-summary` writes one, and "
    "`apertus export --gin.export.data_summary=ADDRESS` links it here."
)
NO_RECORD = "No record of a run lay beside this model, so how it was trained is not said here."
HOW_TO_LOAD = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER_OR_NAME")  # transformers 4.56 or later
tokenizer = AutoTokenizer.from_pretrained("FOLDER_OR_NAME")
inputs = tokenizer("In the beginning", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
```

In JAX: `apertus import --input=FOLDER --output=runs/imported`, then `apertus generate --input=runs/imported`."""


def model_card(
    config: ModelConfig,
    num_parameters: int,
    *,
    dtype: str = "float32",
    chat: bool = False,
    run: epath.PathLike | None = None,
    step: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    license: str = "",
    data_summary: str = "",
    parent: Parent | None = None,
) -> str:
    """Returns the Markdown of a card; the same model and run give the same bytes, wherever they lie.

    Args:
      config: the architecture.
      num_parameters: how many parameters it has.
      dtype: the type of the stored weights.
      chat: whether it answers in turns.
      run: folder of the run that trained it; None when there is none.
      step: the step of the run that this is; None for the model of its end.
      inputs: digests that identify model, token store and tokenizer.
      license: an identifier such as "apache-2.0"; empty when none has been chosen.
      data_summary: where the public summary of the training content is published; empty when nowhere.
      parent: the weights that its training started from, and what those started from; None for random ones.

    Raises:
      UserError: a licence or an address that cannot stand in a card, or a record of the run that is damaged.
    """
    _check(license, data_summary)
    front = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [apertus, apertus_jax]"]
    front.append(f"license: {license}" if license else "# license: none has been chosen")
    kind = "answers in turns" if chat else "continues text; it was not tuned to follow instructions"
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# Apertus, {num_parameters:,} parameters",
        f"A language model of the Apertus architecture, written by apertus_jax. It {kind}.",
        f"## Licence\n\n{f'`{license}`' if license else NO_LICENSE}",
        f"## How to load it\n\n{HOW_TO_LOAD}",
        f"## Architecture\n\n{_table(_architecture(config, num_parameters, dtype))}",
        f"## Training\n\n{_table(_training(RunFolder(run), step)) if run is not None else NO_RECORD}",
        f"## Training data\n\n{f'[Public summary of its content]({data_summary})' if data_summary else NO_SUMMARY}",
    ]
    if parent is not None:
        parts.insert(-1, f"## Based on\n\n{_table(_lineage(parent))}")
    if inputs:
        parts.append(f"## Digests\n\n{_table((name, f'`{_cell(value)}`') for name, value in sorted(inputs.items()))}")
    return "\n\n".join(parts) + "\n"


def _check(license: str, data_summary: str) -> None:
    if license and not LICENSE.fullmatch(license):
        raise UserError(f"export.license={license!r:.80} is no identifier of a licence; give one such as apache-2.0")
    if data_summary and not ADDRESS.fullmatch(data_summary):
        raise UserError(
            f"export.data_summary={data_summary!r:.120} cannot be a link; give the address where it is published, "
            "without spaces and brackets"
        )


def _architecture(config: ModelConfig, num_parameters: int, dtype: str) -> Iterator[tuple[str, str]]:
    yield "parameters", f"{num_parameters:,}, stored as {dtype}"
    for label, field in ARCHITECTURE:
        yield label, _cell(getattr(config, field))


def _training(run: RunFolder, step: int | None) -> Iterator[tuple[str, str]]:
    """Yields what the run recorded, and of the model of its end what it had read."""
    record = read_json_object(run.record, allow_nan=True)
    require_fields(record, {"config": dict, "code_version": str}, str(run.record))
    bindings = record["config"]
    yield "code", _cell(f"apertus_jax {record['code_version']}")
    for label, name in SETTINGS:
        if name in bindings:
            yield label, f"`{_cell(_with_parameters(str(bindings[name]), bindings))}`"
    if changes := len(record.get("history") or []):
        yield "changed on the way", f"{changes} settings; `run.json` of the run says when"
    if step is not None:
        yield "this model", f"as it was after step {step}"
    elif run.finished.exists():
        finished = read_json_object(run.finished, allow_nan=True)
        require_fields(finished, {"tokens": int, "languages": int}, str(run.finished))
        share: Any = finished.get("non_english_share")
        require_number(f"{run.finished}: non_english_share", share, at_least=0, at_most=1)
        yield "tokens read", f"{finished['tokens']:,}"
        yield "languages", f"{finished['languages']}, {100 * share:.0f} % not English"


def _lineage(parent: Parent) -> Iterator[tuple[str, str]]:
    """Yields what a model started from, and what that started from, as far as the records say."""
    for each in parent.lineage():
        yield "weights and optimizer of" if each.with_optimizer else "weights of", _cell(each.name)


def _with_parameters(value: str, bindings: Mapping[str, Any]) -> str:
    """Returns a binding's value with the parameters of what it refers to: `@goldfish()` → `goldfish(k=50)`."""

    def spelled(found: re.Match) -> str:
        name = found[1].rpartition(".")[2]
        own = {key.rpartition(".")[2]: bindings[key] for key in sorted(bindings) if key.startswith(f"{name}.")}
        return f"{name}({', '.join(f'{key}={each}' for key, each in own.items() if each != 'None')})"

    return REFERENCE.sub(spelled, value)


def _cell(value: Any) -> str:
    """Returns a value as it can stand in a table's cell between backticks."""
    text = printable(value).replace("`", "'").replace("|", "¦")
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _table(rows: Iterator[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows)])

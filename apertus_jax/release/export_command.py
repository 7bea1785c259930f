"""The `export` command: a model to a Hugging Face repository."""

from __future__ import annotations

from etils import epath

from apertus_jax.checkpoints import open_model
from apertus_jax.model.parameters import abstract_parameters, count_parameters
from apertus_jax.release.huggingface import KIND, check_settings, write_repository
from apertus_jax.release.model_card import model_card
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of_arguments
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.tensors.boxes import TRANSPOSED_PIECE_BYTES


def export(
    model: epath.PathLike,
    output: epath.PathLike,
    *,
    dtype: str = "float32",
    shard_bytes: float = 5e9,
    chat: bool = False,
    step: int | None = None,
    license: str = "",
    data_summary: str = "",
) -> None:
    """Converts a model folder, the model of a run or a committed step of it to a Hugging Face repository: `export`.

    The weights of a model folder go from file to file in pieces: the model need not fit into memory.

    Idempotent: returns immediately if the output is complete, from the same model and settings.

    Args:
      model: a model folder or a run.
      output: the folder of the repository, with a model card, README.md.
      dtype: "float32" or "bfloat16", the type of the stored weights.
      shard_bytes: largest number of tensor bytes in one file.
      chat: a chat model: it stops at the end of the assistant's turn, samples, and has its chat template.
      step: a committed step of the run.
      license: an identifier for the model card, such as apache-2.0; while empty the card says that none was chosen.
      data_summary: the address where the public summary of the training content is published, for the card.

    Raises:
      UserError: see `open_model`, `model_card` and `write_repository`.
    """
    arguments = dict(locals())
    opened = open_model(model, step)
    # Said only when given: what was exported before cards is still recognized.
    unsaid = [name for name in ("license", "data_summary") if not arguments[name]]
    settings = identity_of_arguments(export, arguments, "model", "step", "output", *unsaid)
    inputs = {**opened.identity, **settings}
    if artifacts.already_built(output, KIND, inputs):
        return
    run = RunFolder(model) if step is not None else RunFolder(opened.place.parent)
    card = model_card(
        opened.config,
        count_parameters(abstract_parameters(opened.config)),
        dtype=dtype,
        chat=chat,
        run=run.path if step is not None or (run.is_run() and opened.place == run.final_model) else None,
        step=step,
        inputs={**opened.inputs, **opened.identity},
        license=license,
        data_summary=data_summary,
        parent=opened.parent,
    )
    check_settings(opened.config, dtype)
    with opened.boxes() as read:
        write_repository(
            output,
            opened.config,
            read,
            tokenizer=opened.tokenizer,
            dtype=dtype,
            shard_bytes=shard_bytes,
            chat=chat,
            inputs=inputs,
            card=card,
            parent=opened.parent,
            piece_bytes=TRANSPOSED_PIECE_BYTES,
        )

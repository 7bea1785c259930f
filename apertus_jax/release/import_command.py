"""The `import` command: a Hugging Face repository to a model folder."""

from __future__ import annotations

from etils import epath

from apertus_jax.checkpoints.huggingface_config import CONFIG_FILE
from apertus_jax.checkpoints.huggingface_repository import open_repository
from apertus_jax.model.model_folder import write_model
from apertus_jax.storage import artifacts
from apertus_jax.storage.run_parent import PARENT, recorded_parent
from apertus_jax.storage.tensors.boxes import TRANSPOSED_PIECE_BYTES
from apertus_jax.storage.tokenizer_files import TOKENIZER_FILE


def import_huggingface(repository: epath.PathLike, output: epath.PathLike) -> None:
    """Converts a Hugging Face Apertus repository to a model folder: the `import` command.

    The weights go from file to file in pieces: the model need not fit into memory.

    Raises:
      UserError: see `open_repository` and `write_model`.
    """
    root = epath.Path(repository)
    tokenizer = root if (root / TOKENIZER_FILE).exists() else None
    parent = recorded_parent(root) if artifacts.is_complete(root) else None
    with open_repository(root) as (config, read):
        config_digest = artifacts.digest_file(root / CONFIG_FILE)
        write_model(
            output,
            config,
            read,
            tokenizer,
            inputs={"huggingface_config": config_digest},
            summary=None if parent is None else {PARENT: parent.to_json()},
            piece_bytes=TRANSPOSED_PIECE_BYTES,
        )

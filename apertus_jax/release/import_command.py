"""The `import` command: a Hugging Face repository to a model folder."""

from __future__ import annotations

from etils import epath

from apertus_jax.model.model_folder import save_model
from apertus_jax.release.huggingface import load_huggingface
from apertus_jax.release.huggingface_config import CONFIG_FILE
from apertus_jax.storage import artifacts
from apertus_jax.storage.tokenizer_files import TOKENIZER_FILE


def import_huggingface(repository: epath.PathLike, output: epath.PathLike) -> None:
    """Converts a Hugging Face Apertus repository to a model folder: the `import` command.

    Raises:
      UserError: see `load_huggingface` and `save_model`.
    """
    root = epath.Path(repository)
    config, params = load_huggingface(root)
    tokenizer = root if (root / TOKENIZER_FILE).exists() else None
    config_digest = artifacts.digest_file(root / CONFIG_FILE)
    save_model(output, config, params, tokenizer, inputs={"huggingface_config": config_digest})

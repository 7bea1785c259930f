"""XLM-R embeddings: the mean of the last hidden states over a chunk's tokens (arXiv 2502.10361).

Every chunk goes through the network alone and without padding. Batches would be faster on an accelerator, but the last
bits of a matrix product depend on what else is in the batch, and a score may not.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.validation import fields_by_annotation


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class TransformerEmbedding:
    """Options of the transformer embedder.

    Attributes:
      weights: a local folder with model and tokenizer as transformers saves them, for instance of xlm-roberta-base.
      max_tokens: longest chunk, special tokens included.
      device: where torch computes: cpu, cuda, cuda:1.
    """

    weights: str = ""
    max_tokens: int = 512
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
          UserError: no folder is named or a chunk could hold no text.
        """
        if not self.weights:
            raise UserError("TransformerEmbedding.weights is empty; give a local folder with model and tokenizer files")
        if self.max_tokens < 8:
            raise UserError(f"TransformerEmbedding.max_tokens {self.max_tokens} must be at least 8")

    def build(self) -> TransformerEmbedder:
        """Loads tokenizer and model, from the folder only.

        Raises:
          UserError: torch or transformers are not installed, or the folder holds no usable model.
        """
        try:
            import safetensors
            import torch
            import transformers
        except ImportError as error:
            raise UserError(
                f"TransformerEmbedding needs the package {error.name}; install it, or use HashedNgramEmbedding"
            ) from error
        folder = epath.Path(self.weights)
        if not folder.is_dir():
            raise UserError(f"TransformerEmbedding.weights {folder} is not a folder; give one with model and tokenizer")
        try:
            # A folder may hold Python and pickles: neither is run, whatever its config.json asks for.
            safe = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **safe)
            model = transformers.AutoModel.from_pretrained(
                str(folder), use_safetensors=True, dtype=torch.float32, **safe
            )
            model = model.to(self.device).eval()
        except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{folder} cannot be loaded as a model with tokenizer ({reason}); fetch it again"
            ) from error
        if not tokenizer.is_fast:
            raise UserError(f"{folder} holds no tokenizer.json, which cutting long texts into chunks needs; add it")
        return TransformerEmbedder(self, tokenizer, model)


class TransformerEmbedder:
    """See the module."""

    def __init__(self, options: TransformerEmbedding, tokenizer: Any, model: Any):
        self._options = options
        self._tokenizer = tokenizer
        self._model = model

    @property
    def dimensions(self) -> int:
        """The hidden size of the model."""
        return int(self._model.config.hidden_size)

    def identity(self) -> Mapping[str, Any]:
        """Returns architecture, chunk length and the digest of every file of the weights folder; never its path."""
        return {
            "implementation": "transformer",
            "model_type": self._model.config.model_type,
            "dimensions": self.dimensions,
            "max_tokens": self._options.max_tokens,
            "weights": self._weights_digest,
        }

    @functools.cached_property
    def _weights_digest(self) -> str:
        folder = epath.Path(self._options.weights)
        return artifacts.digest_json(
            {name: artifacts.digest_file(folder / name) for name in artifacts.list_files(folder)}
        )

    def chunks(self, text: str) -> Sequence[Sequence[int]]:
        """Returns the token ids of each chunk, special tokens around every one."""
        encoded = self._tokenizer(
            text, truncation=True, max_length=self._options.max_tokens, stride=0, return_overflowing_tokens=True
        )
        return encoded["input_ids"]

    def embed(self, chunks: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns float16 [number of chunks, D]."""
        import torch

        rows = np.zeros((len(chunks), self.dimensions), np.float16)
        with torch.inference_mode():
            for row, ids in zip(rows, chunks, strict=True):
                tokens = torch.tensor([list(ids)], device=self._options.device)
                hidden = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
                row[:] = hidden[0].mean(dim=0).float().cpu().numpy().astype(np.float16)
        return rows

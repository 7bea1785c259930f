"""One tiny random model with its own tokenizer, as a model folder and as its Hugging Face export."""

import json

from apertus_jax.data.tokenizer.bpe import train_bpe
from apertus_jax.data.tokenizer.special_tokens import COMPACT_BLOCK
from apertus_jax.evaluation.harness.task_loading import DEMO_FOLDER
from apertus_jax.model import ModelConfig
from apertus_jax.model.model_folder import save_model
from tests import model_parameters

CONTEXT = 64
VOCABULARY = 480


def demo_texts() -> list[str]:
    """Every text of the demonstration tasks."""
    lines = [line for name in ("questions", "texts") for line in (DEMO_FOLDER / f"{name}.jsonl").open(encoding="utf-8")]
    rows = [json.loads(line) for line in lines]
    return [" ".join([row.get("question", ""), *row.get("choices", []), row.get("text", "")]) for row in rows]


def tiny_config(vocab_size: int = VOCABULARY) -> ModelConfig:
    """A model small enough to compile in a second, with a context that some requests exceed."""
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=48,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT,
    )


def random_parameters(config: ModelConfig, seed: int = 0) -> dict:
    """Parameters with clear preferences, so that greedy choices are not decided by rounding."""
    params = model_parameters.random_parameters(config, seed, spread=0.25)
    # Nor does a model that read documents ever say a reserved token.
    params["lm_head"]["kernel"][:, :COMPACT_BLOCK] *= 0.05
    return params


def write_model(root) -> None:
    """Writes `root`/tokenizer and `root`/model."""
    train_bpe(demo_texts(), VOCABULARY).save(root / "tokenizer")
    config = tiny_config()
    save_model(root / "model", config, random_parameters(config), root / "tokenizer")

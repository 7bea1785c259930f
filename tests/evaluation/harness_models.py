"""One tiny random model with its own tokenizer, as a model folder and as its Hugging Face export."""

import json

import numpy as np

from apertus_jax.data.tokenizer import train_bpe
from apertus_jax.data.tokenizer_layout import COMPACT_BLOCK
from apertus_jax.evaluation.harness.task_loading import DEMO_FOLDER
from apertus_jax.model import ModelConfig
from apertus_jax.model_folder import parameter_shapes, save_model, unflatten

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
    random = np.random.default_rng(seed)
    flat = {}
    for path, shape in parameter_shapes(config).items():
        noise = random.standard_normal(shape).astype(np.float32)
        centre, spread = {"scale": (1.0, 0.1), "alpha_p": (0.2, 0.2), "alpha_n": (-1.0, 0.2)}.get(
            path.rsplit("/", 1)[1], (0.0, 0.25)
        )
        flat[path] = (centre + spread * noise).astype(np.float32)
    # Nor does a model that read documents ever say a reserved token.
    flat["lm_head/kernel"][:, :COMPACT_BLOCK] *= 0.05
    return unflatten(flat)


def write_model(root) -> None:
    """Writes `root`/tokenizer and `root`/model."""
    train_bpe(demo_texts(), VOCABULARY).save(root / "tokenizer")
    config = tiny_config()
    save_model(root / "model", config, random_parameters(config), root / "tokenizer")

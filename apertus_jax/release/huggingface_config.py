"""`config.json` and `generation_config.json` of a Hugging Face Apertus repository, to and from `ModelConfig`.

Two spellings of rotary positions exist: `rope_theta` beside `rope_scaling` (transformers 4) and both folded into
`rope_parameters` (transformers 5). Both are written, with the same values, and both are read (evaluation spec §8.2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig, RopeScaling

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
MODEL_TYPE = "apertus"
# What transformers assumes when a file says nothing about rotary positions (ApertusConfig of 4.56 and 5.23).
ASSUMED_THETA = 12_000_000.0
# Settings of other architectures that share the format: Apertus has exactly these values.
FIXED_VALUES = {
    "hidden_act": "xielu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "qk_norm": True,
    "post_norm": False,
    "tie_word_embeddings": False,
}
SIZE_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "max_position_embeddings": "max_position_embeddings",
}
# Fields that the published format has no key for; other readers keep the block and ignore it.
OWN_BLOCK = "apertus_jax"
OWN_FIELDS = (
    "doc_attention",
    "reset_positions",
    "xielu_alpha_p",
    "xielu_alpha_n",
    "xielu_beta",
    "xielu_epsilon",
    "init_std",
)
CHAT_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.9}


def to_huggingface(config: ModelConfig, dtype: str, special_ids: Mapping[str, int]) -> dict[str, Any]:
    """Returns the content of config.json.

    Args:
      config: the architecture.
      dtype: "float32" or "bfloat16", the type of the stored weights.
      special_ids: values of bos_token_id, eos_token_id and pad_token_id (absent ones are null).
    """
    scaling = rope_to_huggingface(config.rope_scaling)
    return {
        "architectures": ["ApertusForCausalLM"],
        "model_type": MODEL_TYPE,
        "dtype": dtype,
        **{key: getattr(config, field) for key, field in SIZE_KEYS.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_epsilon,
        "initializer_range": config.init_std,
        "rope_theta": float(config.rope_theta),
        "rope_scaling": scaling,
        "rope_parameters": {**scaling, "rope_theta": float(config.rope_theta)},
        **FIXED_VALUES,
        "use_cache": True,
        **{key: special_ids.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
        OWN_BLOCK: {field: getattr(config, field) for field in OWN_FIELDS},
    }


def rope_to_huggingface(scaling: RopeScaling | None) -> dict[str, Any]:
    """Returns `rope_scaling`; no scaling is spelled as type "default", because null means llama3 to transformers 5."""
    if scaling is None:
        return {"rope_type": "default"}
    return {
        "rope_type": "llama3",
        "factor": float(scaling.factor),
        "low_freq_factor": float(scaling.low_frequency_factor),
        "high_freq_factor": float(scaling.high_frequency_factor),
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }


def generation_config(special_ids: Mapping[str, int], chat: bool) -> dict[str, Any]:
    """Returns generation_config.json: greedy for a base model, the model card's sampling for a chat model."""
    return {**special_ids, **(CHAT_SAMPLING if chat else {})}


def read_huggingface_config(folder: epath.PathLike) -> tuple[ModelConfig, dict[str, Any]]:
    """Returns the configuration of a Hugging Face repository, and the content of its config.json.

    Raises:
      UserError: no config.json, another architecture, a missing size, or rotary settings we cannot compute.
    """
    path = epath.Path(folder) / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder of a Hugging Face Apertus model")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(values, dict) or values.get("model_type") != MODEL_TYPE:
        found = values.get("model_type") if isinstance(values, dict) else None
        raise UserError(f"{path} has model_type {found!r}; only {MODEL_TYPE!r} can be read")
    for key, fixed in FIXED_VALUES.items():
        if key in values and values[key] != fixed:
            raise UserError(f"{path} has {key}={values[key]!r}; Apertus has {fixed!r}")
    return from_huggingface(values, str(path)), values


def from_huggingface(values: Mapping[str, Any], source: str) -> ModelConfig:
    """Returns the ModelConfig of the content of a config.json; `source` names it in errors.

    Raises:
      UserError: a missing or wrong value.
    """
    missing = sorted(key for key in SIZE_KEYS if not isinstance(values.get(key), int))
    if missing:
        raise UserError(f"{source} gives no whole number for {missing[0]}; fetch it again")
    theta, scaling = read_rope(values, source)
    own = values.get(OWN_BLOCK) or {}
    unknown = sorted(set(own) - set(OWN_FIELDS))
    if unknown:
        raise UserError(f"{source} holds the unknown field {OWN_BLOCK}.{unknown[0]}; it was written by another version")
    return ModelConfig(
        **{field: values[key] for key, field in SIZE_KEYS.items()},
        # transformers reads a missing or null number of key/value heads as one for each query head.
        num_kv_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
        head_dim=values.get("head_dim"),
        norm_epsilon=values.get("rms_norm_eps", 1e-5),
        rope_theta=theta,
        rope_scaling=scaling,
        **own,
    )


def read_rope(values: Mapping[str, Any], source: str) -> tuple[float, RopeScaling | None]:
    """Returns (theta, scaling) from either spelling.

    Raises:
      UserError: the spellings disagree, theta stands without scaling, or the type is neither llama3 nor default.
    """
    folded, separate = values.get("rope_parameters"), values.get("rope_scaling")
    readings = [_read_rope_block(block, values, source) for block in (folded, separate) if block]
    if len(readings) == 2 and readings[0] != readings[1]:
        raise UserError(f"{source} gives different rope_parameters and rope_scaling; remove the one that is wrong")
    if readings:
        return readings[0]
    if "rope_theta" not in values:
        return ASSUMED_THETA, RopeScaling()
    if "rope_scaling" not in values:
        # transformers 4 would take this theta with llama3 scaling, 5 would ignore it: no reading is safe.
        raise UserError(f"{source} gives rope_theta without rope_scaling; add rope_scaling, or null for none")
    return float(values["rope_theta"]), None


def _read_rope_block(block: Any, values: Mapping[str, Any], source: str) -> tuple[float, RopeScaling | None]:
    if not isinstance(block, Mapping):
        raise UserError(f"{source} gives rotary settings {block!r} where a JSON object is expected")
    theta = float(block.get("rope_theta", values.get("rope_theta", ASSUMED_THETA)))
    kind = block.get("rope_type", block.get("type", "default"))
    if block.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{source} rotates only part of each head (partial_rotary_factor); Apertus rotates all of it")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UserError(f"{source} has rope_type {kind!r}; only 'llama3' and 'default' can be computed")
    names = ("factor", "low_freq_factor", "high_freq_factor")
    missing = [name for name in names if name not in block]
    if missing:
        raise UserError(f"{source} gives llama3 rotary settings without {missing[0]}; fetch it again")
    original = block.get("original_max_position_embeddings", values["max_position_embeddings"])
    return theta, RopeScaling(*(float(block[name]) for name in names), int(original))

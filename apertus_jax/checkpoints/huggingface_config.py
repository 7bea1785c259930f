"""Hugging Face `config.json` and `generation_config.json`, to and from `ModelConfig`.

Two spellings of rotary positions exist: `rope_theta` beside `rope_scaling` (transformers 4) and both folded into
`rope_parameters` (transformers 5). Both are written, with the same values, and both are read
(docs/reference/evaluation_and_release.md §8.2).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig, RopeScaling
from apertus_jax.model.tensor_table import FIXED_VALUES, MODEL_TYPE, published_format
from apertus_jax.storage.json_reader import read_json

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
# What transformers assumes when a file says nothing about rotary positions (ApertusConfig of 4.56 and 5.23).
ASSUMED_THETA = 12_000_000.0
SIZE_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "max_position_embeddings": "max_position_embeddings",
}
OTHER_NAMES = {field: key for key, field in SIZE_KEYS.items()} | {
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_epsilon": "rms_norm_eps",
    "rope_theta": "rope_theta",
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
REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
CHAT_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.9}


def to_huggingface(config: ModelConfig, dtype: str, special_ids: Mapping[str, int]) -> dict[str, Any]:
    """Returns the content of config.json.

    Args:
      config: the architecture.
      dtype: "float32" or "bfloat16", the type of the stored weights.
      special_ids: values of bos_token_id, eos_token_id and pad_token_id (absent ones are null).
    """
    scaling, form = rope_to_huggingface(config.rope_scaling), published_format(config)
    return {
        "architectures": [form.architecture],
        "model_type": form.model_type,
        "dtype": dtype,
        **{key: getattr(config, field) for key, field in SIZE_KEYS.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_epsilon,
        "initializer_range": config.init_std,
        "rope_theta": float(config.rope_theta),
        "rope_scaling": scaling,
        "rope_parameters": {**scaling, "rope_theta": float(config.rope_theta)},
        **form.fixed_values,
        "use_cache": True,
        **{key: special_ids.get(key) for key in SPECIAL_IDS},
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
      UserError: no config.json (a repository's name is told how to fetch it), another architecture, a missing size, or
        rotary settings we cannot compute.
    """
    path = epath.Path(folder) / CONFIG_FILE
    if REPOSITORY_NAME.fullmatch(os.fspath(folder)) and not epath.Path(folder).exists():
        name = os.fspath(folder).rpartition("/")[2]
        raise UserError(
            f"there is no folder {folder} here; if that is the name of a repository, fetch it first, with "
            f"`hf download {folder} --local-dir {name}` of huggingface_hub, and give the folder {name}"
        )
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder of a Hugging Face Apertus model")
    values = read_json(path)
    if not isinstance(values, dict) or values.get("model_type") != MODEL_TYPE:
        found = values.get("model_type") if isinstance(values, dict) else None
        raise UserError(f"{path} has model_type {found!r}; only {MODEL_TYPE!r} can be read")
    for key, fixed in FIXED_VALUES.items():
        if key in values and (values[key] != fixed or isinstance(values[key], bool) != isinstance(fixed, bool)):
            raise UserError(f"{path} has {key}={values[key]!r}; Apertus has {fixed!r}")
    return from_huggingface(values, str(path)), values


def from_huggingface(values: Mapping[str, Any], source: str) -> ModelConfig:
    """Returns the ModelConfig of the content of a config.json; `source` names it in errors.

    Raises:
      UserError: a missing or wrong value.
    """
    missing = sorted(key for key in SIZE_KEYS if type(values.get(key)) is not int)
    if missing:
        found = f"{missing[0]}={values[missing[0]]!r:.80}" if missing[0] in values else f"no {missing[0]}"
        raise UserError(f"{source} gives {found} where a whole number is expected; fetch it again")
    _check_unused(values, source)
    theta, scaling = read_rope(values, source)
    own = values.get(OWN_BLOCK)
    if own is not None and not isinstance(own, Mapping):
        raise UserError(f"{source} gives {OWN_BLOCK}={own!r:.80} where a JSON object is expected; remove it")
    unknown = sorted(set(own or {}) - set(OWN_FIELDS))
    if unknown:
        raise UserError(f"{source} holds the unknown field {OWN_BLOCK}.{unknown[0]}; it was written by another version")
    kv_heads = values.get("num_key_value_heads")
    try:
        return ModelConfig(
            **{field: values[key] for key, field in SIZE_KEYS.items()},
            # transformers reads a missing or null number of key/value heads as one for each query head.
            num_kv_heads=values["num_attention_heads"] if kv_heads is None else kv_heads,
            head_dim=values.get("head_dim"),
            norm_epsilon=values.get("rms_norm_eps", 1e-5),
            rope_theta=theta,
            rope_scaling=scaling,
            **(own or {}),
        )
    except UserError as error:
        raise UserError(f"{source}: {_in_its_own_words(str(error))}; correct it, or fetch it again") from error


def _check_unused(values: Mapping[str, Any], source: str) -> None:
    """Checks values that say nothing about the weights: whoever wrote nonsense there may have written more."""
    deviation = values.get("initializer_range")
    if deviation is not None and not 0 <= _number(deviation, "initializer_range", source) < math.inf:
        raise UserError(f"{source} gives initializer_range={deviation!r:.80}, which is no deviation; fetch it again")
    for key in ("dtype", "torch_dtype"):
        if not isinstance(values.get(key), str | None):
            raise UserError(f"{source} gives {key}={values[key]!r:.80} where a text is expected; fetch it again")
    for key in SPECIAL_IDS:
        ids = values.get(key)
        for each in ids if isinstance(ids, list) else [ids]:
            # Some repositories write -1 for "none".
            if each is not None and (type(each) is not int or not -1 <= each < values["vocab_size"]):
                raise UserError(f"{source} gives {key}={ids!r:.80}, which is no id of the vocabulary; fetch it again")


def _in_its_own_words(message: str) -> str:
    """Returns an error of `ModelConfig` with the names that config.json has for the fields."""
    for field, key in OTHER_NAMES.items():
        message = message.replace(f"ModelConfig.{field} =", f"{key} =")
    return message


def read_rope(values: Mapping[str, Any], source: str) -> tuple[float, RopeScaling | None]:
    """Returns (theta, scaling) from either spelling.

    Raises:
      UserError: the spellings disagree, theta stands without scaling, or the type is neither llama3 nor default.
    """
    folded, separate = values.get("rope_parameters"), values.get("rope_scaling")
    readings = [_read_rope_block(block, values, source) for block in (folded, separate) if block not in (None, {})]
    if len(readings) == 2 and readings[0] != readings[1]:
        raise UserError(f"{source} gives different rope_parameters and rope_scaling; remove the one that is wrong")
    if readings:
        return readings[0]
    if "rope_theta" not in values:
        return ASSUMED_THETA, RopeScaling()
    if "rope_scaling" not in values:
        # transformers 4 would take this theta with llama3 scaling, 5 would ignore it: no reading is safe.
        raise UserError(f"{source} gives rope_theta without rope_scaling; add rope_scaling, or null for none")
    return _number(values["rope_theta"], "rope_theta", source), None


def _read_rope_block(block: Any, values: Mapping[str, Any], source: str) -> tuple[float, RopeScaling | None]:
    if not isinstance(block, Mapping):
        raise UserError(f"{source} gives rotary settings {block!r} where a JSON object is expected")
    theta = _number(block.get("rope_theta", values.get("rope_theta", ASSUMED_THETA)), "rope_theta", source)
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
    try:
        factor, low, high = (_number(block[name], name, source) for name in names)
        return theta, RopeScaling(factor, low, high, original)
    except UserError as error:
        raise UserError(f"{source}: rotary settings: {error}; correct them, or fetch it again") from error


def _number(value: Any, name: str, source: str) -> float:
    """Returns a JSON number as a float; whether it is in range is for the configuration to say."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(
            f"{source} gives {name}={value!r:.80} where a number is expected; correct it, or fetch it again"
        )
    try:
        return float(value)
    except OverflowError:
        return math.inf

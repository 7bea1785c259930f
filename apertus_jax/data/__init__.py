"""Data: tokenizer, token store, order and batches. Names are resolved on first use, so importing this is cheap."""

from __future__ import annotations

import importlib
from typing import Any

# Public name → the module that defines it. Modules are named so that none shares its name with a function.
_MODULES = {
    "apertus_jax.data.batch_schedule": ("BatchSchedule",),
    "apertus_jax.data.held_out": ("check_no_shared_13grams", "check_store"),
    "apertus_jax.data.device_batches": ("DeviceBatches",),
    "apertus_jax.data.loader": ("BatchLoader", "ReadAhead"),
    "apertus_jax.data.mixture": ("Mixture", "MixtureStage"),
    "apertus_jax.data.packing": ("segment_ids_and_positions",),
    "apertus_jax.data.sample_index": ("WindowIndex",),
    "apertus_jax.data.sample_stream": ("MegatronStage", "SampleStream", "build_megatron_stream", "build_stream"),
    "apertus_jax.data.store_stream": ("MegatronMixture", "stream_of_store"),
    "apertus_jax.data.tekken": ("apertus_tokenizer",),
    "apertus_jax.data.tombstoned_documents": ("find_tombstoned", "open_tombstones", "store_is_older_than"),
    "apertus_jax.data.token_store": ("TokenSource", "TokenStore"),
    "apertus_jax.data.tokenize_command": ("tokenize",),
    "apertus_jax.data.tokenizer": ("Tokenizer", "train_bpe"),
    "apertus_jax.data.vocabulary_pieces": ("VocabularyText", "token_pieces", "vocabulary_text"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

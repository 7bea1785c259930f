"""Rematerialization (activation checkpointing) policies by name."""

from __future__ import annotations

from typing import Any

import jax

from apertus_jax.errors import UserError
from apertus_jax.model.config import REMAT_POLICIES

# What a backward pass in blocks needs beside queries, keys and values; a kernel has both under the first name.
ATTENTION_RESULTS = ("attention_context", "attention_log_sum")
# What makes a second run of attention unnecessary.
ATTENTION_NAMES = ("attention_query", "attention_key", "attention_value", *ATTENTION_RESULTS)


def remat_options(name: str) -> dict[str, Any] | None:
    """Keyword arguments for nn.remat, or None where nothing is to be recomputed.

    none: keep everything. full: keep only each layer's input. dots: keep the results of weight matrix products and of
    attention.
    save_attention: keep attention's inputs and outputs. offload_attention: the same, in host memory.
    Raises UserError for another name.
    """
    policies = jax.checkpoint_policies
    if name == "none":
        return None
    if name == "full":
        return {"policy": policies.nothing_saveable}
    if name == "dots":
        results = policies.save_only_these_names(*ATTENTION_RESULTS)
        return {"policy": policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable, results)}
    if name == "save_attention":
        return {"policy": policies.save_only_these_names(*ATTENTION_NAMES)}
    if name == "offload_attention":
        return {
            "policy": policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=list(ATTENTION_NAMES),
                offload_src="device",
                offload_dst="pinned_host",
            )
        }
    raise UserError(f"remat_policy={name!r} must be one of {REMAT_POLICIES}")

"""Feed-forward blocks by name: Apertus' own, those that other modules add, and the check of what a block must be.

`ModelConfig.feedforward` holds a name of `FEEDFORWARDS`. docs/plugins.md adds a block from outside of the package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError

OWN = "xielu"
# Name → what makes a block from a ModelConfig; `model/transformer.py` puts Apertus' own there.
FEEDFORWARDS: dict[str, Callable[[Any], nn.Module]] = {}
LENGTH_FOR_CHECKS = 4
CLOSE = 1e-4
# Sizes at which a block is run before the first step.
SMALL = {
    "vocab_size": 8,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 32,
    "compute_dtype": "float32",
}


def add_feedforward(name: str, block: type[nn.Module]) -> None:
    """Makes a feed-forward block one that `ModelConfig.feedforward` may name.

    Args:
      name: how it is called from then on.
      block: a Linen module with the one field `config`, called on [B,T,D] and giving [B,T,D] in the same dtype. It acts
        on each position alone, keeps nothing but float32 parameters, and takes every setting from the configuration,
        since nothing else is kept with a model. Kernels of `Dense` carry the names by which the mesh splits them.

    Raises:
      UserError: another block has the name, or this is no such module.
    """
    if FEEDFORWARDS.get(name, block) is not block:
        raise UserError(f"{name} is the name of another feed-forward block; call it otherwise")
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise UserError(f"{name} is no Linen module; give a subclass of flax.linen.Module")
    fields = [field.name for field in dataclasses.fields(block) if field.init and field.name not in ("parent", "name")]
    if fields != ["config"]:
        raise UserError(
            f"{name} has the fields {', '.join(fields) or '(none)'}; a feed-forward block has config: ModelConfig alone"
        )
    FEEDFORWARDS[name] = block


def check_feedforward(config: Any) -> None:
    """Checks, before the first step, that a block from outside of the package is what the model and decoding expect.

    Args:
      config: the ModelConfig that names it. At its sizes the block is traced; at those of `SMALL` it is run.

    Raises:
      UserError: it fails, gives another shape or dtype, keeps more than float32 parameters, or looks at other
        positions.
    """
    name = config.feedforward
    if name == OWN:
        return
    traced = dataclasses.replace(config, compute_dtype="float32")
    hidden = jax.ShapeDtypeStruct((1, LENGTH_FOR_CHECKS, config.hidden_size), jnp.float32)
    small = dataclasses.replace(config, **SMALL)
    values = jax.random.normal(jax.random.key(0), (1, LENGTH_FOR_CHECKS, small.hidden_size))
    try:
        result, variables = jax.eval_shape(FEEDFORWARDS[name](traced).init_with_output, jax.random.key(0), hidden)
        run = jax.jit(lambda inputs: FEEDFORWARDS[name](small).init_with_output(jax.random.key(1), inputs)[0])
        together = run(values)
        alone = [run(values[:, place : place + 1]) for place in range(LENGTH_FOR_CHECKS)]
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"the feedforward {name!r} fails with {told}; correct it") from error
    if (result.shape, result.dtype) != (hidden.shape, hidden.dtype):
        raise UserError(
            f"the feedforward {name!r} gives {result.dtype}{list(result.shape)} for float32{list(hidden.shape)}; it "
            "must give the same shape and dtype"
        )
    if kept := sorted(variables.keys() - {"params"}):
        raise UserError(f"the feedforward {name!r} keeps {', '.join(kept)}; only parameters (self.param) are kept")
    if strange := sorted({str(leaf.dtype) for leaf in jax.tree.leaves(variables)} - {"float32"}):
        raise UserError(f"the feedforward {name!r} has parameters of {', '.join(strange)}; parameters are float32")
    if not np.allclose(together, jnp.concatenate(alone, axis=1), rtol=CLOSE, atol=CLOSE):
        raise UserError(
            f"the feedforward {name!r} looks at other positions; generation calls it for one token at a time, so it "
            "must act on each position alone"
        )

"""Layer figures: norms of parameters and updates, update ratios and xIELU alphas of every layer at one step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from apertus_jax.sharding import replicated

NAME = "layer_figures"  # under which they stand in metrics.jsonl, as an evaluator's would
LAYERS = "layers"
ALPHAS = {"alpha_p": 0.0, "alpha_n": 1.0}  # effective value: softplus(raw) + this times beta


@jax.jit
def kept(params: Any) -> Any:
    """Returns a copy of parameters that the donation of the state leaves alone."""
    return jax.tree.map(jnp.copy, params)


def _norms(before: Any, after: Any) -> dict[str, dict[str, jax.Array]]:
    """Returns float32 norms by group: "layers" → [L], every other top-level name → []; and raw alphas, [L] each."""
    squares: dict[str, dict[str, jax.Array]] = {"parameter": {}, "update": {}}
    alphas: dict[str, jax.Array] = {}
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in leaves:
        names = [str(getattr(key, "key", key)) for key in path]
        group = names[0]
        axes = tuple(range(1 if group == LAYERS else 0, new.ndim))
        for kind, value in (("parameter", new), ("update", new - old)):
            total = jnp.sum(jnp.square(value.astype(jnp.float32)), axis=axes)
            squares[kind][group] = squares[kind].get(group, 0.0) + total
        if names[-1] in ALPHAS and group == LAYERS:
            alphas[names[-1]] = new
    return {**{kind: {g: jnp.sqrt(v) for g, v in found.items()} for kind, found in squares.items()}, "alpha": alphas}


def layer_figures(before: Any, after: Any, beta: float, mesh: Mesh) -> dict[str, float]:
    """Returns figures of a step by name, `update_ratio/layer_07` among them.

    Args:
      before, after: the parameter trees around the step; parameters of the layers are stacked, [L, …].
      beta: of xIELU, which its alpha_n is above; docs/reference/model_and_training.md §2.2.
      mesh: the devices that keep the parameters.

    Returns:
      For each layer, and for each parameter outside of the layers by its name: `parameter_norm`, `update_norm` and
      `update_ratio`, the one by the other; for each layer `alpha_p` and `alpha_n`, where the feedforward has them.
    """
    found = jax.device_get(jax.jit(_norms, out_shardings=replicated(mesh))(before, after))
    figures: dict[str, float] = {}
    for group, norms in found["parameter"].items():
        updates = found["update"][group]
        for name, norm, update in _by_layer(group, norms, updates):
            figures[f"parameter_norm/{name}"] = norm
            figures[f"update_norm/{name}"] = update
            figures[f"update_ratio/{name}"] = update / norm if norm else 0.0
    for alpha, raw in found["alpha"].items():
        for layer, value in enumerate(jnp.logaddexp(raw, 0.0) + ALPHAS[alpha] * beta):
            figures[f"{alpha}/layer_{layer:02d}"] = float(value)
    return dict(sorted(figures.items()))


def _by_layer(group: str, norms: Any, updates: Any) -> list[tuple[str, float, float]]:
    if group != LAYERS:
        return [(group, float(norms), float(updates))]
    pairs = zip(norms.tolist(), updates.tolist(), strict=True)
    return [(f"layer_{layer:02d}", norm, update) for layer, (norm, update) in enumerate(pairs)]

"""Layer figures: norms of parameters, gradients and updates, update ratios and xIELU alphas of each layer at a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def norms_by_group(tree: Any) -> dict[str, jax.Array]:
    """Returns float32 norms of a tree like the parameters: "layers" → [L], every other top-level name → []."""
    squares: dict[str, jax.Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        group = _names(path)[0]
        axes = tuple(range(1 if group == LAYERS else 0, leaf.ndim))
        squares[group] = squares.get(group, 0.0) + jnp.sum(jnp.square(leaf.astype(jnp.float32)), axis=axes)
    return {group: jnp.sqrt(total) for group, total in squares.items()}


def make_gradient_norms(
    gradients_of_step: Callable[[Any, Any, jax.Array], tuple[jax.Array, Any, jax.Array]],
) -> Callable[[Any, Any, jax.Array], dict[str, jax.Array]]:
    """Returns the function `(params, batch, samples_consumed) -> norms_by_group` of the gradients before clipping.

    `gradients_of_step` is of `make_gradients`. It is a program of its own, because what a step gives out beside its
    result may change how that is compiled, and so its bits.
    """

    def gradient_norms(params: Any, batch: Any, samples_consumed: jax.Array) -> dict[str, jax.Array]:
        _, gradients, _ = gradients_of_step(params, batch, samples_consumed)
        return norms_by_group(gradients)

    return gradient_norms


def _names(path: Any) -> list[str]:
    return [str(getattr(key, "key", key)) for key in path]


def _around_step(before: Any, after: Any) -> dict[str, dict[str, jax.Array]]:
    """Returns norms of parameters and updates by group, and raw alphas, [L] each."""
    leaves = [(_names(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(after)]
    alphas = {names[-1]: leaf for names, leaf in leaves if names[-1] in ALPHAS and names[0] == LAYERS}
    updates = jax.tree.map(lambda new, old: new - old, after, before)
    return {"parameter": norms_by_group(after), "update": norms_by_group(updates), "alpha": alphas}


def layer_figures(
    before: Any, after: Any, beta: float, mesh: Mesh, gradient_norms: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Returns figures of a step by name, `update_ratio/layer_07` among them.

    Args:
      before, after: the parameter trees around the step; parameters of the layers are stacked, [L, …].
      beta: of xIELU, which its alpha_n is above; docs/reference/model_and_training.md §2.2.
      mesh: the devices that keep the parameters.
      gradient_norms: of the step, see `make_gradient_norms`.

    Returns:
      For each layer, and for each parameter outside of the layers by its name: `parameter_norm`, `gradient_norm` where
      it is given, `update_norm` and `update_ratio`, which is the update's norm by the parameter's; for each layer
      `alpha_p` and `alpha_n`, where the feedforward has them.
    """
    found = jax.device_get(jax.jit(_around_step, out_shardings=replicated(mesh))(before, after))
    norms = {"parameter": found["parameter"], "update": found["update"]}
    if gradient_norms is not None:
        norms["gradient"] = gradient_norms
    figures: dict[str, float] = {}
    for kind, groups in norms.items():
        for group, values in groups.items():
            figures |= {f"{kind}_norm/{name}": value for name, value in _by_layer(group, values)}
    for name in [name.partition("/")[2] for name in figures if name.startswith("update_norm/")]:
        norm = figures[f"parameter_norm/{name}"]
        figures[f"update_ratio/{name}"] = figures[f"update_norm/{name}"] / norm if norm else 0.0
    for alpha, raw in found["alpha"].items():
        for layer, value in enumerate(jnp.logaddexp(raw, 0.0) + ALPHAS[alpha] * beta):
            figures[f"{alpha}/layer_{layer:02d}"] = float(value)
    return dict(sorted(figures.items()))


def _by_layer(group: str, values: Any) -> list[tuple[str, float]]:
    if group != LAYERS:
        return [(group, float(values))]
    return [(f"layer_{layer:02d}", value) for layer, value in enumerate(values.tolist())]

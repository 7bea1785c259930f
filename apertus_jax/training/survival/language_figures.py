"""Language figures: labels and loss of one step by language and by source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from apertus_jax.data.provenance.label_origins import Origin
from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.objectives import combine_masks, token_losses
from apertus_jax.training.train_step import Batch, Objective, split_microbatches

NAME = "language_figures"  # under which they stand in metrics.jsonl, as an evaluator's would


def make_sums_by_origin(
    config: ModelConfig, objective: Objective, accumulation: int, num_origins: int
) -> Callable[[Any, Batch, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the function `(params, batch, samples_consumed, origins int32[B, T]) -> (losses, labels)`.

    Both are float32[num_origins]: the sum of cross-entropies in nats of the labels that the masks of the objective
    keep, and how many those are. Only the forward pass is computed, in as many pieces as the step has.
    """

    def sums_by_row(values: jax.Array, origins: jax.Array) -> jax.Array:
        # Rows apart first: sums over millions of labels would lose digits in float32.
        return jax.vmap(lambda row, of: jax.ops.segment_sum(row, of, num_origins))(values, origins).sum(axis=0)

    def sums_by_origin(
        params: Any, batch: Batch, samples_consumed: jax.Array, origins: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        weights = combine_masks(objective.loss_masks, {**batch, "samples_consumed": samples_consumed})

        def piece(inputs: tuple[Batch, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            rows, kept, of = inputs
            hidden: Any = Transformer(config).apply(
                {"params": params},
                rows["tokens"][:, :-1],
                positions=rows["positions"],
                segment_ids=rows["segment_ids"],
                method="hidden_states",
            )
            losses = token_losses(hidden, params["lm_head"]["kernel"], rows["tokens"][:, 1:], objective.num_tiles)
            return sums_by_row(losses * kept, of), sums_by_row(kept, of)

        model_inputs = {name: batch[name] for name in ("tokens", "positions", "segment_ids")}
        inputs = (model_inputs, weights, origins)
        if accumulation == 1:
            return piece(inputs)
        losses, labels = jax.lax.map(piece, split_microbatches(inputs, accumulation))
        return losses.sum(axis=0), labels.sum(axis=0)

    return sums_by_origin


def language_figures(origins: Sequence[Origin], losses: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns figures of a step by name: `loss/deu_Latn`, mean nats per kept label, and `labels/deu_Latn`, how many.

    Args:
      origins: by number.
      losses, labels: float[G] sums of each, see `make_sums_by_origin`.

    Returns:
      `loss` of all, then both for each language, the largest first, then `source_loss` and `source_labels` for each
      source. What had no label in this step is left out.
    """
    total = float(labels.sum())
    figures = {"loss": float(losses.sum()) / total} if total else {}
    kinds: Mapping[str, Sequence[str]] = {
        "": [origin.language for origin in origins],
        "source_": [origin.source for origin in origins],
    }
    for prefix, names in kinds.items():
        sums: dict[str, tuple[float, float]] = {}
        for name, loss, count in zip(names, losses.tolist(), labels.tolist(), strict=True):
            before = sums.get(name, (0.0, 0.0))
            sums[name] = before[0] + loss, before[1] + count
        largest = sorted((item for item in sums.items() if item[1][1]), key=lambda item: (-item[1][1], item[0]))
        figures |= {f"{prefix}loss/{name}": loss / count for name, (loss, count) in largest}
        figures |= {f"{prefix}labels/{name}": count for name, (_, count) in largest}
    return figures

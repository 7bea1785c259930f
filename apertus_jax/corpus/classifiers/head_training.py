"""Training of a classifier head: AdamW, linear warm-up and dropout, all from one seed.

Source: docs/reference/data.md §5, §6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from apertus_jax.corpus.classifiers.head import HeadShape, Parameters, initial_parameters, loss_and_gradients
from apertus_jax.errors import UserError

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
QUALITY, TOXICITY = "quality", "toxicity"
TASKS = (QUALITY, TOXICITY)


@dataclasses.dataclass(frozen=True)
class HeadRecipe:
    """Architecture and training settings of a head; `standard_recipe` gives the two that the paper publishes."""

    hidden_size: int = 256
    outputs: int = 1
    dropout: float = 0.2
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    batch_size: int = 256
    epochs: int = 6
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
          UserError: a value is out of range.
        """
        ranges = {
            "hidden_size": (0, 1 << 14),
            "outputs": (1, 2),
            "dropout": (0.0, 0.95),
            "learning_rate": (1e-8, 10.0),
            "weight_decay": (0.0, 10.0),
            "batch_size": (1, 1 << 20),
            "epochs": (1, 10_000),
            "warmup_steps": (0, 1 << 30),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"HeadRecipe.{name} {getattr(self, name)} must lie between {low} and {high}")


def standard_recipe(task: str, implementation: str) -> HeadRecipe:
    """Returns the recipe for `quality` or `toxicity` over an embedder implementation.

    Over a transformer: the sizes and rates of docs/reference/data.md §5 and §6. Over hashed n-grams: logistic
    regression, whose sparse unit vectors need a far larger rate.
    """
    toxicity = task == TOXICITY
    if implementation == "transformer":
        if toxicity:
            return HeadRecipe(hidden_size=768, outputs=2, batch_size=64, warmup_steps=200)
        return HeadRecipe(hidden_size=256, outputs=1, batch_size=256)
    return HeadRecipe(
        hidden_size=0,
        outputs=2 if toxicity else 1,
        dropout=0.0,
        learning_rate=0.02,
        batch_size=64,
        epochs=12,
        weight_decay=0.01,
        warmup_steps=20,
    )


class AdamW:
    """Adam with bias correction and decay applied to the parameters, not the gradients (arXiv 1711.05101)."""

    def __init__(self, parameters: Parameters, recipe: HeadRecipe):
        self._recipe = recipe
        self._step = 0
        self._first = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._second = {name: np.zeros_like(value) for name, value in parameters.items()}

    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        """Changes `parameters` in place by one step."""
        self._step += 1
        warmup = min(1.0, self._step / self._recipe.warmup_steps) if self._recipe.warmup_steps else 1.0
        rate = self._recipe.learning_rate * warmup
        for name, value in parameters.items():
            gradient = gradients[name]
            self._first[name] += (1 - BETA1) * (gradient - self._first[name])
            self._second[name] += (1 - BETA2) * (gradient * gradient - self._second[name])
            mean = self._first[name] / (1 - BETA1**self._step)
            spread = np.sqrt(self._second[name] / (1 - BETA2**self._step)) + EPSILON
            value *= 1 - rate * self._recipe.weight_decay
            value -= rate * mean / spread


def epoch_batches(count: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields the examples of one epoch in a new random order, batch by batch, the last one shorter."""
    order = generator.permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


def train_head(
    embeddings: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    recipe: HeadRecipe,
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    dtype: type = np.float32,
) -> Parameters:
    """Returns the trained parameters after the last epoch; none is chosen by looking at the validation set.

    Args:
      embeddings: [n, D] in any floating type; batches are converted, so half precision saves memory.
      labels: 0 or 1, [n].
      weights: of each example, [n].
      recipe: sizes and rates.
      seed: of initial parameters, order and dropout.
      on_epoch: called with (epoch from 1, mean training loss).
      dtype: of parameters and arithmetic.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    shape = HeadShape(embeddings.shape[1], recipe.hidden_size, recipe.outputs)
    parameters = initial_parameters(shape, generator, dtype)
    optimizer = AdamW(parameters, recipe)
    for epoch in range(1, recipe.epochs + 1):
        losses = []
        for batch in epoch_batches(len(labels), recipe.batch_size, generator):
            mask: np.ndarray | None = None
            if recipe.hidden_size and recipe.dropout:
                kept = generator.random((len(batch), recipe.hidden_size)) >= recipe.dropout
                mask = (kept / (1 - recipe.dropout)).astype(dtype)
            loss, gradients = loss_and_gradients(
                parameters, embeddings[batch].astype(dtype), labels[batch], weights[batch], mask
            )
            optimizer.update(parameters, gradients)
            losses.append(loss)
        on_epoch(epoch, float(np.mean(losses)))
    return parameters

"""Classifier head on an embedding: logistic regression or one hidden layer, with gradients, in NumPy.

    hidden = ReLU(embedding · W1 + b1), dropout while training;  logits = hidden · W2 + b2

One output is read through a sigmoid, two through a softmax, each exactly once: the published toxicity head feeds the
softmax into a cross-entropy that takes a softmax again (docs/reference/data.md §5), which flattens its gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

Parameters = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class HeadShape:
    """Sizes of a head: embedding D, hidden F (0: logistic regression), outputs C (1: sigmoid, 2: softmax)."""

    dimensions: int
    hidden_size: int
    outputs: int

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns name → shape of every parameter."""
        if not self.hidden_size:
            return {"output.weight": (self.dimensions, self.outputs), "output.bias": (self.outputs,)}
        return {
            "hidden.weight": (self.dimensions, self.hidden_size),
            "hidden.bias": (self.hidden_size,),
            "output.weight": (self.hidden_size, self.outputs),
            "output.bias": (self.outputs,),
        }


def initial_parameters(shape: HeadShape, generator: np.random.Generator, dtype: type = np.float32) -> Parameters:
    """Returns parameters drawn uniformly from ±1/√(inputs of the layer)."""
    parameters: Parameters = {}
    for name, size in shape.parameter_shapes().items():
        inputs = shape.hidden_size if shape.hidden_size and name.startswith("output") else shape.dimensions
        bound = 1.0 / np.sqrt(inputs)
        parameters[name] = generator.uniform(-bound, bound, size).astype(dtype)
    return parameters


def forward(
    parameters: Mapping[str, np.ndarray], embeddings: np.ndarray, dropout_mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (logits [n, C], what the last layer saw [n, F or D]) for embeddings [n, D].

    `dropout_mask` [n, F] holds 0 or 1/(1 − rate); None outside training.
    """
    features = embeddings
    if "hidden.weight" in parameters:
        features = np.maximum(embeddings @ parameters["hidden.weight"] + parameters["hidden.bias"], 0)
        if dropout_mask is not None:
            features = features * dropout_mask
    return features @ parameters["output.weight"] + parameters["output.bias"], features


def positive_probability(logits: np.ndarray) -> np.ndarray:
    """Returns P(label 1) [n] for logits [n, C]: the sigmoid of one output, the softmax of two."""
    margin = logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
    small = np.exp(-np.abs(margin))
    return np.where(margin >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def loss_and_gradients(
    parameters: Mapping[str, np.ndarray],
    embeddings: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    dropout_mask: np.ndarray | None = None,
) -> tuple[float, Parameters]:
    """Returns the weighted mean cross-entropy and its gradients.

    Args:
      parameters: as `initial_parameters`.
      embeddings: [n, D].
      labels: 0 or 1, [n].
      weights: of each example, [n]; the mean is Σ weight·loss / Σ weight.
      dropout_mask: as `forward`.
    """
    logits, features = forward(parameters, embeddings, dropout_mask)
    share = (weights / weights.sum()).astype(logits.dtype)
    probability = positive_probability(logits)
    margin = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    # −log P(label): log(1 + e^z) − label·z, stable at both ends.
    loss = np.sum(share * (np.logaddexp(0, margin) - labels * margin))
    slope = ((probability - labels) * share)[:, None].astype(logits.dtype)
    slope = slope if logits.shape[1] == 1 else np.concatenate([-slope, slope], axis=1)
    gradients = {"output.weight": features.T @ slope, "output.bias": slope.sum(axis=0)}
    if "hidden.weight" in parameters:
        back = slope @ parameters["output.weight"].T
        if dropout_mask is not None:
            back = back * dropout_mask
        back = np.where(features > 0, back, 0)
        gradients["hidden.weight"] = embeddings.T @ back
        gradients["hidden.bias"] = back.sum(axis=0)
    return float(loss), gradients


def score_row(parameters: Mapping[str, np.ndarray], embedding: np.ndarray) -> float:
    """Returns P(label 1) of one embedding [D], in double precision.

    One row at a time: the order of additions in a matrix product depends on how many rows it has.
    """
    logits, _ = forward(parameters, embedding.astype(np.float64))
    return float(positive_probability(logits))

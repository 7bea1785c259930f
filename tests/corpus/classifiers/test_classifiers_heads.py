"""Heads: gradients, the optimizer and the figures, each against something that shares no code with them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.classifiers.head import (
    HeadShape,
    forward,
    initial_parameters,
    loss_and_gradients,
    positive_probability,
    score_row,
)
from apertus_jax.corpus.classifiers.head_training import AdamW, HeadRecipe, standard_recipe, train_head
from apertus_jax.corpus.classifiers.measures import area_interval, area_under_curve, calibration_error
from apertus_jax.errors import UserError


def problem(count=48, dimensions=10, seed=0):
    generator = np.random.default_rng(seed)
    embeddings = generator.normal(size=(count, dimensions))
    labels = (embeddings[:, 0] - embeddings[:, 1] ** 2 + 0.5 > 0).astype(np.int64)
    weights = generator.uniform(0.5, 1.5, count)
    return embeddings, labels, weights


def torch_head(parameters):
    """The same network as torch modules, with the parameters of ours."""
    names = ["hidden", "output"] if "hidden.weight" in parameters else ["output"]
    layers = []
    for name in names:
        weight = torch.tensor(parameters[f"{name}.weight"]).T
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(torch.tensor(parameters[f"{name}.bias"]))
        layers += [layer, torch.nn.ReLU()] if name == "hidden" else [layer]
    return torch.nn.Sequential(*layers)


def torch_loss(logits, labels, weights):
    if logits.shape[1] == 1:
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.double(), reduction="none")
    else:
        each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return (each * weights).sum() / weights.sum()


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_equal_finite_differences(hidden, outputs, dropout):
    embeddings, labels, weights = problem()
    generator = np.random.default_rng(1)
    parameters = initial_parameters(HeadShape(10, hidden, outputs), generator, np.float64)
    mask = (generator.random((len(labels), hidden)) > 0.3) / 0.7 if dropout and hidden else None
    _, gradients = loss_and_gradients(parameters, embeddings, labels, weights, mask)
    for name, value in parameters.items():
        for place in [(0,) * value.ndim, tuple(size - 1 for size in value.shape)]:
            step, kept = 1e-6, value[place]
            value[place] = kept + step
            above, _ = loss_and_gradients(parameters, embeddings, labels, weights, mask)
            value[place] = kept - step
            below, _ = loss_and_gradients(parameters, embeddings, labels, weights, mask)
            value[place] = kept
            assert gradients[name][place] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("outputs", [1, 2])
def test_head_training_equals_torch(hidden, outputs):
    embeddings, labels, weights = problem()
    recipe = HeadRecipe(hidden, outputs, 0.0, learning_rate=0.01, weight_decay=0.1, warmup_steps=5)
    parameters = initial_parameters(HeadShape(10, hidden, outputs), np.random.default_rng(2), np.float64)
    reference = torch_head(parameters)
    peer = torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=0.1)
    warmup = torch.optim.lr_scheduler.LambdaLR(peer, lambda step: min(1.0, (step + 1) / 5))
    optimizer = AdamW(parameters, recipe)
    for step in range(40):
        batch = np.arange(step % 3, len(labels), 3)
        loss, gradients = loss_and_gradients(parameters, embeddings[batch], labels[batch], weights[batch])
        optimizer.update(parameters, gradients)
        peer.zero_grad()
        logits = reference(torch.tensor(embeddings[batch]))
        expected = torch_loss(logits, torch.tensor(labels[batch]), torch.tensor(weights[batch]))
        expected.backward()
        peer.step()
        warmup.step()
        assert loss == pytest.approx(expected.item(), rel=1e-9)
    ours, _ = forward(parameters, embeddings)
    np.testing.assert_allclose(ours, reference(torch.tensor(embeddings)).detach().numpy(), rtol=1e-8, atol=1e-10)


def test_softmax_is_taken_once():
    logits = np.array([[0.3, -1.2], [5.0, 9.0]])
    expected = torch.softmax(torch.tensor(logits), dim=1)[:, 1].numpy()
    np.testing.assert_allclose(positive_probability(logits), expected, rtol=1e-12)
    weight = {"output.weight": np.eye(2), "output.bias": np.zeros(2)}
    loss, _ = loss_and_gradients(weight, logits, np.array([0, 1]), np.ones(2))
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor([0, 1])).item())


def test_trained_head_separates_what_a_line_cannot():
    embeddings, labels, weights = problem(count=400)
    recipe = HeadRecipe(32, 1, 0.2, learning_rate=0.01, batch_size=32, epochs=30)
    parameters = train_head(embeddings, labels, weights, recipe, seed=3)
    fresh, truth, _ = problem(count=400, seed=9)
    scores = np.array([score_row(parameters, row) for row in fresh])
    assert area_under_curve(scores, truth) > 0.95


def test_same_seed_gives_same_head_and_another_seed_another():
    data = problem()
    recipe = HeadRecipe(8, 2, 0.5, batch_size=16, epochs=2)
    first, again, other = (train_head(*data, recipe, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["output.weight"], other["output.weight"])


def test_extreme_logits_stay_finite():
    parameters = {"output.weight": np.full((1, 1), 1e4), "output.bias": np.zeros(1)}
    loss, gradients = loss_and_gradients(parameters, np.array([[1.0], [-1.0]]), np.array([0, 1]), np.ones(2))
    assert loss == pytest.approx(1e4) and np.isfinite(gradients["output.weight"]).all()


def test_published_sizes_are_the_standard_over_a_transformer():
    toxicity, quality = standard_recipe("toxicity", "transformer"), standard_recipe("quality", "transformer")
    assert (toxicity.hidden_size, toxicity.outputs, toxicity.batch_size, toxicity.warmup_steps) == (768, 2, 64, 200)
    assert (quality.hidden_size, quality.outputs, quality.batch_size, quality.warmup_steps) == (256, 1, 256, 0)
    assert toxicity.learning_rate == quality.learning_rate == 3e-4 and toxicity.dropout == quality.dropout == 0.2


def test_recipe_out_of_range_is_refused():
    with pytest.raises(UserError, match=r"dropout 1\.0"):
        HeadRecipe(dropout=1.0)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_area_equals_counting_all_pairs(pairs):
    scores, labels = np.array([pair[0] for pair in pairs], float), np.array([pair[1] for pair in pairs])
    wins = [
        1.0 if good > bad else 0.5 if good == bad else 0.0
        for good in scores[labels == 1]
        for bad in scores[labels == 0]
    ]
    found = area_under_curve(scores, labels)
    assert np.isnan(found) if not wins else found == pytest.approx(np.mean(wins))


def test_bootstrap_interval_covers_the_true_area_as_promised():
    generator = np.random.default_rng(4)
    truth = 0.76025  # P(N(1, 1) > N(0, 1)) = Φ(1/√2)
    covered = 0
    for trial in range(200):
        labels = np.repeat([0, 1], 60)
        low, high = area_interval(generator.normal(size=120) + labels, labels, trial, resamples=200)
        covered += low <= truth <= high
    assert 176 <= covered <= 198


def test_calibration_error_by_hand():
    # Two bins of ten: mean 0.25 against 1/2, mean 0.95 against 1.
    found = calibration_error(np.array([0.22, 0.28, 0.95, 0.95]), np.array([0, 1, 1, 1]), bins=10)
    assert found == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    assert calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0

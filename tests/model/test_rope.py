"""Rotary positions against the published values, torch, and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import ApertusConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from apertus_jax.model import RopeScaling
from apertus_jax.model.rope import apply_rotary, inverse_frequencies, positions_from_segments, rotary_tables

# docs/reference/model_and_training.md §3: scaled frequencies of pairs 1, 16, 24, 31, 32, 63 at head_dim 128.
PAIRS = (1, 16, 24, 31, 32, 63)
SPOT_VALUES = {
    5e5: (0.814617234, 0.0376060309, 0.00729266474, 0.000856751413, 0.000524846161, 3.06892599e-07),
    1e6: (0.805842188, 0.0316227766, 0.00562341325, 0.000378771384, 0.000213607544, 1.5511722e-07),
    2e6: (0.797161666, 0.0265914795, 0.0043362444, 0.000151370164, 8.83883476e-05, 7.84031679e-08),
    4e6: (0.788574651, 0.0223606798, 0.00334370152, 7.92569225e-05, 6.25e-05, 3.96284612e-08),
    1.2e7: (0.775153644, 0.0169904424, 0.00149602789, 4.65512768e-05, 3.60843918e-05, 1.34381961e-08),
}
BANDS = {5e5: (29, 6, 29), 1e6: (27, 7, 30), 2e6: (26, 6, 32), 4e6: (25, 6, 33), 1.2e7: (23, 6, 35)}


@pytest.mark.parametrize("theta", SPOT_VALUES)
def test_scaled_frequencies_are_the_published_spot_values(theta):
    frequencies = inverse_frequencies(128, theta, RopeScaling())
    np.testing.assert_allclose(frequencies[list(PAIRS)], SPOT_VALUES[theta], rtol=3e-7)


@pytest.mark.parametrize("theta", BANDS)
def test_frequency_bands_have_the_published_sizes(theta):
    ratio = inverse_frequencies(128, theta, RopeScaling()) / inverse_frequencies(128, theta, None)
    kept, divided = np.isclose(ratio, 1, rtol=1e-5), np.isclose(ratio, 1 / 8, rtol=1e-5)
    assert (kept.sum(), 64 - kept.sum() - divided.sum(), divided.sum()) == BANDS[theta]


@pytest.mark.parametrize("head_dim", [32, 64, 80, 128])
@pytest.mark.parametrize("theta", [5e5, 1.2e7])
def test_tables_agree_with_transformers_to_position_65535(head_dim, theta):
    rope = dict(
        rope_type="llama3",
        rope_theta=theta,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    peer = ApertusConfig(
        hidden_size=head_dim, num_attention_heads=1, max_position_embeddings=65536, rope_parameters=rope
    )
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](peer)
    positions = np.array([0, 1, 4095, 8191, 20000, 60000, 65535], np.int32)
    angles = torch.tensor(positions)[:, None].float() * frequencies
    cosine, sine = rotary_tables(
        jnp.asarray(positions)[None], inverse_frequencies(head_dim, theta, RopeScaling()), jnp.float32
    )
    # One float32 step of a frequency moves an angle of 65,535 radians by 0.004.
    np.testing.assert_allclose(cosine[0], angles.cos().numpy(), atol=8e-3)
    np.testing.assert_allclose(sine[0], angles.sin().numpy(), atol=8e-3)
    assert np.mean(np.abs(cosine[0] - angles.cos().numpy())) < 1e-4


def test_xla_reduces_large_angles_exactly():
    angles = (np.random.default_rng(0).random(50_000) * 1e5).astype(np.float32)
    cosine, sine = jax.jit(lambda a: (jnp.cos(a), jnp.sin(a)))(angles)
    np.testing.assert_allclose(cosine, np.cos(angles.astype(np.float64)), atol=1e-7)
    np.testing.assert_allclose(sine, np.sin(angles.astype(np.float64)), atol=1e-7)


def test_rotation_turns_pairs_half_a_head_apart():
    heads = np.random.default_rng(1).normal(size=(1, 3, 2, 8)).astype(np.float32)
    frequencies = inverse_frequencies(8, 1e4, None)
    positions = np.array([[0, 5, 70]])
    rotated = apply_rotary(jnp.asarray(heads), *rotary_tables(jnp.asarray(positions), frequencies, jnp.float32))
    pairs = heads[..., :4].astype(np.float64) + 1j * heads[..., 4:]
    turned = pairs * np.exp(1j * positions[..., None, None] * frequencies.astype(np.float64))
    np.testing.assert_allclose(rotated, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-5)


def test_positions_restart_at_every_document():
    segments = np.array([[0, 0, 0, 1, 1, 2], [3, 3, 3, 3, 3, 3], [0, 1, 2, 3, 3, 4]], np.int32)
    expected = [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 0]]
    np.testing.assert_array_equal(positions_from_segments(jnp.asarray(segments)), expected)

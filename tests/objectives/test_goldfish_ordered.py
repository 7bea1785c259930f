"""The Goldfish hash of version 2: golden values, NumPy's own 64-bit arithmetic, torch's generator, and exempt ids."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.objectives import goldfish, goldfish_mask, measure_drop_rate
from apertus_jax.objectives.megatron_hash import hash_table, megatron_keys
from apertus_jax.objectives.ordered_hash import coefficients, ordered_keys


def specification_labels():
    """The labels that docs/reference/model_and_training.md §16.2 gives its values for, int32[1, 4096]."""
    index = np.arange(4096, dtype=np.int64)
    return ((index**2 * 2654435761 + 40503 * index + 12345) % 131069 + 3).astype(np.int32)[None]


def oracle_keys(labels: np.ndarray, h: int) -> np.ndarray:
    """NumPy's own 64-bit wrap-around sum and floor modulo, windows ending at h-1 and later."""
    windows = np.lib.stride_tricks.sliding_window_view(labels.astype(np.int64), h, axis=-1)
    with np.errstate(over="ignore"):
        return np.mod((windows * coefficients(h)).sum(axis=-1, dtype=np.int64), 1_000_003)


def oracle_mask(labels: np.ndarray, k: int, h: int) -> np.ndarray:
    table = (hash_table() * np.float64(2.0**-24)).astype(np.float32)
    keep = np.ones(labels.shape, bool)
    keep[..., h - 1 :] = ~(table[oracle_keys(labels, h)] < np.float32(1 / k))
    return keep


def test_coefficients_are_the_published_ones():
    found = coefficients(50)
    assert found[:4].tolist() == [2926356156851844425, 1644205282172016761, 4047725135083391131, 2907640386659335683]
    digest = hashlib.sha256(found.astype("<i8").tobytes()).hexdigest()
    assert digest == "7e33f22a4d66352adfe1bd14ee5370bd275f89eed03c7e6c5646e99f65cd7c6d"
    for h in (1, 4, 13):
        assert (coefficients(h) % 2 == 1).all() and (coefficients(h) < 2**62).all() and len(coefficients(h)) == h


@pytest.mark.parametrize("h", [1, 4, 13, 50, 257])
def test_coefficients_are_those_of_torch_s_generator(h):
    torch = pytest.importorskip("torch")
    generator = torch.Generator("cpu")
    generator.manual_seed(2971215073 + h)
    drawn = torch.randint(0, 2**62, (h,), dtype=torch.int64, generator=generator) | 1
    np.testing.assert_array_equal(coefficients(h), drawn.numpy())


def test_keys_and_drops_are_the_specification_s():
    labels = specification_labels()
    keys = np.asarray(ordered_keys(labels, 50))[0, 49:]
    assert keys[:4].tolist() == [351094, 954397, 810815, 457889] and (keys != 0).all()
    dropped = np.flatnonzero(~np.asarray(jax.jit(lambda row: goldfish_mask(row, strategy="megatron_v2"))(labels))[0])
    assert len(dropped) == 89 and dropped.sum() == 192238
    assert dropped[:10].tolist() == [244, 287, 306, 308, 423, 459, 526, 546, 687, 707]
    assert dropped[-3:].tolist() == [4022, 4030, 4033]


@pytest.mark.parametrize("h", [1, 2, 7, 50, 64])
def test_ordered_mask_equals_numpy_int64(h):
    rng = np.random.default_rng(h)
    labels = rng.integers(0, 131072, (3, 150)).astype(np.int32)
    labels[1, ::3] = 0  # what makes the product of the first version 0
    labels[2, ::67] = -1
    np.testing.assert_array_equal(np.asarray(ordered_keys(labels, h))[:, h - 1 :], oracle_keys(labels, h))
    keep = np.asarray(goldfish_mask(labels, k=7, h=h, strategy="megatron_v2"))
    np.testing.assert_array_equal(keep, oracle_mask(labels, 7, h))
    assert not keep.all() and keep[:, : h - 1].all()


def test_order_decides_and_no_window_collapses():
    labels = np.random.default_rng(0).integers(0, 131072, (1, 50)).astype(np.int32)
    turned = labels[:, ::-1]
    for strategy_keys, differ in ((ordered_keys, True), (megatron_keys, False)):
        assert (int(strategy_keys(labels, 50)[0, -1]) != int(strategy_keys(turned, 50)[0, -1])) == differ
    documents = np.random.default_rng(1).integers(0, 131072, (200, 1024))
    measured = measure_drop_rate(documents, "megatron_v2")
    assert 0.0185 < measured.rate < 0.0205, "1.99 % of the labels, 49 of each row not among them"
    assert measured.collapsed_share < 1e-4 and measured.first_dropped == 0


@pytest.mark.parametrize("strategy", ["document", "megatron", "megatron_v2"])
def test_exempt_ids_stay_in_the_loss_and_nothing_else_changes(strategy):
    labels = np.random.default_rng(2).integers(0, 40, (2, 400)).astype(np.int32)
    tokens = jnp.concatenate([jnp.zeros((2, 1), jnp.int32), labels], axis=1)
    plain = np.asarray(goldfish(2, 3, strategy)({"tokens": tokens}))
    kept = np.asarray(goldfish(2, 3, strategy, exempt_ids=[39, 0, 7, 7, 10**9])({"tokens": tokens}))
    np.testing.assert_array_equal(kept, plain | np.isin(labels, [0, 7, 39]))
    assert not plain[np.isin(labels, [0, 7, 39])].all()


def test_row_shorter_than_the_window_of_version_2_is_whole():
    assert goldfish_mask(np.full((2, 10), 4, np.int32), k=2, h=50, strategy="megatron_v2").all()


def test_bad_settings_of_version_2_are_named():
    with pytest.raises(UserError, match=r"goldfish.exempt_ids\[1\] = -1"):
        goldfish(exempt_ids=[3, -1])
    with pytest.raises(UserError, match="goldfish.exempt_ids = 3 must be a list"):
        goldfish(exempt_ids=3)
    with pytest.raises(UserError, match="goldfish.h = 2097152 is more than"):
        goldfish(h=2**21, strategy="megatron_v2")

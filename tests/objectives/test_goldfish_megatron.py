"""The published Goldfish hash: bit for bit the released models' masks, on 32-bit integers."""

import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.objectives import combine_masks, goldfish, goldfish_mask, not_after_eod
from apertus_jax.objectives.megatron_hash import hash_table, megatron_keys, packed_drops

GOLDEN = pathlib.Path(__file__).parent / "golden"


def oracle_keys(labels: np.ndarray, h: int) -> np.ndarray:
    """NumPy's own 64-bit wrap-around product and floor modulo, windows ending at h-1 and later."""
    windows = np.lib.stride_tricks.sliding_window_view(labels.astype(np.int64), h, axis=-1)
    with np.errstate(over="ignore"):
        return np.mod(np.multiply.reduce(windows, axis=-1), 1_000_003)


def oracle_mask(labels: np.ndarray, k: int, h: int) -> np.ndarray:
    table = (hash_table() * np.float64(2.0**-24)).astype(np.float32)
    keep = np.ones(labels.shape, bool)
    keep[..., h - 1 :] = ~(table[oracle_keys(labels, h)] < np.float32(1 / k))
    return keep


def test_table_is_the_published_one():
    table = (hash_table() * np.float64(2.0**-24)).astype("<f4")
    expected = np.load(GOLDEN / "goldfish_hash_table_head.npz")
    np.testing.assert_array_equal(table[:1000], expected["head"])
    np.testing.assert_array_equal(table[-1000:], expected["tail"])
    digest = hashlib.sha256(table.tobytes()).hexdigest()
    assert digest == "33025be4fa64d02d0a2e630dfa7fc166bf76a5364206fe4cd8973ce46e836562"


@pytest.mark.parametrize("k, below", [(2, 499238), (3, 332314), (4, 249533), (8, 124996), (50, 19901), (128, 7746)])
def test_packed_table_has_the_published_number_of_drops(k, below):
    assert np.unpackbits(packed_drops(k).view(np.uint8)).sum() == below


@pytest.mark.parametrize("case", [0, 1, 2])
def test_megatron_mask_is_bit_exact_with_the_training_fork(case):
    golden = np.load(GOLDEN / "packing_and_goldfish.npz")
    tokens, k, h = golden[f"{case}_tokens"], int(golden[f"{case}_k"]), int(golden[f"{case}_h"])
    keep = jax.jit(lambda labels: goldfish_mask(labels, k=k, h=h, strategy="megatron"))(tokens[:, 1:])
    np.testing.assert_array_equal(keep, golden[f"{case}_goldfish_keep"].astype(bool))
    masks = [goldfish(k, h, "megatron"), not_after_eod(int(golden[f"{case}_eod"]))]
    weights = combine_masks(masks, {"tokens": jnp.asarray(tokens)})
    np.testing.assert_array_equal(weights, golden[f"{case}_loss_mask"].astype(np.float32))


def test_megatron_keys_are_the_specification_s():
    index = np.arange(4096, dtype=np.int64)
    labels = ((index**2 * 2654435761 + 40503 * index + 12345) % 131069 + 3).astype(np.int32)[None]
    keys = np.asarray(megatron_keys(labels, 50))[0, 49:]
    assert keys[:4].tolist() == [480080, 788573, 932992, 532065] and (keys == 0).sum() == 184
    dropped = np.flatnonzero(~np.asarray(goldfish_mask(labels, strategy="megatron"))[0])
    assert len(dropped) == 74 and dropped.sum() == 159171 and dropped[:4].tolist() == [117, 143, 149, 213]
    dropped = np.flatnonzero(~np.asarray(goldfish_mask(labels, k=4, h=13, strategy="megatron"))[0])
    assert len(dropped) == 1018 and dropped.sum() == 2078356 and dropped[:4].tolist() == [12, 14, 29, 41]


def test_negative_wrapped_product_takes_the_floor_modulo():
    assert megatron_keys(np.full((1, 4), 131071, np.int32), 4)[0, 3] == 157290


def test_loss_mask_of_the_specification_s_text():
    text = "1,17,4242,99999,131071,23,42,7,1000,65536,2,1,500,501,502,503,504,505,506,507,2"
    tokens = np.array([[int(token) for token in text.split(",")]], np.int32)
    assert np.asarray(megatron_keys(tokens[:, 1:], 4))[0, 3:6].tolist() == [766543, 154732, 1532]
    weights = combine_masks([goldfish(3, 4, "megatron"), not_after_eod(2)], {"tokens": tokens})
    assert "".join(str(int(weight)) for weight in weights[0]) == "11111100110111111110"


@pytest.mark.parametrize("h", [1, 2, 3, 7, 13, 49, 50, 64])
def test_megatron_mask_equals_numpy_int64(h):
    rng = np.random.default_rng(h)
    labels = rng.integers(0, 131072, (3, 200)).astype(np.int32)
    labels[1] |= 1  # odd factors never collapse, so the whole 64 bits stay in play
    labels[2, ::67] = -1
    np.testing.assert_array_equal(np.asarray(megatron_keys(labels, h))[:, h - 1 :], oracle_keys(labels, h))
    keep = goldfish_mask(labels, k=7, h=h, strategy="megatron")
    np.testing.assert_array_equal(keep, oracle_mask(labels, 7, h))
    assert not keep.all() and np.asarray(keep)[:, : h - 1].all()


def test_row_shorter_than_the_window_is_kept_whole():
    assert goldfish_mask(np.full((2, 10), 4, np.int32), k=2, h=50, strategy="megatron").all()


@pytest.mark.parametrize("arguments", [{"k": 1}, {"k": 2.5}, {"h": 0}, {"strategy": "random"}])
def test_bad_goldfish_settings_are_named(arguments):
    (name, value), *_ = arguments.items()
    with pytest.raises(UserError, match=name) as raised:
        goldfish(**arguments)
    assert str(value) in str(raised.value)

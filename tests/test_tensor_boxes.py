"""Tensor files in pieces: the bytes of the safetensors library, and boxes that are what whole tensors hold there."""

import itertools

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from apertus_jax.storage.tensors.boxes import box_shape, boxes_within, c_strides, consecutive_boxes
from apertus_jax.storage.tensors.reader import TensorReader
from apertus_jax.storage.tensors.writer import TensorSpec, write_tensors

DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16, np.float64)


def tensors_of_every_kind():
    """Returns tensors of all types and odd shapes, in no order."""
    random = np.random.default_rng(0)
    shapes = {"z": (3, 5, 4), "a.b": (7,), "scalar": (), 'ä "quoted"/x': (2, 9), "empty": (0, 4), "m": (1, 1, 6, 2)}
    return {
        f"{name}-{np.dtype(dtype).name}": np.asarray(random.standard_normal(shape), dtype)
        for (name, shape), dtype in itertools.product(shapes.items(), DTYPES)
    }


@pytest.mark.parametrize("piece_bytes", [1, 24, 1 << 20])
def test_files_in_pieces_have_the_bytes_of_the_library(tmp_path, piece_bytes):
    tensors = tensors_of_every_kind()
    specs = [TensorSpec(name, array.shape, array.dtype) for name, array in tensors.items()]
    write_tensors(tmp_path, specs, lambda name, box: tensors[name][box], piece_bytes=piece_bytes)
    expected = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 4), (1, 1, 6, 2), (4, 1, 3), (0, 4)])
@pytest.mark.parametrize("limit", [1, 8, 20, 60, 10_000])
def test_boxes_in_order_are_the_whole_array(shape, limit):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    pieces = [array[box].reshape(-1) for box in consecutive_boxes(shape, 4, limit)]
    assert np.array_equal(np.concatenate(pieces), array.reshape(-1))
    assert all(piece.nbytes <= max(limit, 4) for piece in pieces)


def test_boxes_of_a_part_span_no_more_than_asked():
    whole, part = (6, 10, 8), (3, 7, 2)
    strides = c_strides(whole, 4)
    for limit in (4, 40, 100, 700, 5000):
        seen = np.zeros(part, int)
        for box in boxes_within(part, strides, 4, limit):
            seen[box] += 1
            span = sum((size - 1) * stride for size, stride in zip(box_shape(box), strides, strict=True)) + 4
            assert span <= max(limit, 4)
        assert (seen == 1).all()


def test_boxes_read_are_what_the_tensor_holds_there(tmp_path, monkeypatch):
    monkeypatch.setattr("apertus_jax.storage.tensors.reader.PIECE_BYTES", 48)
    tensors = tensors_of_every_kind()
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    random = np.random.default_rng(1)
    with TensorReader(tmp_path) as reader:
        for name, array in tensors.items():
            assert reader.read(name).tobytes() == array.tobytes() and reader.shape(name) == array.shape
            if array.size == 0:
                continue
            for _ in range(20):
                ends = [sorted(random.choice(size + 1, 2, replace=False)) for size in array.shape]
                box = tuple(slice(int(a), int(b)) for a, b in ends)
                assert np.array_equal(reader.read(name, box), array[box])
        finer = reader.read("z-float32", (slice(1, 2), slice(0, 2), slice(2, 5), slice(1, 2)), axes=(3, 2, 5, 2))
        assert np.array_equal(finer, tensors["z-float32"].reshape(3, 2, 5, 2)[1:2, 0:2, 2:5, 1:2])

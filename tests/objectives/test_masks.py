"""Loss masks compose in lists, and a new one is three lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.objectives import ContextMask, combine_masks, completion_only, goldfish, not_after_eod, not_padding
from apertus_jax.objectives.masks import check_masks, left_context_of

BATCH = {
    "tokens": np.array([[1, 61, 5, 67, 8, 9, 68, 6, 2, 1, 7, 67, 4]], np.int32),
    "segment_ids": np.array([[0] * 9 + [1] * 3], np.int32),
}


def test_eod_is_masked_where_it_is_the_input():
    keep = not_after_eod(2)(BATCH)
    assert np.flatnonzero(~np.asarray(keep)[0]).tolist() == [8]


def test_padding_is_masked_where_it_is_the_label():
    batch = {"tokens": np.array([[1, 5, 2, -1, -1]], np.int32)}
    assert np.asarray(not_padding()(batch))[0].tolist() == [True, True, False, False]


def test_completions_keep_their_end_and_stop_with_the_document():
    assert np.flatnonzero(completion_only(67, 68)(BATCH)[0]).tolist() == [3, 4, 5, 11]
    unclosed = {"tokens": np.array([[67, 5, 2, 1, 6, 7]], np.int32), "segment_ids": np.array([[0, 0, 0, 1, 1]])}
    assert np.flatnonzero(completion_only(67, 68)(unclosed)[0]).tolist() == [0, 1, 2]


def test_masks_combine_with_each_other_and_the_batch_s_weights():
    masks = [completion_only(67, 68), not_after_eod(9)]
    weights = combine_masks(masks, {**BATCH, "loss_weights": np.full((1, 12), 0.5, np.float32)})
    assert weights.dtype == jnp.float32
    assert np.asarray(weights)[0].tolist() == [0, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0, 0, 0.5]
    assert combine_masks([], BATCH).sum() == 12


def test_a_user_composes_a_new_mask_in_three_lines():
    def drop_labels(label_ids):
        return lambda batch: ~jnp.isin(batch["tokens"][:, 1:], jnp.asarray(label_ids))

    weights = jax.jit(lambda batch: combine_masks([goldfish(k=10_000), drop_labels([5, 6])], batch))(BATCH)
    assert np.flatnonzero(np.asarray(weights)[0] == 0).tolist() == [1, 6]


SHAPES = {"tokens": jax.ShapeDtypeStruct((2, 9), jnp.int32)}


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (lambda batch, step: batch["tokens"][:, 1:] > 0, "fails with TypeError"),
        (lambda batch: batch["steps"] > 0, "fails with KeyError: 'steps'; batches have tokens"),
        (lambda batch: batch["tokens"] > 0, r"gives bool\[2, 9\] .* must give bool\[2, 8\]"),
        (
            lambda batch: (batch["tokens"][:, 1:] > 0).astype(jnp.int32),
            r"gives int32\[2, 8\] .* must give bool\[2, 8\]",
        ),
        (lambda batch: None, "gives None"),
    ],
    ids=["two arguments", "no such field", "shape", "dtype", "nothing"],
)
def test_mask_that_breaks_its_protocol_is_one_line(mask, told):
    with pytest.raises(UserError, match=told) as caught:
        check_masks([not_padding(), mask], SHAPES)
    assert "tests.objectives.test_masks" in str(caught.value).replace("/", ".") and "\n" not in str(caught.value)
    check_masks([not_padding(), not_after_eod(2), completion_only(1, 2)], SHAPES)


def test_context_of_masks_is_the_longest_and_a_count():
    assert left_context_of([]) == left_context_of([not_padding()]) == 0
    assert left_context_of([goldfish(h=7), not_padding(), goldfish(h=20)]) == 19
    assert isinstance(goldfish(), ContextMask) and not isinstance(not_padding(), ContextMask)
    mask = not_padding()
    mask.left_context = -3
    with pytest.raises(UserError, match=r"left_context of the loss mask apertus_jax.objectives.masks.not_padding.* -3"):
        left_context_of([mask])

"""Loss masks compose in lists, and a new one is three lines."""

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.objectives import combine_masks, completion_only, goldfish, not_after_eod, not_padding

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


def test_completions_are_kept_with_their_end_and_stop_at_the_document_s_end():
    assert np.flatnonzero(completion_only(67, 68)(BATCH)[0]).tolist() == [3, 4, 5, 11]
    unclosed = {"tokens": np.array([[67, 5, 2, 1, 6, 7]], np.int32), "segment_ids": np.array([[0, 0, 0, 1, 1]])}
    assert np.flatnonzero(completion_only(67, 68)(unclosed)[0]).tolist() == [0, 1, 2]


def test_masks_combine_with_each_other_and_with_the_batch_s_weights():
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

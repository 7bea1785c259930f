"""The near-duplicate audit: what copies with different holes show together, against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data import train_bpe
from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.near_duplicates import (
    align,
    key_degeneracy,
    leak_of_copies,
    mask_leak,
    visible_bytes,
)
from apertus_jax.objectives import goldfish, goldfish_mask
from apertus_jax.objectives.megatron_hash import hash_table
from tests.evaluation.memorization.reciting_model import psalm_passages

K, H = 4, 13


@pytest.fixture(scope="module")
def passages():
    return psalm_passages()


@pytest.fixture(scope="module")
def tokenizer(passages):
    return train_bpe(passages, 1024)


def with_line_breaks(text, every):
    """A copy whose words are broken into lines: the same visible bytes, other tokens."""
    words = text.split()
    return "\n".join(" ".join(words[start : start + every]) for start in range(0, len(words), every))


def kept_bytes(texts, tokenizer, strategy):
    """bool[n] for the visible bytes of each document, straight from the mask function."""
    documents = tokenizer.encode_batch(texts)
    rows = np.zeros((len(texts), max(map(len, documents))), np.int32)
    for row, ids in zip(rows, documents, strict=True):
        row[: len(ids)] = ids
    kept = []
    for ids, keep in zip(documents, np.asarray(goldfish_mask(rows, K, H, strategy)), strict=True):
        lengths = [len("".join(tokenizer.decode([token]).split())) for token in ids]
        kept.append(np.repeat(keep[: len(ids)], lengths))
    return np.stack(kept)


@pytest.mark.parametrize("strategy", ["document", "megatron"])
def test_leak_of_line_breaks_is_the_union_of_the_masks(passages, tokenizer, strategy):
    text = passages[0]
    variants = [with_line_breaks(text, every) for every in range(3, 13)]
    found = mask_leak(text, variants, tokenizer, [goldfish(K, H, strategy)])
    kept = kept_bytes([text, *variants], tokenizer, strategy)
    assert (found.copies, found.units) == kept.shape and found.present == 1.0
    assert found.masked == (~kept[0]).mean()
    assert found.union == kept.any(axis=0).mean()
    assert found.masked_in_all == (~kept).all(axis=0).mean()
    assert found.never_masked == kept.all(axis=0).mean()
    assert found.hidden_left == (~kept).all(axis=0)[~kept[0]].mean()
    # Eleven copies with independent holes leave about 4^-10 of them; line breaks move most windows of 13.
    assert found.masked > 0.1 and found.hidden_left < 0.5


@pytest.mark.parametrize("unit", ["bytes", "tokens"])
def test_exact_copies_show_nothing_more(passages, tokenizer, unit):
    found = mask_leak(passages[1], [passages[1]] * 5, tokenizer, [goldfish(K, H)], unit=unit)
    assert found.hidden_left == 1.0 and found.present == 1.0
    assert found.union == 1 - found.masked == found.never_masked


def test_more_variants_leave_less_hidden_until_nothing_is(passages, tokenizer):
    text = passages[2]
    variants = [f"{word} {with_line_breaks(text, every)}" for word in ("Verily", "Lo") for every in range(1, 14)]
    left = [mask_leak(text, variants[:n], tokenizer, [goldfish(K, H)]).hidden_left for n in (0, 2, 8, 26)]
    assert left[0] == 1.0 and left == sorted(left, reverse=True) and left[-1] < 0.05


def test_changed_words_are_not_counted_as_shown(tokenizer):
    text = "the first word and the second word and the third word and the end"
    other = text.replace("second", "hidden")
    found = mask_leak(text, [other], tokenizer, [goldfish(K, H)])
    assert found.present == pytest.approx(1 - 4 / len(text.replace(" ", "")), abs=0.03)
    # A mask that hides everything in the passage itself shows what the other copy shows of it, and no more.
    ids = [[1, 2, 3, 4], [1, 9, 3, 4]]
    leak = leak_of_copies(ids, [np.zeros(4, bool), np.array([True, True, False, True])], "tokens")
    assert (leak.union, leak.masked_in_all, leak.hidden_left, leak.present) == (0.5, 0.5, 0.5, 0.75)
    # A word put in front moves all places: the mask is read where the copy has the unit.
    moved = leak_of_copies(
        [[1, 2, 3], [9, 1, 2, 3]], [np.zeros(3, bool), np.array([True, True, False, False])], "tokens"
    )
    assert (moved.union, moved.never_masked, moved.present) == (1 / 3, 0.0, 1.0)


def test_cluster_key_is_handed_to_masks_that_use_it(passages, tokenizer):
    mask = goldfish(K, H, use_document_keys=True)
    found = [mask_leak(passages[3], [], tokenizer, [mask], cluster_key=key) for key in (0, 77)]
    plain = mask_leak(passages[3], [], tokenizer, [goldfish(K, H)])
    assert found[0] == plain != found[1]


def test_visible_bytes_are_those_of_the_text(passages, tokenizer):
    text = with_line_breaks(passages[4], 5) + "  ünïcödé"
    ids = tokenizer.encode(text)
    symbols, flags = visible_bytes(ids, np.arange(len(ids)) % 2 == 0, tokenizer)
    assert bytes(symbols).decode() == "".join(text.split())
    assert len(flags) == len(symbols) and flags[0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_alignment_is_in_order_and_of_equal_units(first, second):
    ours, theirs = align(first, second)
    assert len(ours) == len(theirs)
    assert all(first[i] == second[j] for i, j in zip(ours, theirs, strict=True))
    assert (np.diff(ours) > 0).all() and (np.diff(theirs) > 0).all()
    again, _ = align(first, first)
    assert again.tolist() == list(range(len(first)))


def numpy_keys(ids, h):
    """Products of the last h labels in 64-bit two's complement, floor modulo the table's size."""
    with np.errstate(over="ignore"):
        products = np.array([np.prod(ids[end - h : end].astype(np.int64)) for end in range(h, len(ids) + 1)])
    return products % 1_000_003


@pytest.mark.parametrize("h", [4, 13, 50])
def test_key_degeneracy_is_that_of_64_bit_products(h):
    documents = np.random.default_rng(0).integers(0, 131072, (3000, h + 1))
    found = key_degeneracy(documents, k=50, h=h)
    keys = np.concatenate([numpy_keys(ids, h) for ids in documents])
    _, counts = np.unique(keys, return_counts=True)
    assert found.windows == len(keys)
    assert (found.zero, found.distinct, found.commonest) == (
        (keys == 0).mean(), len(counts) / len(keys), counts.max() / len(keys),
    )  # fmt: skip
    assert found.realised_rate == (hash_table()[keys] / 2**24 < 1 / 50).mean()
    assert not found.zero_is_dropped  # entry 0 of the table is 0.2337
    if h == 50:
        # Of uniform ids: docs/reference/evaluation_and_release.md §3.8.
        assert found.zero == pytest.approx(0.09, abs=0.02)
    else:
        assert found.zero < 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: mask_leak("", [], t, [goldfish(K, H)]), "a text of the near-duplicate audit is empty"),
        (lambda t: mask_leak("text", [""], t, [goldfish(K, H)]), "a text of the near-duplicate audit is empty"),
        (lambda t: mask_leak("\n \n", ["a"], t, [goldfish(K, H)]), "has no visible text"),
        (lambda t: mask_leak("text", [], t, [goldfish(K, H)], unit="words"), "unit 'words' is unknown"),
        (lambda t: key_degeneracy([[1, 2, 3]], h=50), "no document has the 50 labels"),
    ],
)
def test_bad_input_is_one_line(tokenizer, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(tokenizer)
    assert "\n" not in str(error.value)

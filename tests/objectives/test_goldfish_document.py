"""Our Goldfish hash: one document, one mask, wherever and at whatever sequence length it is packed."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from apertus_jax.errors import UserError
from apertus_jax.objectives import goldfish, goldfish_mask
from apertus_jax.objectives.document_hash import document_hashes

BOD, EOD = 1, 2
MASK_32 = 2**32 - 1


def rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & MASK_32


def mix(value: int) -> int:
    value = (value ^ (value >> 16)) * 0x85EBCA6B & MASK_32
    value = (value ^ (value >> 13)) * 0xC2B2AE35 & MASK_32
    return value ^ (value >> 16)


def join(recent: int, older: int) -> int:
    scrambled = rotate(recent * 0xCC9E2D51 & MASK_32, 15) * 0x1B873593 & MASK_32
    return (rotate(older ^ scrambled, 13) * 5 + 0xE6546B64) & MASK_32


def oracle_hash(context: list[int], h: int, key: int = 0) -> int:
    """The hash of a document's labels so far, in plain integers and by recursion instead of by doubling arrays."""
    used = context[-h:]

    def power(end: int, width: int) -> int | None:
        if end <= 0:
            return None
        if width == 1:
            return mix(used[end - 1] & MASK_32)
        recent, older = power(end, width // 2), power(end - width // 2, width // 2)
        return recent if older is None else join(recent, older)

    total, covered, width = None, 0, 1
    while width <= h:
        if h & width:
            older = power(len(used) - covered, width)
            total = older if total is None else (total if older is None else join(total, older))
            covered += width
        width *= 2
    return mix(mix((total + len(used) * 0x9E3779B1) & MASK_32) ^ key)


@functools.cache
def jitted_mask(k: int, h: int):
    return jax.jit(lambda labels, segments, left: goldfish_mask(labels, k, h, "document", segments, left))


def pack(documents: list[list[int]], offset: int, rows: int, length: int, h: int):
    """Windows of the concatenated documents, with brute-force segments, left context and the place of each label.

    Places are (document, position in the document's labels), or None for the label of an EoD input and of padding.
    """
    stream = [token for document in documents for token in document] + [0] * (rows * length + 1)
    owner = [(d, p) for d, document in enumerate(documents) for p in range(len(document))]
    owner += [(len(documents), p) for p in range(len(stream) - len(owner))]
    labels = np.zeros((rows, length), np.int32)
    segments, left = np.zeros_like(labels), np.full((rows, h - 1), -1, np.int32)
    places = {}
    for row in range(rows):
        start = offset + row * length
        for i in range(length):
            document, position = owner[start + i]
            labels[row, i] = stream[start + i + 1]
            segments[row, i] = sum(stream[start + j] == EOD for j in range(i))
            if document < len(documents) and position < len(documents[document]) - 1:
                places[row, i] = (document, position)
        document, position = owner[start]
        before = [stream[start - back] for back in range(position)][: h - 1]  # labels, nearest first
        for back, label in enumerate(before):
            left[row, h - 2 - back] = label
    return labels, segments, left, places


documents_strategy = st.lists(
    st.lists(st.integers(3, 9), min_size=0, max_size=40).map(lambda body: [BOD, *body, EOD]), min_size=1, max_size=8
)


@pytest.mark.parametrize("h", [2, 5, 13])
@settings(max_examples=40, deadline=None)
@given(documents=documents_strategy, length=st.sampled_from([7, 16, 31]), cut=st.integers(0, 30))
def test_document_has_the_same_mask_at_every_packing(h, documents, length, cut):
    total = sum(map(len, documents))
    rows = 12
    labels, segments, left, places = pack(documents, min(cut, total - 1), rows, length, h)
    keep = np.asarray(jitted_mask(3, h)(labels, segments, left))
    for (row, i), (document, position) in places.items():
        alone = documents[document][1 : position + 2]
        assert keep[row, i] == (oracle_hash(alone, h) >= -(-(2**32) // 3))


@settings(max_examples=40, deadline=None)
@given(documents=documents_strategy, order=st.randoms(use_true_random=False))
def test_neighbours_do_not_matter(documents, order):
    def masks_of(sequence, length):
        labels, segments, left, places = pack(sequence, 0, 340 // length, length, 50)
        keep = np.asarray(jitted_mask(2, 50)(labels, segments, left))
        return {(tuple(sequence[d]), p): keep[at] for at, (d, p) in places.items()}

    shuffled = order.sample(documents, len(documents))
    assert masks_of(documents, 17) == masks_of(shuffled, 85)


@pytest.mark.parametrize("h", [1, 3, 50])
def test_hashes_equal_the_brute_force_oracle(h):
    rng = np.random.default_rng(h)
    labels = rng.integers(0, 131072, (2, 70)).astype(np.int32)
    segments = np.cumsum(rng.random((2, 70)) < 0.06, axis=1).astype(np.int32)
    left = rng.integers(0, 131072, (2, 60)).astype(np.int32)
    left[0, :35] = -1
    keys = (segments * 7919 + 3).astype(np.uint32)
    hashes = np.asarray(document_hashes(labels, h, segments, left, keys))
    for row in range(2):
        before = left[row][left[row] >= 0].tolist()
        for i in range(70):
            same = [int(labels[row, j]) for j in range(i + 1) if segments[row, j] == segments[row, i]]
            context = (before if segments[row, i] == segments[row, 0] else []) + same
            assert hashes[row, i] == oracle_hash(context, h, int(keys[row, i])), (row, i)


def test_without_segments_the_row_is_one_document():
    labels = np.random.default_rng(0).integers(3, 99, (2, 80)).astype(np.int32)
    one = goldfish_mask(labels, k=2, segment_ids=np.zeros_like(labels), left_context=np.full((2, 49), -1, np.int32))
    np.testing.assert_array_equal(goldfish_mask(labels, k=2), one)


def test_realised_rate_is_one_in_k_from_the_first_label_on():
    labels = np.random.default_rng(1).integers(0, 131072, (6000, 120)).astype(np.int32)
    dropped = ~np.asarray(goldfish_mask(labels, k=50))
    per_position = dropped.sum(axis=0)
    low, high = stats.binom.ppf([1e-6, 1 - 1e-6], len(labels), 1 / 50)
    assert per_position.min() >= low and per_position.max() <= high
    low, high = stats.binom.ppf([1e-6, 1 - 1e-6], dropped.size, 1 / 50)
    assert low <= dropped.sum() <= high


def test_hashes_of_little_texts_are_uniform():
    """Two-letter texts of at most twelve labels: all their prefixes together fill 256 bins evenly."""
    labels = np.stack([(np.arange(4096) >> bit) & 1 for bit in range(12)], axis=1).astype(np.int32) + 3
    hashes = np.unique(np.asarray(document_hashes(labels, 50)))
    assert len(hashes) >= 2**13 - 2 - 8  # one for each distinct prefix, but for a few birthdays
    for shift in (0, 12, 24):
        counts = np.bincount((hashes >> np.uint32(shift)) & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_hash_depends_on_the_last_h_labels_in_order_alone():
    labels = np.arange(100, 120, dtype=np.int32)[None]
    reference = np.asarray(document_hashes(labels, 6))[0]
    changed = np.repeat(labels, 20, axis=0)
    changed[np.arange(20), np.arange(20)] = 7
    differs = np.asarray(document_hashes(changed, 6)) != reference
    distance = np.arange(20)[None] - np.arange(20)[:, None]
    np.testing.assert_array_equal(differs, (distance >= 0) & (distance < 6))
    swapped = labels.copy()
    swapped[0, [9, 10]] = swapped[0, [10, 9]]
    differs = np.asarray(document_hashes(swapped, 6))[0] != reference
    assert np.flatnonzero(differs).tolist() == [9, 10, 11, 12, 13, 14, 15]


def test_document_keys_change_the_mask_only_when_asked_for():
    labels = np.random.default_rng(2).integers(3, 999, (2, 400)).astype(np.int32)
    tokens = np.concatenate([labels[:, :1], labels], axis=1)
    batch = {"tokens": tokens, "document_keys": np.full((2, 400), 12345, np.uint32)}
    plain, keyed = goldfish(4), goldfish(4, use_document_keys=True)
    np.testing.assert_array_equal(plain(batch), goldfish_mask(labels, k=4))
    agreement = np.mean(np.asarray(keyed(batch)) == np.asarray(plain(batch)))
    assert abs(agreement - (0.75**2 + 0.25**2)) < 0.1


def test_short_left_context_is_refused():
    labels = np.ones((1, 8), np.int32)
    with pytest.raises(UserError, match="left_context holds 3 labels but goldfish h=50 looks back 49"):
        goldfish_mask(labels, left_context=np.ones((1, 3), np.int32))

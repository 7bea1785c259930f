"""The Goldfish mask of content anchors: all copies of a document share their holes, whatever their tokens are."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.errors import UserError
from apertus_jax.objectives import anchor_table, goldfish, goldfish_mask, measure_drop_rate, normalized
from apertus_jax.objectives.anchors import LONGEST_TEXT

BOD, EOD = 1, 2
MASK_32 = 2**32 - 1
SPELLED = "the and of that his shall unto for he lord son king house day land people went said came forth"
WORDS = SPELLED.split(" ")


class Vocabulary(NamedTuple):
    pieces: tuple
    counts: np.ndarray


def make_vocabulary():
    """Three special ids, then bytes, words with and without a space before them, halves of words, and odd ids."""
    pieces = [b"", b"", b"", *(bytes([value]) for value in range(256))]
    for word in WORDS:
        pieces += [word.encode(), f" {word}".encode(), word[: len(word) // 2].encode(), word[len(word) // 2 :].encode()]
    pieces += [b" " + word.capitalize().encode() for word in WORDS]
    pieces += [b"\n", b"\n\n", b"  ", b"\t", b"=" * 20, b"-" * 70, " é".encode(), "ありがとう".encode()]
    pieces = tuple(dict.fromkeys(pieces[3:]))
    counts = np.ones(len(pieces) + 3, np.int64)
    counts[: 256 + 3] = 0
    # Eight bytes of a run are like the next eight, so their holes come together: the rate is meant for other text.
    counts[[number + 3 for number, piece in enumerate(pieces) if len(piece) >= 20]] = 0
    return Vocabulary((b"", b"", b"", *pieces), counts)


VOCABULARY = make_vocabulary()
TABLE = anchor_table(VOCABULARY)
IDS = {piece: number for number, piece in enumerate(VOCABULARY.pieces) if piece}


def mix(value):
    value = (value ^ (value >> 16)) * 0x85EBCA6B & MASK_32
    value = (value ^ (value >> 13)) * 0xC2B2AE35 & MASK_32
    return value ^ (value >> 16)


def oracle_holes(text: bytes, rate: float, key: int) -> list[bool]:
    """Which bytes of a normalised text are holes, one at a time, in plain integers."""
    holes = []
    for end in range(1, len(text) + 1):
        window = text[max(end - 8, 0) : end]
        number = int.from_bytes(window, "big")
        hashed = mix(((number >> 32) + len(window) * 0x9E3779B1) & MASK_32)
        holes.append(mix(mix(hashed ^ (number & MASK_32)) ^ key) < min(int(rate * 2**32), MASK_32))
    return holes


def oracle_drops(labels: list[int], k: int, key: int) -> list[bool]:
    """Which labels of a whole document are dropped."""
    pieces = [normalized(VOCABULARY.pieces[label]) if label < len(VOCABULARY.pieces) else b"" for label in labels]
    holes = oracle_holes(b"".join(pieces), TABLE.byte_rate(k), key)
    drops, begin = [], 0
    for piece in pieces:
        drops.append(any(holes[begin : begin + min(len(piece), LONGEST_TEXT)]))
        begin += len(piece)
    return drops


@functools.cache
def jitted(k, h):
    return jax.jit(
        lambda labels, segments, left, keys: goldfish_mask(labels, k, h, "cluster", segments, left, keys, TABLE)
    )


@functools.cache
def whole_row(k):
    return jax.jit(
        lambda labels, key: goldfish_mask(
            labels, k, 50, "cluster", document_keys=jnp.full(labels.shape, key, jnp.uint32), anchors=TABLE
        )
    )


def hole_bytes(labels, k, key):
    """The bytes of a document's normalised text that no label in the loss covers → (text, bool per byte)."""
    padded = np.full((1, 1024), 0, np.int32)
    padded[0, : len(labels)] = labels
    dropped = ~np.asarray(whole_row(k)(padded, key))[0, : len(labels)]
    pieces = [normalized(VOCABULARY.pieces[label]) for label in labels]
    return b"".join(pieces), np.repeat(dropped, [len(piece) for piece in pieces])


def sentence(rng, words):
    return [f" {word}" for word in rng.choice(WORDS, words)]


def as_ids(words):
    return [IDS[word.encode()] for word in words]


def by_bytes(words):
    return [IDS[bytes([value])] for word in words for value in word.encode()]


def halved(words):
    return [IDS[part] for word in words for part in (b" ", *_halves(word.strip().encode()))]


def _halves(word):
    return [part for part in (word[: len(word) // 2], word[len(word) // 2 :]) if part]


labels_strategy = st.lists(st.integers(3, len(VOCABULARY.pieces) - 1), max_size=40)


@pytest.mark.parametrize("h", [2, 9, 50])
@settings(max_examples=30, deadline=None)
@given(
    documents=st.lists(labels_strategy, min_size=1, max_size=6), length=st.sampled_from([16, 31]), key=st.integers(0, 9)
)
def test_document_has_the_same_holes_at_every_packing(h, documents, length, key):
    documents = [[BOD, *body, EOD] for body in documents]
    stream = np.array([token for document in documents for token in document] + [0] * (2 * length + 1))
    owner = np.repeat(np.arange(len(documents) + 1), [*map(len, documents), 2 * length + 1])
    place = np.concatenate([np.arange(len(document)) for document in documents] + [np.arange(2 * length + 1)])
    keys = (owner * 1_000_003 + key).astype(np.uint32)
    for start in range(0, len(stream) - length - 1, length):
        inputs = slice(start, start + length)
        left = np.full((1, h - 1), -1, np.int32)
        known = min(int(place[start]), h - 1)
        if known:
            left[0, h - 1 - known :] = stream[start - known + 1 : start + 1]
        keep = jitted(3, h)(stream[None, start + 1 : start + length + 1], owner[None, inputs], left, keys[None, inputs])
        for at, kept in zip(range(start, start + length), np.asarray(keep)[0], strict=True):
            document = owner[at]
            if document == len(documents) or place[at] == len(documents[document]) - 1:
                continue
            alone = documents[document][1 : place[at] + 2][-h:]
            assert kept == (not oracle_drops(alone, 3, int(keys[at]))[-1]), (document, int(place[at]))


@pytest.mark.parametrize("k", [2, 4, 50])
def test_drops_equal_the_oracle_that_reads_one_byte_at_a_time(k):
    rng = np.random.default_rng(k)
    for key in (0, 12345, MASK_32):
        labels = rng.integers(3, len(VOCABULARY.pieces) + 5, 900).tolist()
        found = ~np.asarray(whole_row(k)(np.array([labels], np.int32), np.uint32(key)))[0]
        # Eight bytes lie within fifty labels unless nearly all of these are white space.
        np.testing.assert_array_equal(found, oracle_drops(labels, k, key))


@pytest.mark.parametrize("k", [4, 50])
def test_another_tokenization_never_teaches_a_hole(k):
    rng = np.random.default_rng(0)
    covered = 0
    for number in range(12):
        words = sentence(rng, 150)
        rate = TABLE.byte_rate(k)
        texts = {tokenized: hole_bytes(tokenized(words), k, number) for tokenized in (as_ids, by_bytes, halved)}
        text, _ = texts[as_ids]
        holes = np.array(oracle_holes(text, rate, number))
        for other, dropped in texts.values():
            assert other == text
            assert dropped[holes].all()
        covered += holes.sum()
    assert covered > 12


@pytest.mark.parametrize("edit", ["line_breaks", "capitals", "indentation"])
def test_copies_laid_out_differently_share_every_hole(edit):
    rng = np.random.default_rng(1)
    words = sentence(rng, 200)
    labels = as_ids(words)
    copy = []
    for place, word in enumerate(words):
        if edit == "line_breaks" and place % 7 == 3:
            copy += [IDS[b"\n"], IDS[word.strip().encode()]]
        elif edit == "capitals" and place % 5 == 2:
            copy.append(IDS[b" " + word.strip().capitalize().encode()])
        elif edit == "indentation" and place % 9 == 1:
            copy += [IDS[b"\n"], IDS[b"  "], IDS[b"\t"], IDS[word.encode()]]
        else:
            copy.append(IDS[word.encode()])
    assert copy != labels
    text, dropped = hole_bytes(labels, 4, 77)
    other, dropped_there = hole_bytes(copy, 4, 77)
    assert other == text and dropped.any()
    np.testing.assert_array_equal(dropped, dropped_there)


def test_after_a_changed_word_the_holes_are_the_same_again():
    rng = np.random.default_rng(2)
    words = sentence(rng, 200)
    changed = [*words[:100], " people", *words[101:]]
    assert changed[100] != words[100]
    text, dropped = hole_bytes(as_ids(words), 4, 5)
    other, dropped_there = hole_bytes(as_ids(changed), 4, 5)
    before = len("".join(words[:100]).replace(" ", ""))
    after = len("".join(words[101:]).replace(" ", ""))
    np.testing.assert_array_equal(dropped[:before], dropped_there[:before])
    # A word of up to six letters begins in the changed window, and a hole in its first part drops all of it.
    settled = after - 8 - 6
    np.testing.assert_array_equal(dropped[-settled:], dropped_there[-settled:])
    shared = (dropped[-after:] == dropped_there[-after:]).mean()
    assert shared > 0.97


def test_clusters_draw_their_holes_independently():
    rng = np.random.default_rng(3)
    labels = np.array([as_ids(sentence(rng, 1000)) for _ in range(20)], np.int32)
    first = ~np.asarray(whole_row(4)(labels, np.uint32(1)))
    second = ~np.asarray(whole_row(4)(labels, np.uint32(2)))
    both, expected = (first & second).mean(), first.mean() * second.mean()
    assert both == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("k", [4, 50])
def test_realised_rate_is_one_in_k_of_the_counted_labels(k):
    rng = np.random.default_rng(4)
    share = VOCABULARY.counts / VOCABULARY.counts.sum()
    labels = rng.choice(len(share), (400, 512), p=share).astype(np.int32)
    keys = rng.integers(0, 2**32, (400, 1), dtype=np.uint32) * np.ones((1, 512), np.uint32)
    dropped = ~np.asarray(goldfish_mask(labels, k, 50, "cluster", document_keys=keys, anchors=TABLE))
    # Words come again in one document, so labels are not quite independent.
    assert dropped.mean() == pytest.approx(1 / k, rel=0.03)


def test_white_space_and_special_ids_are_never_dropped():
    silent = [number for number, piece in enumerate(VOCABULARY.pieces) if not normalized(piece)]
    labels = np.random.default_rng(5).choice([*silent, IDS[b"the"], -1, len(VOCABULARY.pieces)], (4, 300))
    dropped = ~np.asarray(goldfish_mask(labels, 2, 50, "cluster", anchors=TABLE))
    assert dropped.any()
    assert not dropped[labels != IDS[b"the"]].any()


def test_mask_uses_keys_of_the_batch_and_asks_for_left_context():
    mask = goldfish(4, 13, "cluster", anchors=VOCABULARY)
    assert mask.left_context == 12
    tokens = np.array([[BOD, *as_ids(sentence(np.random.default_rng(6), 300))]] * 2, np.int32)
    batch = {"tokens": tokens, "document_keys": np.array([[1], [2]], np.uint32) * np.ones((1, 300), np.uint32)}
    first, second = np.asarray(mask(batch))
    assert (first != second).any()
    same = {**batch, "document_keys": np.ones((2, 300), np.uint32)}
    np.testing.assert_array_equal(*np.asarray(mask(same)))


def test_measured_rates_know_the_strategy():
    documents = np.array([as_ids(sentence(np.random.default_rng(7), 200))])
    assert measure_drop_rate(documents, "cluster", 4, anchors=TABLE).dropped > 0


def test_missing_or_useless_anchors_are_one_clear_line():
    with pytest.raises(UserError, match="anchors"):
        goldfish(50, 50, "cluster")
    with pytest.raises(UserError, match="anchors"):
        measure_drop_rate(np.ones((1, 9), int), "cluster")
    with pytest.raises(UserError, match="count of every id"):
        anchor_table(Vocabulary((b"a", b"b"), np.zeros(2)))
    blank = anchor_table(Vocabulary((b" ", b"b"), np.array([9, 1])))
    with pytest.raises(UserError, match="90% of the labels"):
        blank.byte_rate(4)

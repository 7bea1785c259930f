"""Normalised words, exact hash functions, and the promise of MinHash: the probability to meet at each similarity."""

import math
import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.duplicates import DuplicateScoring, normalized_words
from apertus_jax.corpus.duplicates import signatures as sig
from apertus_jax.corpus.duplicates.words import fold, fold_numbers
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.errors import UserError

HASHES = sig.Signatures(112, 1)


def document(text):
    return RawDocument("0" * 32, text, "s", "f", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello,  World!\n\nIt's  fine.", "hello world it s fine"),
        ("Ｆｕｌｌ ﬁle Straße STRASSE", "full file strasse strasse"),
        ("café cafe\u0301 Ångström naïve", "cafe cafe angstrom naive"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("1,000.5 and 1’000", "10005 and 1000"),
        ("你好，世界 2024年", "你 好 世 界 2024 年"),
        ("スーパーが", "ス ー パ ー が"),
        ("สวัสดี", "ส วั ส ดี"),
        ("한국어 문서", "한국어 문서"),
        ("हिन्दी क्या", "हिन्दी क्या"),
        ("مُحَمَّد", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("… -- ***", ""),
        ("", ""),
    ],
)
def test_words_are_normalised(text, words):
    assert normalized_words(text) == unicodedata.normalize("NFC", words)


@given(st.text(), st.sampled_from([1, 2, 5, 1 << 20]))
@settings(max_examples=200, deadline=None)
def test_words_do_not_depend_on_pieces_caches_or_a_second_pass(text, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apertus_jax.corpus.duplicates.words.PIECE_CHARACTERS", piece)
        words = normalized_words(text)
    assert words == " ".join(" ".join(map(fold, text.split())).split())
    assert words == " ".join(words.split(" ")).strip()


def test_numbers_are_one_word_unless_a_text_is_numbers():
    assert fold_numbers("flight 12 leaves at 0930") == "flight 0 leaves at 0"
    assert fold_numbers("b2b and 24x7") == "b0b and 0x0"
    assert fold_numbers("1 2 3 total") == "1 2 3 total"
    assert fold_numbers("no number") == "no number"


def test_hash_functions_are_exact_and_those_of_datatrove():
    generator = np.random.RandomState(1)
    assert HASHES.factors.tolist() == generator.randint(1, sig.PRIME, dtype=np.uint64, size=(1, 112))[0].tolist()
    edge = [0, 1, 2, sig.PRIME - 1, sig.PRIME, sig.PRIME + 1, 2**61, 2**32, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 8]
    x = np.array(edge, np.uint64)
    factors = np.array([1, 2, sig.PRIME - 1, 2**32 - 1, 2**32, 2**60 + 12345], np.uint64)
    offsets = np.array([0, sig.PRIME - 1, sig.PRIME - 2, 7, 2**60, 1], np.uint64)
    computed = sig.permute(x[:, None], factors, offsets)
    for row, value in enumerate(edge):
        expected = [(int(a) * value + int(b)) % sig.PRIME for a, b in zip(factors, offsets, strict=True)]
        assert computed[row].tolist() == expected


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30), min_size=1, max_size=6), st.integers(1, 50)
)
@settings(max_examples=30, deadline=None)
def test_minima_equal_integers_of_python_for_any_batch(documents, chunk):
    arrays = [np.array(values, np.uint64) for values in documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sig, "CHUNK_SHINGLES", chunk)
        together = HASHES.minima(arrays)
    pairs = [(int(a), int(b)) for a, b in zip(HASHES.factors, HASHES.offsets, strict=True)]
    for number, values in enumerate(documents):
        assert together[number].tolist() == [min((a * x + b) % sig.PRIME for x in values) for a, b in pairs]


def test_minima_are_exact_where_the_estimate_wraps_around():
    """Shingles whose hash is the smallest or the largest possible, beside ordinary ones."""
    ordinary = np.random.default_rng(0).integers(0, 2**64, 200, np.uint64)
    for function in (0, 57, 111):
        a, b = int(HASHES.factors[function]), int(HASHES.offsets[function])
        for hashed in (0, 1, 3, sig.PRIME - 1, sig.PRIME - 2, sig.PRIME >> 31, (sig.PRIME >> 31) + 1):
            x = np.uint64((hashed - b) * pow(a, -1, sig.PRIME) % sig.PRIME)
            values = np.concatenate([ordinary, [x]])
            expected = sig.permute(values[:, None], HASHES.factors, HASHES.offsets).min(axis=0)
            assert (HASHES.minima([values])[0] == expected).all()
            assert int(sig.permute(values[-1:], HASHES.factors[[function]], HASHES.offsets[[function]])[0]) == hashed


def test_shingles_are_word_ngrams_and_short_texts_are_one():
    words = "ein zwei drei vier fünf sechs sieben"
    parts = words.split()
    expected = [xxhash.xxh3_64_intdigest(" ".join(parts[n : n + 5]).encode()) for n in range(3)]
    assert sig.shingle_hashes(words.encode(), 5).tolist() == expected
    for short in ("ein", "ein zwei", "ein zwei drei vier", "ein zwei drei vier fünf", ""):
        assert sig.shingle_hashes(short.encode(), 5).tolist() == [xxhash.xxh3_64_intdigest(short.encode())]


def test_band_keys_hash_the_rows_and_the_number_of_a_band():
    minima = np.array([[1, 2, 1, 2, 3, 4], [3, 4, 1, 2, 3, 5]], np.uint64)
    keys = sig.band_keys(minima, 3)
    assert keys.shape == (2, 3)
    assert keys[0, 1] == keys[1, 1], "equal rows of one band meet"
    assert len(set(keys.ravel().tolist())) == 5, "equal rows of different bands do not"
    assert keys[0, 1] == xxhash.xxh3_64_intdigest(np.array([1, 2], "<u8").tobytes(), 1)


def text_of(words):
    return " ".join(f"w{word:x}" for word in words)


def pair_of_similarity(generator, similarity, shingles=300):
    """Returns two texts whose sets of word 5-grams have about the Jaccard similarity, and that similarity exactly."""
    words = [generator.getrandbits(60) for _ in range(shingles + 4)]
    changed = list(words)
    # A changed block of words at the end changes as many shingles.
    different = round(shingles * (1 - similarity) / (1 + similarity))
    changed[len(words) - different :] = [generator.getrandbits(60) for _ in range(different)]
    sets = [{tuple(text[n : n + 5]) for n in range(shingles)} for text in (words, changed)]
    return text_of(words), text_of(changed), len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("similarity", [0.5, 0.65, 0.72, 0.8, 0.9])
def test_pairs_meet_as_often_as_the_formula_says(similarity):
    generator = random.Random(f"pairs {similarity}")
    options = DuplicateScoring()
    pairs = [pair_of_similarity(generator, similarity) for _ in range(500)]
    rows = options.build().score([document(text) for pair in pairs for text in pair[:2]])
    met = sum(
        any(a == b for a, b in zip(first["duplicates_bands"], second["duplicates_bands"], strict=True))
        for first, second in zip(rows[::2], rows[1::2], strict=True)
    )
    exact = [1 - (1 - jaccard**8) ** 14 for *_, jaccard in pairs]
    deviation = math.sqrt(sum(p * (1 - p) for p in exact))
    assert abs(met - sum(exact)) <= 3.5 * deviation + 1
    assert options.match_probability(similarity) == pytest.approx(1 - (1 - similarity**8) ** 14)


def test_recall_at_jaccard_four_fifths():
    """At least 0.92 of planted pairs; 14 bands of 8 promise 0.924 at similarity 0.8 (docs/reference/data.md §8)."""
    generator = random.Random("recall")
    pairs = [pair_of_similarity(generator, 0.8, shingles=90) for _ in range(3000)]
    assert all(abs(jaccard - 0.8) < 0.005 for *_, jaccard in pairs)
    rows = DuplicateScoring().build().score([document(text) for pair in pairs for text in pair[:2]])
    met = sum(
        any(a == b for a, b in zip(first["duplicates_bands"], second["duplicates_bands"], strict=True))
        for first, second in zip(rows[::2], rows[1::2], strict=True)
    )
    assert met / len(pairs) >= 0.92


def test_scores_do_not_depend_on_batches_or_processes():
    texts = [
        "one two three four five six",
        "",
        "…",
        "short",
        "你好，世界 2024年",
        "x " * 20_000,
        "a1 b2 c3 d4 e5 f6 g7",
    ]
    scorer = DuplicateScoring(bands=4, rows=2, ngram=3).build()
    together = scorer.score([document(text) for text in texts])
    assert together == [scorer.score([document(text)])[0] for text in texts]
    assert [set(row) for row in together] == [{field.name for field in scorer.schema()}] * len(texts)
    code = (
        "from apertus_jax.corpus.duplicates import DuplicateScoring\n"
        "from apertus_jax.corpus.raw_document import RawDocument\n"
        f"texts = {texts[:5]!r}\n"
        "scorer = DuplicateScoring(bands=4, rows=2, ngram=3).build()\n"
        "print(scorer.score([RawDocument('0' * 32, text, 's', 'f', 1) for text in texts]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(together[:5])


def test_exact_key_sees_words_and_numbers_but_not_their_dress():
    keys = (
        DuplicateScoring()
        .build()
        .score([document(t) for t in ("Page 1 of 20.", "PAGE 1, of 20", "Page 2 of 20.", "***", "+++", "***")])
    )
    exact = [row["duplicates_exact_key"] for row in keys]
    bands = [row["duplicates_bands"] for row in keys]
    assert exact[0] == exact[1] != exact[2] and keys[0]["duplicates_text_digest"] != keys[1]["duplicates_text_digest"]
    assert bands[0] == bands[1] == bands[2], "near copies differ in numbers only"
    assert exact[3] == exact[5] != exact[4] and bands[3] == bands[5] != bands[4]
    assert keys[3]["duplicates_words"] == 0


def test_scope_separates_languages_or_sources():
    language, source, all_of_them = (DuplicateScoring(scope=scope) for scope in ("language", "source", "global"))
    assert (
        language.scope_of("a", "deu_Latn") == language.scope_of("b", "deu_Latn") != language.scope_of("a", "eng_Latn")
    )
    assert source.scope_of("a", "x") == source.scope_of("a", "y") != source.scope_of("b", "x")
    assert all_of_them.scope_of("a", "x") == all_of_them.scope_of("b", "y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ngram": 0}, "ngram is 0"),
        ({"bands": 300}, "bands is 300"),
        ({"scope": "planet"}, "scope is 'planet'"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        DuplicateScoring(**options)

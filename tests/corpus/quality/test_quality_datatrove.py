"""The peer: where datatrove's filters follow the definition, ours decide the same at the same threshold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.quality import EnglishQualityRule, QualityScoring, segment
from apertus_jax.corpus.raw_document import RawDocument

pytest.importorskip("datatrove")

from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.filters import fineweb_quality_filter, gopher_quality_filter  # noqa: E402
from datatrove.pipeline.filters import gopher_repetition_filter as repetition  # noqa: E402

SCORER = QualityScoring().build()
OFF = {
    **{field: None for field in EnglishQualityRule.__dataclass_fields__ if field.startswith(("minimum", "maximum"))},
    "languages": (),
    "top_n_grams": (),
    "duplicate_n_grams": (),
}
GOPHER_OFF = {
    "min_doc_words": None,
    "max_doc_words": None,
    "min_avg_word_length": None,
    "max_avg_word_length": None,
    "max_symbol_word_ratio": None,
    "max_bullet_lines_ratio": None,
    "max_ellipsis_lines_ratio": None,
    "max_non_alpha_words_ratio": None,
    "min_stop_words": None,
}
WORDS = ("the", "of", "with", "a", "stone", "river", "mountains", "12", "7", "-", "#", "…", "...", "be")
LINES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join), min_size=1, max_size=8)
TEXTS = st.tuples(LINES, st.sampled_from(["\n", "\n\n"])).map(lambda pair: pair[1].join(pair[0]))
SHARE = st.integers(1, 19).map(lambda number: number / 20 + 0.0001)  # between the fractions of short texts


def score(text):
    return SCORER.score([RawDocument("0" * 32, text, "test", "f", 1)])[0]


def our_words(text, language=None):
    words = segment([text])
    offset = int(words.document_start[0])
    return [text[s - offset : e - offset] for s, e in zip(words.start, words.end, strict=True)]


@pytest.fixture(autouse=True, scope="module")
def same_words():
    """datatrove's tokenizers are not what is compared: both sides get the same words."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (gopher_quality_filter, repetition, fineweb_quality_filter):
            patch.setattr(module, "split_into_words", our_words)
        yield


def ours_keeps(text, **limits):
    language = {"language_label": "eng_Latn", "language_declared": "und"}
    return EnglishQualityRule(**{**OFF, **limits}).verdict({**score(text), **language}, {}) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # datatrove: the mean word length of no words
@settings(max_examples=150, deadline=None)
@given(TEXTS, SHARE, st.integers(1, 12))
def test_gopher_quality_limits_decide_as_datatrove(text, share, number):
    pairs = {
        "min_doc_words": ("minimum_words", number),
        "max_doc_words": ("maximum_words", number),
        "min_avg_word_length": ("minimum_mean_word_length", number / 2 + 0.0001),
        "max_avg_word_length": ("maximum_mean_word_length", number / 2 + 0.0001),
        "max_ellipsis_lines_ratio": ("maximum_ellipsis_line_share", share),
        "max_bullet_lines_ratio": ("maximum_bullet_line_share", share),
        "max_non_alpha_words_ratio": ("minimum_alphabetic_word_share", share),
        "min_stop_words": ("minimum_stop_words", number),
    }
    text = text.replace("\n\n", "\n")  # datatrove counts blank lines as lines without bullets
    for name, (field, bound) in pairs.items():
        if "avg" in name and not any(any(c.isalnum() for c in word) for word in text.split()):
            continue  # datatrove: the mean of nothing
        theirs = gopher_quality_filter.GopherQualityFilter(**{**GOPHER_OFF, name: bound}).filter(Document(text, "0"))
        assert ours_keeps(text, **{field: bound}) == (theirs is True), (name, bound)
    limits = {**GOPHER_OFF, "max_symbol_word_ratio": share}
    theirs = gopher_quality_filter.GopherQualityFilter(**limits).filter(Document(text, "0"))
    ours = ours_keeps(text, maximum_hashes_per_word=share, maximum_ellipses_per_word=share)
    assert ours == (theirs is True)


@settings(max_examples=150, deadline=None)
@given(TEXTS, SHARE)
def test_fineweb_quality_limits_decide_as_datatrove(text, share):
    off = {"line_punct_thr": 0, "short_line_thr": 9, "char_duplicates_ratio": 9, "new_line_ratio": 9}
    pairs = {
        "line_punct_thr": "minimum_terminal_line_share",
        "short_line_thr": "maximum_short_line_share",
        "char_duplicates_ratio": "maximum_duplicate_line_character_share",
        "new_line_ratio": "maximum_newlines_per_word",
    }
    for name, field in pairs.items():
        theirs = fineweb_quality_filter.FineWebQualityFilter(**{**off, name: share}).filter(Document(text, "0"))
        assert ours_keeps(text, **{field: share}) == (theirs is True), name


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_duplicate_lines_and_paragraphs_have_datatroves_values(text):
    row = score(text)
    lines, paragraphs = text.replace("\n\n", "\n").split("\n"), text.split("\n\n")
    number, characters = repetition.find_duplicates(lines)
    assert row["quality_duplicate_line_share"] == round(number / len(lines), 6)
    assert row["quality_duplicate_line_character_share"] == round(characters / len(text.replace("\n", "")), 6)
    number, characters = repetition.find_duplicates(paragraphs)
    assert row["quality_duplicate_paragraph_share"] == round(number / len(paragraphs), 6)
    assert row["quality_duplicate_paragraph_character_share"] == round(characters / len(text), 6)


def overlaps_itself(words, n):
    """Returns whether some n-gram begins again before it has ended."""
    return any(words[i : i + n] == words[i + k : i + k + n] for k in range(1, n) for i in range(len(words) - k - n + 1))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["stone", "river", "a", "of", "hill"]), min_size=4, max_size=40))
def test_top_n_grams_equal_datatrove_unless_overlapping_or_one(words):
    text = " ".join(words)
    for n in (2, 3, 4):
        n_grams = repetition.get_n_grams(words, n)
        if overlaps_itself(words, n) or len(set(n_grams)) == len(n_grams):
            continue
        assert score(text)[f"quality_top_{n}_gram"] == round(repetition.find_top_duplicate(n_grams) / len(text), 6)


def test_datatrove_misses_repetition_that_the_definition_counts():
    passage = "one two three four five six seven eight nine"
    text = f"{passage} . {passage}"
    words = our_words(text)
    # Nine words come twice: 44 of 91 characters. datatrove counts five words, without their spaces.
    assert score(text)["quality_duplicate_5_gram"] == round(44 / 91, 6)
    assert repetition.find_all_duplicate(words, 5) == len("onetwothreefourfive")
    # Words glued together are the same to datatrove, whatever the words were.
    other = "a bc d e f x y ab c d e f"
    assert repetition.find_all_duplicate(other.split(), 5) == 6
    assert score(other)["quality_duplicate_5_gram"] == 0.0

"""Measures of words, lines and repetition against references that follow the definitions by brute force."""

import random
import re
from collections import Counter

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.bundled import bundled_documents
from apertus_jax.corpus.quality import QualityScoring, scoring, segment
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.errors import UserError
from tests.processor_time import assert_linear
from tests.processor_time import repeated as repeated_to

PIECES = [
    "a",
    "ab",
    "der",
    "The",
    "OF",
    "x",
    " ",
    " ",
    " ",
    "\n",
    "\n",
    "\n\n",
    ".",
    "...",
    "…",
    "#",
    "- ",
    "•",
    "漢",
    "字",
    "ก็",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def raw(text):
    return RawDocument(document_id="0" * 32, text=text, source="test", file="f", row=1)


def score(*texts, **options):
    return QualityScoring(**options).build().score([raw(text) for text in texts])


def words_of(text):
    """Returns (start, end, units, is symbol) of the words, as `segment` (tested on its own) finds them."""
    words = segment([text])
    offset = int(words.document_start[0])
    return [
        (int(s) - offset, int(e) - offset, int(u), bool(y))
        for s, e, u, y in zip(words.start, words.end, words.units, words.symbol, strict=True)
    ]


def lines_of(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


def repeated(items):
    """Returns the items that occurred before."""
    return [item for i, item in enumerate(items) if item in items[:i]]


def n_grams_of(text, n):
    """Returns (start, end, words) of the n-grams: at each word the shortest stretch of n words, 2 units each."""
    words, result = words_of(text), []
    for i in range(len(words)):
        units = 0
        for j in range(i, len(words)):
            units += words[j][2]
            if units >= 2 * n:
                result.append((words[i][0], words[j][1], tuple(text[s:e] for s, e, *_ in words[i : j + 1])))
                break
    return result


def reference(text):
    """Returns every measure of one text, each straight from its definition."""
    words, lines = words_of(text), lines_of(text)
    paragraphs = [p.strip() for p in re.split(r"\n\s*\n", text) if p.strip()]
    plain = [(s, e, u) for s, e, u, symbol in words if not symbol]
    spaced = [e - s for s, e, u in plain if u == 2]
    units, all_units = sum(u for *_, u in plain), sum(u for _, _, u, _ in words)
    per_word = max(all_units, 1) / 2
    share = lambda part, whole: part / max(whole, 1)  # noqa: E731
    in_words = {text[s:e].lower() for s, e, *_ in words}
    row = {
        "characters": len(text),
        "words": (units + 1) // 2,
        "lines": len(lines),
        "stop_words_eng": len(in_words & set(scoring.ENGLISH_STOP_WORDS)),
        "mean_word_length": share(sum(spaced), len(spaced)),
        "unspaced_share": share(sum(u for *_, u in plain if u == 1), units),
        "hashes_per_word": text.count("#") / per_word,
        "ellipses_per_word": (text.count("...") + text.count("…")) / per_word,
        "alphabetic_word_share": share(
            sum(u for s, e, u, _ in words if any(c.isalpha() for c in text[s:e])), all_units
        ),
        "bullet_line_share": share(sum(line[0] in "-•" for line in lines), len(lines)),
        "ellipsis_line_share": share(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "terminal_line_share": share(sum(line.endswith((".", "?", "!")) for line in lines), len(lines)),
        "short_line_share": share(sum(len(line) <= 30 for line in lines), len(lines)),
        "newlines_per_word": text.count("\n") / per_word,
        "duplicate_line_share": share(len(repeated(lines)), len(lines)),
        "duplicate_line_character_share": share(sum(map(len, repeated(lines))), len(text.replace("\n", ""))),
        "duplicate_paragraph_share": share(len(repeated(paragraphs)), len(paragraphs)),
        "duplicate_paragraph_character_share": share(sum(map(len, repeated(paragraphs))), len(text)),
    }
    for n in range(2, 11):
        n_grams = n_grams_of(text, n)
        if n <= 4:
            counts = Counter(words for *_, words in n_grams)
            top, count = counts.most_common(1)[0] if counts else ((), 0)  # of several the first in the text
            chosen = [(s, e) for s, e, words in n_grams if words == top and count > 1]
        else:
            seen, chosen = set(), []
            for s, e, words in n_grams:
                if words in seen:
                    chosen.append((s, e))
                seen.add(words)
        covered = {i for s, e in chosen for i in range(s, e)}
        row[f"top_{n}_gram" if n <= 4 else f"duplicate_{n}_gram"] = share(len(covered), len(text))
    return {f"quality_{name}": value if isinstance(value, int) else round(value, 6) for name, value in row.items()}


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_every_measure_equals_its_definition(texts):
    for text, row in zip(texts, score(*texts), strict=True):
        expected = reference(text)
        assert set(row) == set(expected)
        for name in row:
            assert row[name] == pytest.approx(expected[name], abs=1.1e-6), (name, text)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(["ha", "ho", "hi"]), max_size=60), st.integers(0, 10))
def test_repeated_words_equal_the_definition(words, cut):
    text = " ".join(words) + "\n" + " ".join(words[:cut])
    assert score(text)[0] == pytest.approx(reference(text), abs=1.1e-6)


def test_measures_of_real_texts_equal_the_definition():
    documents = [document for document in bundled_documents() if document.source == "gflanguages"]
    chosen = [d.text[:500] for d in random.Random(1).sample(documents, 80)]
    for text, row in zip(chosen, score(*chosen), strict=True):
        expected = reference(text)
        for name in row:
            # Closing punctuation of other scripts and case beyond English are not in the small reference.
            if name not in ("quality_terminal_line_share", "quality_bullet_line_share", "quality_stop_words_eng"):
                assert row[name] == pytest.approx(expected[name], abs=1.1e-6), (name, text)


def test_scores_do_not_depend_on_batching(monkeypatch):
    texts = [document.text for document in bundled_documents()][::20]
    rows = score(*texts)
    assert rows[:100] == [score(text)[0] for text in texts[:100]]
    monkeypatch.setattr(scoring, "CHARACTERS_AT_ONCE", 3000)
    assert score(*texts) == rows
    monkeypatch.setattr(scoring, "CHARACTERS_AT_ONCE", 1 << 22)
    assert score(*reversed(texts)) == rows[::-1]


def test_rows_fill_the_schema():
    scorer = QualityScoring(stop_words={"eng": ("the",), "deu": ("der", "die")}).build()
    rows = scorer.score([raw("der the DIE Der"), raw("")])
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(scorer.schema()))
    assert set(table.schema.names) == set(rows[0])
    assert table["quality_stop_words_deu"].to_pylist() == [2, 0]
    assert scorer.score([]) == []


def test_closing_punctuation_of_every_script_closes_a_line():
    row = score("終わり。\nनमस्ते।\nسؤال؟\nend!\nno end\nkhmer។")[0]
    assert row["quality_terminal_line_share"] == pytest.approx(5 / 6, abs=1e-6)


def test_self_overlapping_top_n_gram_counts_its_characters_once():
    row = score("ha ha ha ha ha")[0]
    assert row["quality_top_2_gram"] == 1.0
    assert score("one two three four")[0]["quality_top_2_gram"] == 0.0


def test_duplicate_shares_fall_as_n_grows():
    text = "a b c d e f g h i j k l . a b c d e f g x y z a b c d e"
    row = score(text)[0]
    shares = [row[f"quality_duplicate_{n}_gram"] for n in range(5, 11)]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0 and shares[2] > 0 and shares[3] == 0


def test_repetition_without_spaces_is_found_at_any_letter():
    row = score("甲乙丙丁戊己庚辛壬癸子丑甲乙丙丁戊己庚辛壬癸")[0]
    assert row["quality_words"] == 11 and row["quality_unspaced_share"] == 1.0
    assert row["quality_duplicate_5_gram"] == pytest.approx(10 / 22, abs=1e-6)
    assert row["quality_duplicate_6_gram"] == 0.0


def test_only_the_beginning_of_a_long_document_is_measured():
    text = "word " * 100
    long, short = score(text + "# " * 500, text, longest=len(text))
    assert long.pop("quality_characters") == 1500 and short.pop("quality_characters") == 500
    assert long == short


@pytest.mark.parametrize("piece", ["a", "a ", "漢", "\n", "- \n", ".", "́", "ab cd ef gh ij kl mn\n", "\ud800"])
@pytest.mark.timed
def test_hostile_documents_take_linear_time(piece):
    assert_linear(score, repeated_to(piece), 15_000)


@pytest.mark.parametrize(
    "options",
    [{"longest": 0}, {"stop_words": {"eng": "the"}}, {"stop_words": {"eng": ()}}, {"stop_words": {"cmn": ("因为",)}}],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(UserError):
        QualityScoring(**options)

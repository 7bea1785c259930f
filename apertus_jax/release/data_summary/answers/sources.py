"""Section 2 of the public summary: the training data by kind of source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apertus_jax.release.data_summary import domains
from apertus_jax.release.data_summary.answers.general import comment
from apertus_jax.release.data_summary.answers.template import COMMENTS, Answers, NotAvailable, stated, told_of_each
from apertus_jax.release.data_summary.facts import (
    CRAWL,
    LICENSED,
    OTHER,
    PUBLIC,
    SYNTHETIC,
    THIRD_PARTY,
    USER_INTERACTIONS,
    USER_SERVICES,
    SourceDescription,
)
from apertus_jax.release.data_summary.inputs import Inputs
from apertus_jax.release.data_summary.languages import UNKNOWN, names_language

MODALITY = "text"
LANGUAGES_NAMED = 12


def source_answers(inputs: Inputs) -> Answers:
    """Returns the answers to sections 2.1 to 2.6."""
    return {
        **_public(inputs),
        **_private(inputs),
        **_crawled(inputs),
        **_from_users(inputs),
        **_synthetic(inputs),
        **_other(inputs),
    }


def describe(inputs: Inputs, source: SourceDescription) -> dict[str, Any]:
    """Returns one row about a source: what was declared of it, and how much of it was kept."""
    size = inputs.kept_of([source.source])
    return {
        "source": source.source,
        "title": source.title or source.source,
        "link": stated(source.link, "bind SourceDescription.link"),
        "version": stated(_version(inputs, source), "bind Source.version or SourceDescription.version"),
        "selection": stated(source.selection, "bind SourceDescription.selection"),
        "content": stated(source.content, "bind SourceDescription.content"),
        "languages": stated(_languages(inputs, source), "nothing was kept"),
        "period": stated(source.period or inputs.period([source.source]), "bind SourceDescription.period"),
        "documents in": _documents_in(inputs, source),
        **inputs.measures(size),
    }


def _version(inputs: Inputs, source: SourceDescription) -> str:
    versions = sorted(version for version in inputs.sums.versions.get(source.source, ()) if version)
    return ", ".join(versions) or source.version


def _languages(inputs: Inputs, source: SourceDescription) -> str:
    """Returns the largest languages of a source and how many there are."""
    sizes: dict[str, int] = {}
    for (name, label, decision), size in inputs.sums.decisions.items():
        if name == source.source and decision == "kept":
            language = label if names_language(label) else UNKNOWN
            sizes[language] = sizes.get(language, 0) + size.bytes_kept
    largest = sorted(sizes, key=lambda language: (-sizes[language], language))[:LANGUAGES_NAMED]
    others = len(sizes) - len(largest)
    return ", ".join(largest) + (f" and {others:,} others" if others else "")


def _documents_in(inputs: Inputs, source: SourceDescription) -> int:
    return sum(size.documents for (name, *_), size in inputs.sums.decisions.items() if name == source.source)


def _public(inputs: Inputs) -> Answers:
    sources = inputs.facts.of_category(PUBLIC)
    together = inputs.kept_of(each.source for each in sources)
    least = inputs.large_share * together.bytes_kept
    large = [each for each in sources if inputs.kept_of([each.source]).bytes_kept >= least]
    others = [each for each in sources if each not in large]
    what = "publicly available datasets"
    of_size = f"{100 * inputs.large_share:g} % of the bytes of all public datasets, or more"

    def rows(chosen: Sequence[SourceDescription], none: str) -> Any:
        return inputs.if_used(stated([describe(inputs, each) for each in chosen], none), what, PUBLIC)

    return {
        ("2.1", "public_datasets_used"): inputs.uses(PUBLIC),
        ("2.1", "public_modalities"): inputs.if_used(MODALITY, what, PUBLIC),
        ("2.1", "large_public_datasets"): rows(large, f"none has {of_size}"),
        ("2.1", "other_public_datasets"): rows(others, f"every one has {of_size} and is listed above"),
        ("2.1", "public_sizes"): inputs.if_used(inputs.measures(together), what, PUBLIC),
        ("2.1", COMMENTS): comment(inputs, "2.1", f"A dataset is listed as large when it has {of_size}."),
    }


def _private(inputs: Inputs) -> Answers:
    licensed, third_party = "commercially licensed datasets", "private datasets from other third parties"
    sources = inputs.facts.of_category(THIRD_PARTY)
    known = [describe(inputs, each) for each in sources if each.link]
    others = [describe(inputs, each) for each in sources if not each.link]
    return {
        ("2.2.1", "licensed_used"): inputs.uses(LICENSED),
        ("2.2.1", "licensed_modalities"): inputs.if_used(MODALITY, licensed, LICENSED),
        ("2.2.2", "third_party_used"): inputs.uses(THIRD_PARTY),
        ("2.2.2", "third_party_modalities"): inputs.if_used(MODALITY, third_party, THIRD_PARTY),
        ("2.2.2", "third_party_known"): inputs.if_used(
            stated(known, "none of them is publicly known"), third_party, THIRD_PARTY
        ),
        ("2.2.2", "third_party_others"): inputs.if_used(
            stated(others, "all of them are listed above"), third_party, THIRD_PARTY
        ),
        ("2.2.2", COMMENTS): comment(inputs, "2.2.2"),
    }


def _crawled(inputs: Inputs) -> Answers:
    sources, crawlers = inputs.facts.of_category(CRAWL), inputs.facts.crawlers
    what = "content that the provider crawled"
    measured = inputs.period(each.source for each in sources)

    def told(field: str) -> Any:
        """Returns what is declared of every crawler."""
        rows = [
            {"crawler": each.name, field: stated(getattr(each, field), f"bind Crawler.{field}")} for each in crawlers
        ]
        unnamed = "no crawler is named; bind data_summary.crawlers = [@Crawler()]"
        return inputs.if_used(stated(told_of_each(rows, [field]), unnamed), what, CRAWL)

    periods = [{"crawler": each.name, "period": each.period} for each in crawlers if each.period]
    return {
        ("2.3", "crawlers_used"): inputs.uses(CRAWL),
        ("2.3", "crawler_names"): inputs.if_used(
            stated([each.name for each in crawlers], "bind data_summary.crawlers = [@Crawler()]"), what, CRAWL
        ),
        ("2.3", "crawler_purposes"): told("purpose"),
        ("2.3", "crawler_behaviour"): told("behaviour"),
        ("2.3", "crawl_period"): inputs.if_used(
            stated(periods or measured, "documents carry no dates; bind Crawler.period"), what, CRAWL
        ),
        ("2.3", "crawl_content"): inputs.if_used([describe(inputs, each) for each in sources], what, CRAWL),
        ("2.3", "crawl_modalities"): inputs.if_used(MODALITY, what, CRAWL),
        ("2.3", "crawl_domains"): inputs.if_used(_domains(inputs), what, CRAWL),
        ("2.3", COMMENTS): comment(inputs, "2.3"),
    }


def _domains(inputs: Inputs) -> Any:
    if not inputs.domains.largest:
        return NotAvailable("no kept document of the crawled sources has a domain name")
    return domains.describe(inputs.domains, inputs.mask_domains)


def _from_users(inputs: Inputs) -> Answers:
    services = inputs.facts.of_category(USER_SERVICES)
    return {
        ("2.4", "model_interactions_used"): inputs.uses(USER_INTERACTIONS),
        ("2.4", "other_services_used"): inputs.uses(USER_SERVICES),
        ("2.4", "user_services"): inputs.if_used(
            [describe(inputs, each) for each in services], "data of other services", USER_SERVICES
        ),
        ("2.4", "user_modalities"): inputs.if_used(MODALITY, "user data", USER_INTERACTIONS, USER_SERVICES),
        ("2.4", COMMENTS): comment(inputs, "2.4"),
    }


def _synthetic(inputs: Inputs) -> Answers:
    sources, what = inputs.facts.of_category(SYNTHETIC), "synthetic data"

    def told(field: str) -> Any:
        rows = [
            {
                "source": each.source,
                **inputs.measures(inputs.kept_of([each.source])),
                "told": stated(", ".join(getattr(each, field)), f"bind SourceDescription.{field}"),
            }
            for each in sources
        ]
        return inputs.if_used(told_of_each(rows, ["told"]), what, SYNTHETIC)

    return {
        ("2.5", "synthetic_used"): inputs.uses(SYNTHETIC),
        ("2.5", "synthetic_modalities"): inputs.if_used(MODALITY, what, SYNTHETIC),
        ("2.5", "synthetic_market_models"): told("market_models"),
        ("2.5", "synthetic_model_summaries"): told("model_summaries"),
        ("2.5", "synthetic_other_models"): told("other_models"),
        ("2.5", COMMENTS): comment(inputs, "2.5"),
    }


def _other(inputs: Inputs) -> Answers:
    sources, what = inputs.facts.of_category(OTHER), "other sources"
    return {
        ("2.6", "other_used"): inputs.uses(OTHER),
        ("2.6", "other_description"): inputs.if_used([describe(inputs, each) for each in sources], what, OTHER),
        ("2.6", COMMENTS): comment(inputs, "2.6"),
    }

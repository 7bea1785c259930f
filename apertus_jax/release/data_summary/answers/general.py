"""Sections 0 and 1 of the public summary: summary, provider, model, training data as a whole."""

from __future__ import annotations

from typing import Any

from apertus_jax.release.data_summary.answers.template import COMMENTS, Answers, NotAvailable, stated, told_of_each
from apertus_jax.release.data_summary.inputs import Inputs, as_month, is_month
from apertus_jax.release.data_summary.languages import eu_language_rows, language_rows
from apertus_jax.release.data_summary.ledger_sums import total
from apertus_jax.release.data_summary.policy_in_force import tokenizer

BILLION, TRILLION = 10**9, 10**12
OPTIONAL_COMMENT = "optional; bind Declarations.comments"


def size_class(tokens: int) -> str:
    """Returns the class of a text corpus by its tokens, as the template draws the lines."""
    if tokens < BILLION:
        return "less than 1 billion tokens"
    return "1 billion to 10 trillion tokens" if tokens <= 10 * TRILLION else "more than 10 trillion tokens"


def general_answers(inputs: Inputs) -> Answers:
    """Returns the answers to sections 0, 1.1, 1.2 and 1.3."""
    return {**_summary(inputs), **_provider(inputs), **_model(inputs), **_training_data(inputs)}


def comment(inputs: Inputs, section: str, default: Any = None) -> Any:
    """Returns the comment on a section, or a default, or that it is optional."""
    return stated(inputs.facts.declarations.comments.get(section) or default, OPTIONAL_COMMENT)


def _summary(inputs: Inputs) -> Answers:
    declared = inputs.facts.declarations
    return {
        ("0", "version"): inputs.history.version,
        ("0", "last_update"): stated(declared.last_update, "bind Declarations.last_update = 'YYYY-MM-DD'"),
        ("0", "earlier_versions"): inputs.history.answer(),
    }


def _provider(inputs: Inputs) -> Answers:
    provider = inputs.facts.provider
    established = "bind Provider.{}; a provider established in the Union says so there"
    return {
        ("1.1", "provider_name"): stated(provider.name, "bind Provider.name"),
        ("1.1", "provider_contact"): stated(provider.contact, "bind Provider.contact"),
        ("1.1", "representative_name"): stated(provider.representative, established.format("representative")),
        ("1.1", "representative_contact"): stated(
            provider.representative_contact, established.format("representative_contact")
        ),
    }


def _model(inputs: Inputs) -> Answers:
    models = inputs.facts.models
    nothing = "no model is named; bind data_summary.models = [@PublishedModel()]"

    def rows(fields: dict[str, str], required: bool = True) -> Any:
        """Returns one row for each model, of columns → fields, of which one at least is required."""
        table = [
            {"model": model.name}
            | {
                column: stated(getattr(model, field), f"bind PublishedModel.{field}")
                for column, field in fields.items()
            }
            for model in models
        ]
        return stated(told_of_each(table, fields if required else ()), nothing)

    return {
        ("1.2", "model_names"): rows({"documentation": "documentation"}, required=False),
        ("1.2", "model_dependencies"): rows({"based on": "based_on", "its summary": "based_on_summary"}),
        ("1.2", "union_market_date"): rows({"date": "union_market_date"}),
    }


def _training_data(inputs: Inputs) -> Answers:
    declared, kept = inputs.facts.declarations, inputs.sums.kept()
    by_language = inputs.sums.kept_by_language()
    counting = tokenizer(inputs.corpus)
    tokens = kept.tokens if inputs.counted else counting
    return {
        ("1.3", "modalities"): "text; no image, audio or video (a prepared corpus holds texts only)",
        ("1.3", "text_size_class"): size_class(kept.tokens) if inputs.counted else counting,
        ("1.3", "text_size"): {"documents": kept.documents, "bytes (UTF-8)": kept.bytes_kept, "tokens": tokens},
        ("1.3", "content_types"): stated(_content_types(inputs), "bind Declarations.content_types"),
        ("1.3", "latest_acquisition"): _latest_acquisition(inputs),
        ("1.3", "training_continues"): stated(declared.training_continues, "bind Declarations.training_continues"),
        ("1.3", "eu_languages"): eu_language_rows(by_language, inputs.counted),
        ("1.3", "languages"): stated(language_rows(by_language, inputs.counted), "nothing was kept"),
        ("1.3", "regional_and_demographic"): stated(declared.regional_notes, "bind Declarations.regional_notes"),
        ("1.3", "tokenizer"): counting,
        ("1.3", COMMENTS): comment(
            inputs, "1.3", "Bytes are those of the texts as they are trained on, personal data replaced, uncompressed."
        ),
    }


def _content_types(inputs: Inputs) -> Any:
    """Returns the declared types of content, or those of the sources."""
    if inputs.facts.declarations.content_types:
        return inputs.facts.declarations.content_types
    return [
        {"source": each.source, "content": each.content}
        for each in sorted(inputs.facts.sources, key=lambda each: each.source)
        if each.content
    ]


def _latest_acquisition(inputs: Inputs) -> Any:
    """Returns the latest month of a kept document, and how many documents have a date."""
    dated = {key: size for key, size in inputs.sums.months.items() if is_month(key[1])}
    with_date = total(dated.values()).documents
    if not with_date:
        return NotAvailable(
            "no document carries a date; give Source.date_fields or Source.crawl_date and prepare again"
        )
    return {
        "latest": as_month(max(month for _, month in dated)),
        "documents with a date": with_date,
        "documents without a date": inputs.sums.kept().documents - with_date,
    }

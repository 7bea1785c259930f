"""Datasheet of the corpus, after Gebru et al., "Datasheets for datasets" (arXiv 1803.09010); questions are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apertus_jax.release.data_summary.answers.template import as_json, stated
from apertus_jax.release.data_summary.inputs import Inputs
from apertus_jax.release.data_summary.languages import names_language
from apertus_jax.release.data_summary.ledger_sums import total
from apertus_jax.release.data_summary.pages import MarkdownReport, shown

DATASHEET_FILE = "datasheet.md"
QUESTION, ANSWER = "question", "answer"


def datasheet_page(inputs: Inputs, summary: Mapping[str, Any]) -> str:
    """Returns the datasheet as Markdown; questions without an answer say what to bind."""
    name = inputs.facts.datasheet.name or "the prepared corpus"
    report = MarkdownReport(f"Datasheet of {name}", "Figures are those of summary.json, which public_summary.md shows.")
    for title, answers in _sections(inputs, summary).items():
        report.heading(title)
        report.table((QUESTION, ANSWER), [(question, shown(as_json(answer))) for question, answer in answers.items()])
    return report.render()


def _sections(inputs: Inputs, summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "Motivation": _motivation(inputs),
        "Composition": _composition(inputs, summary),
        "Collection": _collection(inputs, summary),
        "Processing": _processing(inputs, summary),
        "Uses": _declared(
            inputs,
            {
                "Which uses is it meant for?": "intended_uses",
                "Which uses is it unsuitable for?": "unsuitable_uses",
                "Which limitations and biases are known?": "limitations",
            },
        ),
        "Distribution": _declared(
            inputs,
            {"How is it distributed?": "distribution", "Under which licence?": "licence", "Where is it?": "link"},
        ),
        "Maintenance": _maintenance(inputs, summary),
    }


def _declared(inputs: Inputs, questions: Mapping[str, str]) -> dict[str, Any]:
    """Returns question → what was declared under a name."""
    return {
        question: stated(getattr(inputs.facts.datasheet, field), f"bind DatasheetAnswers.{field}")
        for question, field in questions.items()
    }


def _field(summary: Mapping[str, Any], section: str, field: str) -> Any:
    """Returns an answer of the filled template as JSON."""
    content = summary["template"][section]["fields"][field]
    return content.get("value", {name: content[name] for name in content if name != "title"})


def _motivation(inputs: Inputs) -> dict[str, Any]:
    return {
        **_declared(inputs, {"For which purpose was it made?": "purpose"}),
        "Who made it?": stated(inputs.facts.provider.name, "bind Provider.name"),
        **_declared(inputs, {"Who paid for it?": "funding"}),
    }


def _composition(inputs: Inputs, summary: Mapping[str, Any]) -> dict[str, Any]:
    present = [row["language"] for row in _field(summary, "1.3", "eu_languages") if row["present"]]
    licences = [f"{row['class']}: {row['documents']:,} documents" for row in summary["figures"]["licences"]]
    return {
        "What is one record?": "one document: its text, identity, source, language, address and licence",
        "How much is there?": _field(summary, "1.3", "text_size"),
        "Which size class?": _field(summary, "1.3", "text_size_class"),
        "From which sources?": [
            f"{row['source']}: {row['documents']:,} documents" for row in summary["figures"]["sources"]
        ],
        "Is it a sample of something larger?": (
            "what the policy permits of its sources; the ledger names every document left out, and why"
        ),
        "How many languages?": _num_languages(inputs),
        "Which official languages of the European Union?": stated(present, "none of them was kept"),
        "Which licences?": stated(licences, "the policy looks at no licences; add @LicenceScoring() and prepare again"),
        "Are there recommended splits?": "no; `apertus tokenize` holds out documents by a keyed hash",
        "Can documents be copies of each other?": _copies(inputs),
        "Can it hold personal data?": _personal_data(inputs),
    }


def _num_languages(inputs: Inputs) -> int | str:
    """Returns how many languages labels name, and how many documents are of none that is known."""
    sizes = inputs.sums.kept_by_language()
    named = [label for label in sizes if names_language(label)]
    unknown = total(size for label, size in sizes.items() if label not in named).documents
    return f"{len(named):,}, and {unknown:,} documents of unknown language" if unknown else len(named)


def _copies(inputs: Inputs) -> str:
    dropped = inputs.sums.dropped("exact_duplicate", "near_duplicate").documents
    searched = any(rule["class"] == "DuplicateRule" for rule in inputs.corpus.policy["content_rules"])
    return f"{dropped:,} copies were left out" if searched else "yes; the policy did not search for copies"


def _personal_data(inputs: Inputs) -> str:
    kinds = inputs.corpus.policy["personal_data"]["kinds"]
    replaced = sum(inputs.sums.personal_data.values())
    found = f"{replaced:,} spans of the kinds {', '.join(kinds)} were replaced" if kinds else "none was replaced"
    return f"yes, like any text by and about people: {found}, and names stand where the texts have them"


def _collection(inputs: Inputs, summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Which kinds of sources?": [f"{row['source']}: {row['category']}" for row in summary["figures"]["sources"]],
        "Over which time?": stated(inputs.period(inputs.corpus.sources), "no document carries a date"),
        "Until when?": _field(summary, "1.3", "latest_acquisition"),
        "Which crawlers?": _field(summary, "2.3", "crawler_names"),
        "Could people and publishers refuse?": _names(_field(summary, "3.1", "opt_out_protocols"), "protocol"),
        "How many documents were refused?": inputs.sums.dropped(
            "robots", "robots_unreachable", "opt_out_signal"
        ).documents,
        "Could people have documents removed?": _field(summary, "3.2", "removal_requests"),
    }


def _names(rows: Any, column: str) -> Any:
    """Returns one column of a table, or why there is no table."""
    return [row[column] for row in rows] if isinstance(rows, list) else rows


def _processing(inputs: Inputs, summary: Mapping[str, Any]) -> dict[str, Any]:
    reasons = [f"{row['decision']}: {row['documents']:,}" for row in summary["figures"]["decisions"]]
    return {
        "Which policy?": f"{inputs.corpus.summary['policy_name']}, digest {inputs.corpus.summary['policy']}",
        "Which filters?": _names(_field(summary, "3.2", "content_filters"), "filter"),
        "What did the policy not ask?": stated(
            [f"{name}: {why}" for name, why in summary["figures"]["not asked"].items()], "it asked every question"
        ),
        "How many documents were left out, by reason?": stated(reasons, "none was left out"),
        "How many rows were unreadable?": summary["figures"]["balance"]["quarantined"],
        "Which personal data was replaced?": _field(summary, "3.3", "personal_data"),
        "Were texts labelled?": "languages and scores are computed; the ledger has them for every document looked at",
        "Is the raw data kept?": "the plan names its files by digest; keeping them is up to who holds them",
        "By which software?": f"apertus_jax {inputs.corpus.summary['code']}",
    }


def _maintenance(inputs: Inputs, summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Who maintains it?": stated(inputs.facts.provider.contact, "bind Provider.contact"),
        **_declared(inputs, {"How and how often is it updated?": "maintenance"}),
        "Which version is this?": inputs.history.version,
        "Which versions were before?": stated(
            [f"{row['version']}: {row['digest']}" for row in inputs.history.earlier], "this is the first version"
        ),
        "How do removals reach it?": "`apertus remove` writes tombstones, which the next `apertus prepare` applies",
    }

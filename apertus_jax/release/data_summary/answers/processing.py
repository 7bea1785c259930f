"""Section 3 of the public summary, and the figures of the corpus that stand beside it."""

from __future__ import annotations

from typing import Any

from apertus_jax.release.data_summary.answers.general import OPTIONAL_COMMENT
from apertus_jax.release.data_summary.answers.template import COMMENTS, Answers, as_json, stated
from apertus_jax.release.data_summary.inputs import Inputs, as_month, is_month
from apertus_jax.release.data_summary.ledger_sums import KEPT, Size
from apertus_jax.release.data_summary.policy_in_force import (
    CONSENT_REASONS,
    content_filters,
    left_out,
    not_asked,
    not_asked_in_words,
    opt_out_protocols,
    personal_data,
    provenance,
    removal_requests,
)


def processing_answers(inputs: Inputs) -> Answers:
    """Returns the answers to sections 3.1 to 3.3."""
    declared, corpus, sums = inputs.facts.declarations, inputs.corpus, inputs.sums
    signed = "bind Declarations.code_of_practice_signed"
    return {
        ("3.1", "code_of_practice_signed"): stated(declared.code_of_practice_signed, signed),
        ("3.1", "opt_out_protocols"): opt_out_protocols(corpus, sums),
        ("3.1", "opt_out_effect"): stated(left_out(sums, CONSENT_REASONS), "no document was left out on this ground"),
        ("3.1", "opt_outs_kept_current"): stated(
            declared.opt_outs_kept_current, "bind Declarations.opt_outs_kept_current"
        ),
        ("3.1", "copyright_policy"): stated(declared.copyright_policy, "bind Declarations.copyright_policy"),
        ("3.1", COMMENTS): _comment(
            inputs, "3.1", "A document is counted at the first rule that left it out; refusals are counted of all rows."
        ),
        ("3.2", "illegal_content_measures"): stated(declared.illegal_content, "bind Declarations.illegal_content"),
        ("3.2", "content_filters"): stated(content_filters(corpus, sums), "the policy has no rule about content"),
        ("3.2", "removal_requests"): removal_requests(corpus, sums),
        ("3.2", COMMENTS): _comment(inputs, "3.2"),
        ("3.3", "personal_data"): personal_data(corpus, sums),
        ("3.3", "further_information"): stated(
            declared.further_information, "optional; bind Declarations.further_information"
        ),
    }


def _comment(inputs: Inputs, section: str, default: str = "") -> Any:
    """Returns the comment on a section, and whatever was declared, what the policy did not ask."""
    declared = inputs.facts.declarations.comments.get(section) or default
    unasked = not_asked_in_words(inputs.corpus, about_content=section == "3.2")
    return stated(" ".join(filter(None, (declared, unasked))), OPTIONAL_COMMENT)


def figures(inputs: Inputs) -> dict[str, Any]:
    """Returns the counts behind the answers, as JSON: what any reader can recompute from the ledger."""
    sums, summary = inputs.sums, inputs.corpus.summary
    quarantined = sum(sums.quarantined.values())
    return {
        "balance": {
            "rows in": summary["documents"] + quarantined,
            "kept": summary["kept"],
            "dropped": summary["dropped"],
            "quarantined": quarantined,
        },
        "not asked": not_asked(inputs.corpus),
        "sources": [_source(inputs, name) for name in inputs.corpus.sources],
        "decisions": [
            {"decision": name, "documents": size.documents, "bytes": size.bytes_in}
            for name, size in sums.by_decision().items()
            if name != KEPT
        ],
        "quarantine": [
            {"source": source, "reason": reason, "rows": rows}
            for (source, reason), rows in sorted(sums.quarantined.items())
        ],
        "licences": [
            {"class": name, **inputs.measures(size)}
            for name, size in sorted(sums.licences.items(), key=lambda item: (-item[1].bytes_kept, item[0]))
        ],
        "months": _months(inputs),
        "provenance": as_json(provenance(inputs.corpus)),
    }


def _source(inputs: Inputs, name: str) -> dict[str, Any]:
    """Returns one source with what came in of it and what was kept."""
    entries = {key: size for key, size in inputs.sums.decisions.items() if key[0] == name}
    category = next((each.category for each in inputs.facts.sources if each.source == name), "not declared")
    return {
        "source": name,
        "category": category,
        "documents in": sum(size.documents for size in entries.values()),
        "bytes in": sum(size.bytes_in for size in entries.values()),
        "quarantined": sum(rows for (source, _), rows in inputs.sums.quarantined.items() if source == name),
        **inputs.measures(inputs.kept_of([name])),
    }


def _months(inputs: Inputs) -> list[dict[str, Any]]:
    """Returns the months of what was kept, all sources together; the documents without a date last."""
    sizes: dict[str, Size] = {}
    for (_, month), size in inputs.sums.months.items():
        sizes.setdefault(as_month(month) if is_month(month) else "no date", Size()).add(size)
    order = sorted(sizes, key=lambda month: (month == "no date", month.rpartition("/")[2], month))
    return [{"month": month, **inputs.measures(sizes[month])} for month in order]

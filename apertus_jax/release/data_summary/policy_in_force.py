"""Policy in force (policy.json): opt-out protocols, filters, personal data, the tokenizer that counts."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apertus_jax.release.data_summary.answers.template import NotAvailable
from apertus_jax.release.data_summary.ledger_sums import LedgerSums
from apertus_jax.release.data_summary.prepared_corpus import PreparedCorpus

DENY, NOT_UNDERSTOOD = "deny", "not_understood"
NOT_ASKED = "not_asked"
CONTENT_QUESTIONS = ("language", "quality", "quality_score", "toxicity", "contamination", "duplicates")
# Reasons of the ledger, by what they are about: lack of consent, and content.
CONSENT_REASONS = (
    *("removed_on_request", "robots", "robots_unreachable", "opt_out_signal"),
    *("licence_unknown", "licence_not_understood", "licence_not_permitted"),
)
# Signal → its name, what carries it in the document itself, what in a robots.txt, and in files collected beside.
SIGNALS = {
    "tdmrep": ("TDM Reservation Protocol", "HTTP headers, meta tags", "", "tdmrep.json files"),
    "aipref": ("AIPREF Content-Usage (train-ai)", "HTTP headers, meta tags", "robots.txt files", ""),
    "content_signal": ("Content-Signal (ai-train)", "HTTP headers, meta tags", "robots.txt files", ""),
    "noai": ("noai and noml", "HTTP headers, meta tags", "", ""),
    "ai_txt": ("ai.txt", "", "", "ai.txt files"),
}
# Rules about content, by what they leave out.
CONTENT_FILTERS = {
    "ToxicityRule": ("toxic texts", ("toxicity",)),
    "QualityScoreRule": ("texts of low quality, by classifier", ("quality",)),
    "QualityRule": ("texts that are no prose", ("length", "words", "symbols", "lines", "repetition")),
    "EnglishQualityRule": ("texts that are no prose", ("length", "words", "symbols", "lines", "repetition")),
    "LanguageRule": (
        "texts of unknown or unwanted language",
        ("language_unknown", "language_uncertain", "language_not_wanted"),
    ),
    "ContaminationRule": ("texts that hold items of benchmarks", ("contamination",)),
    "DuplicateRule": ("copies", ("exact_duplicate", "near_duplicate")),
}


def rules(policy: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Sequence[str]]]:
    """Yields (rule, sources that it is asked about, empty for all), in the order of the policy."""
    for rule in (*policy["consent_rules"], *policy["content_rules"]):
        if rule["class"] == "OnlySources":
            yield rule["rule"], rule["sources"]
        else:
            yield rule, ()


def rule_of(policy: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], Sequence[str]] | None:
    """Returns the first rule of this class with its sources, None without one."""
    return next(((rule, sources) for rule, sources in rules(policy) if rule["class"] == name), None)


def identity_of(corpus: PreparedCorpus, scoring: str) -> Mapping[str, Any] | None:
    """Returns what decided the scores of a scoring: digests and versions; None when the policy has it not."""
    for group, identities in (("consent_scoring", "consent"), ("content_scoring", "content")):
        for part, identity in zip(corpus.policy[group], corpus.scores[identities], strict=True):
            if part["class"] == scoring:
                return identity
    return None


def opt_out_protocols(corpus: PreparedCorpus, sums: LedgerSums) -> list[dict[str, Any]] | NotAvailable:
    """Returns the protocols by which documents were left out, with what they were read from."""
    rows = [*_robots(corpus, sums), *_signals(corpus, sums)]
    return rows or NotAvailable(
        f"the policy {corpus.policy['name']} reads no opt-out protocol; prepare under one with RobotsRule or SignalRule"
    )


def _robots(corpus: PreparedCorpus, sums: LedgerSums) -> Iterator[dict[str, Any]]:
    found, identity = rule_of(corpus.policy, "RobotsRule"), identity_of(corpus, "RobotsScoring")
    if found is None or identity is None:
        return
    rule, sources = found
    yield {
        "protocol": "robots.txt (RFC 9309)",
        "read from": f"robots.txt files as of {identity['as_of'][:10]}, snapshot {identity['snapshot']}",
        "agents": identity["agents"],
        "host unreachable": "left out" if rule["policy"] == "strict" else "kept",
        "sources": ", ".join(sources) or "all",
        "documents it refuses": sums.robots[DENY],
    }


def _signals(corpus: PreparedCorpus, sums: LedgerSums) -> Iterator[dict[str, Any]]:
    found, identity = rule_of(corpus.policy, "SignalRule"), identity_of(corpus, "SignalScoring")
    if found is None or identity is None:
        return
    rule, sources = found
    for kind in identity["signals"]:
        if kind not in rule["deny"] or kind not in SIGNALS:
            continue
        name, own, robots, collected = SIGNALS[kind]
        carriers = [own, robots if identity["snapshot"] else "", collected if identity.get(kind) else ""]
        if not any(carriers):
            continue  # in the policy, but nothing was given that it could be read from: not honoured
        yield {
            "protocol": name,
            "read from": ", ".join(carrier for carrier in carriers if carrier),
            "agents": identity["agents"],
            "host unreachable": "no effect",
            "sources": ", ".join(sources) or "all",
            "documents it refuses": sums.signals[kind, DENY],
            "documents about which it was not understood": sums.signals[kind, NOT_UNDERSTOOD],
            "what is not understood": "left out" if rule.get(NOT_UNDERSTOOD) == "refuse" else "kept",
        }


def not_asked(corpus: PreparedCorpus, about_content: bool | None = None) -> dict[str, str]:
    """Returns what the policy did not ask → why: everything, or what is about content, or what is about consent."""
    unasked = corpus.summary.get(NOT_ASKED, {})
    return {
        name: why
        for name, why in unasked.items()
        if about_content is None or (name in CONTENT_QUESTIONS) is about_content
    }


def not_asked_in_words(corpus: PreparedCorpus, about_content: bool) -> str:
    """Returns what was not asked as a sentence, empty for nothing."""
    found = not_asked(corpus, about_content)
    return f"Not asked: {'; '.join(f'{name} ({why})' for name, why in found.items())}." if found else ""


def left_out(sums: LedgerSums, reasons: Sequence[str]) -> list[dict[str, Any]]:
    """Returns documents and bytes by reason, for those of these reasons that occurred."""
    found = sums.by_decision()
    return [
        {"reason": reason, "documents": found[reason].documents, "bytes": found[reason].bytes_in}
        for reason in reasons
        if reason in found
    ]


def content_filters(corpus: PreparedCorpus, sums: LedgerSums) -> list[dict[str, Any]]:
    """Returns the filters of content with what they left out; rules that give the same reasons are one filter."""
    scopes: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for rule, sources in rules(corpus.policy):
        if rule["class"] in CONTENT_FILTERS:
            scopes.setdefault(CONTENT_FILTERS[rule["class"]], []).append(", ".join(sources) or "all")
    return [
        {
            "filter": name,
            "sources": ", ".join(dict.fromkeys(sources)),
            "documents left out": sums.dropped(*reasons).documents,
        }
        for (name, reasons), sources in scopes.items()
    ]


def removal_requests(corpus: PreparedCorpus, sums: LedgerSums) -> dict[str, Any] | NotAvailable:
    """Returns which version of the removal requests was applied, and how many documents they took."""
    tombstones = corpus.summary.get("tombstones")
    if rule_of(corpus.policy, "RemovalRule") is None or not tombstones:
        return NotAvailable("no tombstones were applied; run `apertus remove` and bind RemovalScoring.tombstones")
    return {
        "version of the tombstones": tombstones["version"],
        "digest": tombstones["digest"],
        "requests in effect": tombstones["in_effect"],
        "documents left out": sums.dropped("removed_on_request").documents,
    }


def personal_data(corpus: PreparedCorpus, sums: LedgerSums) -> dict[str, Any] | NotAvailable:
    """Returns which kinds of personal data were replaced, by which rules, and how often."""
    policy = corpus.policy["personal_data"]
    if not policy["kinds"]:
        return NotAvailable("the policy replaces no personal data; bind PersonalDataPolicy.kinds")
    return {
        "rules": policy["mode"],
        "sources left as they are": ", ".join(policy["skip_sources"]) or "none",
        "spans replaced": {kind: sums.personal_data.get(kind, 0) for kind in policy["kinds"]},
    }


def tokenizer(corpus: PreparedCorpus) -> dict[str, Any] | NotAvailable:
    """Returns name and digest of the tokenizer that counted, without the folder in which it lay."""
    if not corpus.policy["tokenizer"]:
        return NotAvailable("tokens were not counted; bind Policy.tokenizer and prepare again")
    # Corpora that an earlier version prepared name the folder too.
    name = posixpath.basename(corpus.policy["tokenizer"].rstrip("/"))
    return {
        "name": name,
        "digest": corpus.scores["tokenizer"],
        "counted": "on the texts as they came in, without marks of start and end",
    }


def provenance(corpus: PreparedCorpus) -> dict[str, Any]:
    """Returns the digests by which the corpus can be traced and made again."""
    summary = corpus.summary
    robots = identity_of(corpus, "RobotsScoring")
    return {
        "prepared corpus": corpus.digest,
        "plan": summary["plan"],
        "plan made on": summary["as_of"],
        "policy": summary["policy_name"],
        "policy digest": summary["policy"],
        "version of the code": summary["code"],
        "parts": len(summary["parts"]),
        "robots.txt parser": robots["parser"] if robots else NotAvailable("robots.txt was not looked at"),
    }

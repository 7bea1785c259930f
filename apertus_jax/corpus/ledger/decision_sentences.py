"""Decisions in words: what kept a document out, in one sentence, from its row of the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apertus_jax.corpus.reasons import Reason

OF_HOSTS = ("robots.txt", "tdmrep.json", "ai.txt")
AGENTS_NAMED = 3
# Reason → the sentence, of the row's own fields; the rest of the reasons have their detail after a name.
SENTENCES = {
    Reason.REMOVED_ON_REQUEST: "a removal request names it: {detail}",
    Reason.DUPLICATE_ID: "an earlier document of the corpus has its identity {document_id}",
    Reason.ROBOTS_UNREACHABLE: "robots.txt of {authority} could not be read ({detail}), so nothing there is permitted",
    Reason.LICENCE_UNKNOWN: "it declares no licence, and its source {source} has to ({detail})",
    Reason.LICENCE_NOT_UNDERSTOOD: "its licence cannot be read: {detail}",
    Reason.LICENCE_NOT_PERMITTED: "its licence {detail}, and LicenceRule.permitted names no class of it",
    Reason.CONTAMINATION: "it holds text of a benchmark: {detail}",
    Reason.EXACT_DUPLICATE: "{detail}, the copy that is kept",
    Reason.NEAR_DUPLICATE: "{detail}, the copy that is kept",
}


def decided_by(row: Mapping[str, Any]) -> str:
    """Returns what decided about a document, as one sentence."""
    reason = row["reason"]
    if not reason:
        return f"no rule of the policy {row['policy']} keeps it out"
    if reason in (Reason.ROBOTS, Reason.OPT_OUT_SIGNAL) and (found := list(refusals(row, reason))):
        return "; ".join(found)
    known = SENTENCES.get(reason)
    if known is None or "below" in str(row["detail"]):  # a licence that is permitted, but for its rating
        return f"{str(reason).replace('_', ' ')}: {row['detail']}"
    return known.format_map({name: row.get(name) for name in ("authority", "detail", "document_id", "source")})


def quarantined_by(row: Mapping[str, Any]) -> str:
    """Returns why a row of an input is no document."""
    return f"row {row['row']} of {row['file']} is no document: {row['detail'] or row['reason']}"


def refusals(row: Mapping[str, Any], reason: str = "") -> Iterator[str]:
    """Yields a sentence for each line of a host, header or tag that refuses, as far as the row has any.

    With a `reason` only those that this reason is about.
    """
    if row.get("robots_verdict") == "deny" and reason in ("", Reason.ROBOTS):
        yield (
            f"robots.txt of {row['authority']}, line {row['robots_line']}, `{row['robots_rule']}`, refuses "
            f"{_agents(row['robots_refusing_agents'])} (group {row['robots_group']})"
        )
    for signal in row.get("signals") or () if reason in ("", Reason.OPT_OUT_SIGNAL) else ():
        if signal["verdict"] in ("deny", "not_understood"):
            carrier = signal["carrier"] + (f" of {row['authority']}" if signal["carrier"] in OF_HOSTS else "")
            place = f", {'rule' if signal['carrier'] == 'tdmrep.json' else 'line'} {signal['line']}"
            words = signal["evidence"].partition(" sha256:")[0]
            does = "refuses" if signal["verdict"] == "deny" else "is not understood"
            yield f"{carrier}{place if signal['line'] else ''}: {signal['kind']}, {words}, {does}"


def _agents(names: list[str]) -> str:
    """Returns the first agents by name and how many more there are."""
    shown, more = ", ".join(names[:AGENTS_NAMED]), len(names) - AGENTS_NAMED
    return f"{shown} and {more} more agents" if more > 0 else shown

"""PII rewriting: every value of personal data becomes the marker of its kind."""

from __future__ import annotations

from apertus_jax.corpus.personal_data.disguises import FoldedText, may_hide_something
from apertus_jax.corpus.personal_data.emails import find_emails
from apertus_jax.corpus.personal_data.ip_addresses import find_ips
from apertus_jax.corpus.personal_data.numbers import find_ahv_numbers, find_cards, find_ibans
from apertus_jax.corpus.personal_data.phones import find_phones
from apertus_jax.corpus.personal_data.policy import PersonalDataPolicy
from apertus_jax.corpus.personal_data.published import find_published
from apertus_jax.corpus.personal_data.spans import Rewrite, Span, replace_spans, resolve_overlaps

FINDERS = {
    "email": find_emails,
    "ip": find_ips,
    "iban": find_ibans,
    "ahv": find_ahv_numbers,
    "card": find_cards,
    "phone": find_phones,
}


def rewrite(text: str, policy: PersonalDataPolicy) -> Rewrite:
    """Returns a text with its personal data replaced by markers, counts per kind, and spans in the given text.

    In mode `strict` counts are the spans of each kind, and rewriting the result changes nothing more. In mode `apertus`
    counts are distinct values, as the published formatter counts them, and as there a second rewriting may find more
    (what a hit left of a longer address can be an address). `policy.skip_sources` is not consulted: the text
    does not know its source (`policy.applies_to` does). Takes time linear in the text.
    """
    if policy.mode == "apertus":
        spans, counts = find_published(text, policy.kinds)
    else:
        spans = find_strict(text, policy.kinds)
        counts = dict.fromkeys(policy.kinds, 0)
        for span in spans:
            counts[span.kind] += 1
    return Rewrite(replace_spans(text, spans) if spans else text, counts, tuple(spans))


def find_strict(text: str, kinds: tuple[str, ...]) -> list[Span]:
    """Returns the checked personal data of a text, disjoint and in order, disguised values included."""
    found = _find(text, kinds)
    if not may_hide_something(text):
        return found
    # In the text as it is, too: taking characters away may join a value to its neighbours.
    folded = FoldedText(text)
    return resolve_overlaps([*found, *map(folded.span, _find(folded.text, kinds))])


def _find(text: str, kinds: tuple[str, ...]) -> list[Span]:
    return resolve_overlaps(span for kind in kinds for span in FINDERS[kind](text))

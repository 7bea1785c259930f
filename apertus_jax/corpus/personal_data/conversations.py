"""PII rewriting inside the parts of conversations, so that each stays what it was: a text, JSON, an output."""

from __future__ import annotations

import collections

from apertus_jax.chat import parse_conversation
from apertus_jax.corpus.documents import conversation_text
from apertus_jax.corpus.personal_data.policy import PersonalDataPolicy
from apertus_jax.corpus.personal_data.rewriting import rewrite
from apertus_jax.storage.json_reader import parse_json


def rewrite_conversation(conversation: str, policy: PersonalDataPolicy) -> tuple[str, str, dict[str, int]]:
    """Returns (text, JSON record, counts per kind) of a conversation with its personal data replaced by markers.

    Every part is looked at by itself; arguments and outputs that are JSON value by value (`Conversation.map_texts`).
    """
    counts: collections.Counter[str] = collections.Counter(dict.fromkeys(policy.kinds, 0))

    def change(text: str) -> str:
        rewritten = rewrite(text, policy)
        counts.update(rewritten.counts)
        return rewritten.text

    changed = parse_conversation(parse_json(conversation, "a conversation")).map_texts(change)
    return conversation_text(changed), changed.to_text(), dict(counts)

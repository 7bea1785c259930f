"""Jinja chat templates that exported models carry: the same text as the renderer gives, for other runtimes."""

from __future__ import annotations

import json
from collections.abc import Container
from importlib import resources

from apertus_jax.chat.format import APERTUS, APERTUS_1P5, OUTPUT_IDS, TEMPLATES

TEMPLATE_FILE = "chat_template.jinja"


def chat_template(template: str = APERTUS) -> str:
    """Returns the Jinja text of a template ("apertus" or "apertus-1.5"), as `transformers` reads it."""
    parts = TEMPLATES[template]
    before, dated, after = parts.default_system.partition("{date}")
    system = f"{json.dumps(before)} + strftime_now('%Y-%m-%d') + {json.dumps(after)}" if dated else json.dumps(before)
    text = resources.files("apertus_jax.chat").joinpath(TEMPLATE_FILE).read_text()
    opens, closes = (json.dumps(mark) for mark in parts.outputs)
    return (
        text.replace("OUTPUTS_OPEN", opens, 1).replace("OUTPUTS_CLOSE", closes, 1).replace("DEFAULT_SYSTEM", system, 1)
    )


def template_of_vocabulary(vocabulary: Container[str]) -> str:
    """Returns the template that a vocabulary's control tokens are for: that of version 1.5 where it has its tokens."""
    return APERTUS_1P5 if all(token in vocabulary for token in OUTPUT_IDS) else APERTUS

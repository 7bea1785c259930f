"""Chat formats: which template, which default texts, what carries loss.

Source: docs/reference/evaluation_and_release.md §7, docs/reference/after_version_1.md §1.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from apertus_jax import clock
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation, require_flag

APERTUS, APERTUS_1P5 = "apertus", "apertus-1.5"
# Spelling → id in the released vocabularies, by which a base model's placeholder is known.
ROLE_IDS = {
    f"<|{name}|>": 61 + number
    for number, name in enumerate(
        [
            "system_start",
            "system_end",
            "developer_start",
            "developer_end",
            "user_start",
            "user_end",
            "assistant_start",
            "assistant_end",
            "inner_prefix",
            "inner_suffix",
            "tools_prefix",
            "tools_suffix",
        ]
    )
}
OUTPUT_IDS = {"<|tool_output_start|>": 73, "<|tool_output_end|>": 74}
INNER_IDS_OF_1P5 = {"<|inner_prefix|>": 32, "<|inner_suffix|>": 33}
BEGIN = "<s>"


class Template(NamedTuple):
    """Differences of the two templates.

    `outputs` are what opens and closes the outputs of tools, tokens or text; `default_system` may hold `{date}`.
    """

    ids: dict[str, int]
    outputs: tuple[str, str]
    default_system: str


TEMPLATES = {
    APERTUS: Template(
        ROLE_IDS,
        ("[", "]"),
        "You are Apertus, a helpful assistant created by the SwissAI initiative.\n"
        "Knowledge cutoff: 2024-04\nCurrent date: {date}",
    ),
    APERTUS_1P5: Template(
        {**ROLE_IDS, **INNER_IDS_OF_1P5, **OUTPUT_IDS},
        ("<|tool_output_start|>", "<|tool_output_end|>"),
        "You are Apertus 1.5 Omni, a multimodal assistant developed by the Swiss AI Initiative. Extended from Apertus "
        "1 via continued pretraining, you understand images and audio and respond in text.",
    ),
}


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class ChatFormat:
    """Format in which conversations become text, ids and loss weights.

    Attributes:
      template: "apertus" (version 1) or "apertus-1.5".
      system: text of the system block where a conversation has no system message: empty, as version 1 was tuned; None
        for the template's own, which in version 1 names the day.
      date: YYYY-MM-DD in that text; today when empty.
      train_on_tool_outputs: whether the outputs of tools, which no model writes, are in the loss.
      legacy: "" is right; "template" is the published template, defects and all; "sft" the template that version 1
        was fine-tuned with. Both have the weights of then: whole turns of the assistant, outputs of tools included.
    """

    template: Literal["apertus", "apertus-1.5"] = "apertus"
    system: str | None = ""
    date: str = ""
    train_on_tool_outputs: bool = False
    legacy: Literal["", "template", "sft"] = ""

    def __post_init__(self) -> None:
        require_flag("ChatFormat.train_on_tool_outputs", self.train_on_tool_outputs)
        if self.date:
            clock.require_day(self.date, "ChatFormat.date")
        if self.legacy == "sft" and self.template != APERTUS:
            raise UserError(
                "ChatFormat.legacy = 'sft' is the template that Apertus version 1 was fine-tuned with, "
                f"ChatFormat.template = {self.template!r} has no such; use legacy = 'template', or ''"
            )

    @property
    def parts(self) -> Template:
        """What this template has of its own."""
        return TEMPLATES[self.template]

    @property
    def outputs_weigh(self) -> bool:
        """Whether outputs of tools are in the loss."""
        return self.train_on_tool_outputs or bool(self.legacy)

    @property
    def names_day(self) -> bool:
        """Whether what it renders depends on the day that it is rendered."""
        return self._has_own_system and not self.date and self.template == APERTUS

    @property
    def _has_own_system(self) -> bool:
        """Whether the template's own text stands where a conversation has no system message."""
        return self.legacy != "sft" and (self.system is None or (self.legacy == "template" and not self.system))

    def system_text(self, given: str | None) -> str:
        """Returns the text of the system block of a conversation whose system message is `given`."""
        if given is not None:
            return given
        if not self._has_own_system:
            return self.system or ""
        return self.parts.default_system.format(date=self.date or clock.today().isoformat())

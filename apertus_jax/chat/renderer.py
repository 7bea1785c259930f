"""Chat renderer: a conversation to the pieces of its text, control tokens apart, each with its loss weight.

Source: docs/reference/evaluation_and_release.md §7 (grammar, golden strings, defects of the published templates) and
docs/reference/after_version_1.md §1 (version 1.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from apertus_jax.chat.conversation import (
    Block,
    Conversation,
    Message,
    Response,
    Thoughts,
    ToolCalls,
    ToolOutputs,
)
from apertus_jax.chat.format import BEGIN, ChatFormat
from apertus_jax.chat.tool_declarations import declare_tools

# The call that shows an answer is no part of the deliberation before it.
SHOWS_ANSWER = "display_answers"


class Piece(NamedTuple):
    """Part of a rendered conversation: the spelling of one control token (`is_token`) or text, and its loss weight."""

    text: str
    is_token: bool
    weight: float


def render(
    conversation: Conversation,
    chat_format: ChatFormat = ChatFormat(),  # noqa: B008 (frozen)
    add_generation_prompt: bool = False,
) -> list[Piece]:
    """Returns the pieces of a conversation, in order; together they are its text.

    A turn of the assistant is closed at its end, and the token that closes it is in the loss, the one that opens it is
    not. With `add_generation_prompt` the last turn is opened for an answer; where tools were called it is open already.
    """
    turns = _Turns(chat_format)
    turns.token(BEGIN)
    turns.between("system", chat_format.system_text(conversation.system))
    declared = declare_tools(conversation.tools, bool(chat_format.legacy)) or conversation.formatted_tools
    tools = f":\n{declared}" if declared else ": disabled"
    thinking = "enabled" if conversation.thinking else "disabled"
    turns.between("developer", f"Deliberation: {thinking}\nTool Capabilities{tools}")
    for message in conversation.messages:
        turns.add(message)
    turns.finish(add_generation_prompt)
    return turns.pieces


def rendered_text(pieces: Sequence[Piece]) -> str:
    """Returns the text of pieces, control tokens spelled out."""
    return "".join(piece.text for piece in pieces)


class _Turns:
    """Writes turn after turn; knows what is open."""

    def __init__(self, chat_format: ChatFormat):
        self.pieces: list[Piece] = []
        self._format, self._legacy = chat_format, chat_format.legacy
        self._outputs = chat_format.parts.outputs
        self._outputs_weigh = float(chat_format.outputs_weigh)
        self._in_turn = self._in_inner = self._in_outputs = self._waits = self._was_told = False
        self._weight = 0.0

    def token(self, spelling: str) -> None:
        """Adds a control token."""
        self.pieces.append(Piece(spelling, True, self._weight))

    def text(self, text: str) -> None:
        """Adds text."""
        if text:
            self.pieces.append(Piece(text, False, self._weight))

    def between(self, role: str, text: str) -> None:
        """Adds a text between the tokens of a role."""
        self.token(f"<|{role}_start|>")
        self.text(text)
        self.token(f"<|{role}_end|>")

    def add(self, message: Message) -> None:
        """Adds a message of user, assistant or tool."""
        if message.role == "user":
            self._close_turn()
            self.between("user", message.text)
            return
        if self._legacy == "sft" and message.role == "assistant":
            self._close_turn()
        self._open_turn()
        for number, block in enumerate(message.blocks):
            self._block(block, number == 0, number == len(message.blocks) - 1)

    def finish(self, add_generation_prompt: bool) -> None:
        """Ends the last turn, or opens one for an answer."""
        self._close_outputs()
        if self._legacy == "template":
            left_open = self._format.template == "apertus" or self._waits
        else:
            # Where tools were called last, the turn goes on: with their outputs, or after them.
            left_open = add_generation_prompt and (self._waits or self._was_told) and not self._legacy
        if self._in_turn and not left_open:
            self._close_turn()
        if add_generation_prompt and (self._legacy or not self._in_turn):
            self._weight = 0.0
            self.token("<|assistant_start|>")

    def _block(self, block: Block, first: bool, last: bool) -> None:
        self._was_told = isinstance(block, ToolOutputs)
        if isinstance(block, ToolOutputs):
            self._add_outputs(block, last)
            return
        self._close_outputs()
        if isinstance(block, Thoughts):
            if not self._in_inner:
                self.token("<|inner_prefix|>")
                self._in_inner = True
            self.text(block.text)
        elif isinstance(block, Response):
            # The template of the published fine-tuning lets a response that stands first leave it open.
            if self._in_inner and not (self._legacy == "sft" and first):
                self._close_inner()
            self.text(block.text)
        else:
            self._add_calls(block, first)

    def _add_calls(self, block: ToolCalls, first: bool) -> None:
        shows_answer = len(block.calls) == 1 and block.calls[0].name == SHOWS_ANSWER
        if self._in_inner and shows_answer and not first and not block.of_message:
            self._close_inner()
        self.token("<|tools_prefix|>")
        self.text("[" + ", ".join(f'{{"{call.name}": {call.arguments}}}' for call in block.calls) + "]")
        self.token("<|tools_suffix|>")
        self._waits = True

    def _add_outputs(self, block: ToolOutputs, last: bool) -> None:
        outside, self._weight = self._weight, self._outputs_weigh
        if block.of_message and self._in_outputs:
            self.text(", ")
        else:
            self._mark(self._outputs[0])
        self.text(", ".join(block.outputs))
        self._in_outputs = block.of_message
        if not block.of_message:
            self._mark(self._outputs[1])
        self._weight = outside
        if self._legacy == "sft" and not last:
            self.text(" ")
        self._waits = False

    def _mark(self, mark: str) -> None:
        if mark.startswith("<|"):
            self.token(mark)
        else:
            self.text(mark)

    def _close_outputs(self) -> None:
        if self._in_outputs:
            outside, self._weight = self._weight, self._outputs_weigh
            self._mark(self._outputs[1])
            self._weight = outside
            self._in_outputs = False

    def _close_inner(self) -> None:
        self.token("<|inner_suffix|>")
        self._in_inner = False

    def _open_turn(self) -> None:
        if not self._in_turn:
            self.token("<|assistant_start|>")
            self._in_turn, self._weight, self._was_told = True, 1.0, False

    def _close_turn(self) -> None:
        if self._in_turn:
            self._close_outputs()
            self.token("<|assistant_end|>")
        self._in_turn = self._in_inner = False
        # The published template remembers calls without outputs to the end of the conversation.
        self._waits = self._waits and self._legacy == "template"
        self._weight = 0.0

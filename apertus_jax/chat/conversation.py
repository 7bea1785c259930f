"""Conversation record: who says what, with tools, thoughts and parts, parsed from JSON and checked.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
     "tools": [{"name": …, "description": …, "parameters": {JSON schema}}], "enable_thinking": false}

Roles: `system` (first), `developer` (after it, as the published SFT data have it: `has_thinking`, `tools` or
`formatted_tools`), `user`, `assistant`, `tool`. Contents are strings; a user's may be a list of parts or
`{"parts": [{"type": "text", …}]}`, an assistant's `{"blocks": […]}` of thoughts, tool_calls, tool_outputs, responses.
Tools and calls may be wrapped in `{"type": "function", "function": {…}}`.
Source: docs/reference/evaluation_and_release.md §7.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

STRINGS, BLOCKS = "string", "blocks"


@dataclasses.dataclass(frozen=True, slots=True)
class Thoughts:
    """Deliberation before an answer."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """Text that the user is shown."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `arguments` is the text of a JSON object, as it was written."""

    name: str
    arguments: str


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCalls:
    """Calls made at once; `of_message` where the message had them beside its content, not among its blocks."""

    calls: tuple[ToolCall, ...]
    of_message: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ToolOutputs:
    """Results of calls; `of_message` where one was a message of the role `tool`."""

    outputs: tuple[str, ...]
    of_message: bool = False


Block = Thoughts | Response | ToolCalls | ToolOutputs


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A message of `user` (`text`), `assistant` (`blocks`) or `tool` (one `ToolOutputs`)."""

    role: str
    text: str = ""
    blocks: tuple[Block, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    """Declaration of a tool; `parameters` is a JSON schema of an object, or None."""

    name: str
    description: str | None
    parameters: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Conversation:
    """A checked conversation.

    Attributes:
      messages: without those of system and developer.
      system: text of the system message, None when there is none.
      tools: declarations.
      formatted_tools: declarations that the data hold as text already; used where there are no `tools`.
      thinking: whether thoughts are asked for.
      style: "string" or "blocks", how all messages of the assistant were given.
    """

    messages: tuple[Message, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    formatted_tools: str = ""
    thinking: bool = False
    style: str = STRINGS

    @property
    def has_answer(self) -> bool:
        """Whether an assistant says or calls something, so that there is something to learn."""
        blocks = (block for message in self.messages if message.role == "assistant" for block in message.blocks)
        return any(not isinstance(block, ToolOutputs) and _holds_something(block) for block in blocks)

    def texts(self) -> list[str]:
        """Returns everything that is said in it, in order: what a document's text is made of."""
        said = [self.system or "", *(tool.description or "" for tool in self.tools), self.formatted_tools]
        for message in self.messages:
            said.append(message.text)
            for block in message.blocks:
                said += _texts_of_block(block)
        return [text for text in said if text]

    def map_texts(self, change: Callable[[str], str]) -> Conversation:
        """Returns the conversation with every text replaced by `change(text)`.

        JSON (arguments, outputs that are JSON) is changed value by value and written anew only where one changed, so
        that it stays JSON. Names of tools and parameters are kept.
        """
        return dataclasses.replace(
            self,
            system=None if self.system is None else change(self.system),
            formatted_tools=change(self.formatted_tools) if self.formatted_tools else "",
            tools=tuple(_changed_tool(tool, change) for tool in self.tools),
            messages=tuple(
                dataclasses.replace(
                    message,
                    text=change(message.text) if message.role == "user" else "",
                    blocks=tuple(_changed_block(block, change) for block in message.blocks),
                )
                for message in self.messages
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the record that `parse_conversation` reads back as this conversation."""
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        if self.formatted_tools:
            content = {"has_thinking": self.thinking, "formatted_tools": self.formatted_tools}
            messages.append({"role": "developer", "content": content})
        messages += [_message_to_json(message, self.style) for message in self.messages]
        record: dict[str, Any] = {"messages": messages}
        if self.tools:
            record["tools"] = [
                {name: value for name, value in dataclasses.asdict(tool).items() if value is not None}
                for tool in self.tools
            ]
        return record | ({"enable_thinking": True} if self.thinking else {})

    def to_text(self) -> str:
        """Returns `to_json` as one line, the same for equal conversations."""
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))


def json_or_none(text: str) -> Any:
    """Returns the value that a text of JSON says, None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _holds_something(block: Block) -> bool:
    return (
        bool(block.calls)
        if isinstance(block, ToolCalls)
        else isinstance(block, Thoughts | Response) and bool(block.text)
    )


def _texts_of_block(block: Block) -> list[str]:
    if isinstance(block, ToolCalls):
        return [call.arguments for call in block.calls]
    return list(block.outputs) if isinstance(block, ToolOutputs) else [block.text]


def _changed_block(block: Block, change: Callable[[str], str]) -> Block:
    if isinstance(block, ToolCalls):
        calls = (dataclasses.replace(call, arguments=_changed_json(call.arguments, change)) for call in block.calls)
        return dataclasses.replace(block, calls=tuple(calls))
    if isinstance(block, ToolOutputs):
        return dataclasses.replace(block, outputs=tuple(_changed_json(text, change) for text in block.outputs))
    return dataclasses.replace(block, text=change(block.text))


def _changed_tool(tool: Tool, change: Callable[[str], str]) -> Tool:
    description = None if tool.description is None else change(tool.description)
    return dataclasses.replace(tool, description=description, parameters=_changed_values(tool.parameters, change))


def _changed_json(text: str, change: Callable[[str], str]) -> str:
    """Returns a text changed as a whole, or where it is a JSON object or list, value by value."""
    value = json_or_none(text)
    if not isinstance(value, dict | list):
        return change(text)
    changed = _changed_values(value, change)
    return text if changed == value else json.dumps(changed, ensure_ascii=False)


def _changed_values(value: Any, change: Callable[[str], str]) -> Any:
    """Returns JSON with its texts changed, and its numbers where as texts they change."""
    if isinstance(value, Mapping):
        return {name: _changed_values(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_changed_values(inner, change) for inner in value]
    if isinstance(value, str):
        return change(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        written = json.dumps(value)
        return value if (changed := change(written)) == written else changed
    return value


def _message_to_json(message: Message, style: str) -> dict[str, Any]:
    if message.role == "user":
        return {"role": "user", "content": message.text}
    if message.role == "tool":
        (outputs,) = message.blocks
        return {"role": "tool", "content": outputs.outputs[0] if isinstance(outputs, ToolOutputs) else ""}
    record: dict[str, Any] = {"role": "assistant"}
    of_message = [block for block in message.blocks if isinstance(block, ToolCalls) and block.of_message]
    own = [block for block in message.blocks if block not in of_message]
    if style == BLOCKS:
        record["content"] = {"blocks": [_block_to_json(block) for block in own]}
    else:
        record["content"] = "".join(block.text for block in own if isinstance(block, Response))
    for block in of_message:
        record["tool_calls"] = [{"type": "function", "function": dataclasses.asdict(call)} for call in block.calls]
    return record


def _block_to_json(block: Block) -> dict[str, Any]:
    if isinstance(block, ToolCalls):
        return {"type": "tool_calls", "calls": [dataclasses.asdict(call) for call in block.calls]}
    if isinstance(block, ToolOutputs):
        return {"type": "tool_outputs", "outputs": [{"output": output} for output in block.outputs]}
    return {"type": "thoughts" if isinstance(block, Thoughts) else "response", "text": block.text}

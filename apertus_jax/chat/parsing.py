"""Parsing of conversations: JSON records checked, one line of what is wrong with a malformed one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from apertus_jax.chat.conversation import (
    BLOCKS,
    STRINGS,
    Block,
    Conversation,
    Message,
    Response,
    Thoughts,
    Tool,
    ToolCall,
    ToolCalls,
    ToolOutputs,
    json_or_none,
)
from apertus_jax.errors import UserError

ROLES = ("system", "developer", "user", "assistant", "tool")
CONVERSATION_FIELDS = ("messages", "tools", "enable_thinking")


class MalformedConversation(UserError):
    """A conversation that cannot be rendered; `problem` says why without quoting what was said in it."""

    def __init__(self, problem: str, value: str = ""):
        super().__init__(f"{problem}{value}; mend or remove the conversation")
        self.problem = problem


def parse_conversation(record: Any) -> Conversation:
    """Returns the conversation that a JSON object describes.

    Raises:
      MalformedConversation: an unknown role, a tool, call or part of another shape, a tool's output that answers no
        call of the assistant, or no message at all.
    """
    _require(isinstance(record, Mapping), "a conversation is no object with messages")
    given = record.get("messages")
    _require(isinstance(given, Sequence) and not isinstance(given, str), "messages is no list")
    messages = list(given)
    _require(bool(messages), "there are no messages")
    for number, message in enumerate(messages, 1):
        _require(isinstance(message, Mapping), f"message {number} is no object")
        role = message.get("role")
        _require(
            role in ROLES, f"message {number} has an unknown role", f" ({role!r:.40}); roles are {', '.join(ROLES)}"
        )
    system = None
    if messages[0]["role"] == "system":
        system = _plain_text(messages.pop(0).get("content"), "the system message")
    tools, thinking, formatted = record.get("tools") or (), record.get("enable_thinking"), ""
    if messages and messages[0]["role"] == "developer":
        content = messages.pop(0).get("content")
        _require(isinstance(content, Mapping), "the developer message has no object as content")
        tools = tools or content.get("tools") or ()
        thinking = content.get("has_thinking") if thinking is None else thinking
        formatted = content.get("formatted_tools") or ""
        _require(isinstance(formatted, str), "formatted_tools of the developer message is no text")
    _require(thinking is None or isinstance(thinking, bool), "enable_thinking is neither true nor false")
    _require(isinstance(tools, Sequence) and not isinstance(tools, str), "tools is no list")
    parsed, style = _messages(messages, len(given) - len(messages) + 1)
    return Conversation(
        messages=tuple(parsed),
        system=system,
        tools=tuple(_tool(tool, f"tool {number}") for number, tool in enumerate(tools, 1)),
        formatted_tools="" if tools else formatted,
        thinking=bool(thinking),
        style=style,
    )


def _messages(messages: Sequence[Mapping[str, Any]], first: int) -> tuple[list[Message], str]:
    """Returns the messages after system and developer, the first of them number `first`, and the assistant's style."""
    parsed: list[Message] = []
    style = ""
    for number, message in enumerate(messages, first):
        role, where = message["role"], f"message {number} ({message['role']})"
        _require(role not in ("system", "developer"), f"{where} does not stand at the beginning")
        if role == "user":
            parsed.append(Message("user", _plain_text(message.get("content"), where)))
        elif role == "tool":
            _require(bool(parsed) and parsed[-1].role != "user", f"{where} answers no assistant")
            output = _plain_text(message.get("content"), where)
            parsed.append(Message("tool", blocks=(ToolOutputs((output,), of_message=True),)))
        else:
            blocks, found = _assistant_blocks(message, where)
            _require(found in ("", style) or not style, f"{where} mixes contents of text and of blocks with the others")
            style = style or found
            mixed = found == BLOCKS and bool(parsed) and parsed[-1].role == "tool"
            _require(
                not (mixed and blocks and isinstance(blocks[0], ToolOutputs)),
                f"{where} has outputs of tools that were messages before it",
            )
            parsed.append(Message("assistant", blocks=blocks))
    return parsed, style or STRINGS


def _assistant_blocks(message: Mapping[str, Any], where: str) -> tuple[tuple[Block, ...], str]:
    """Returns the blocks of an assistant's message and its style, "" where it has no content but calls."""
    content, calls = message.get("content"), message.get("tool_calls")
    _require(calls is None or isinstance(calls, list), f"{where} has tool_calls that are no list")
    blocks: list[Block] = []
    style = STRINGS
    if isinstance(content, str):
        blocks += [Response(content)] if content else []
    elif isinstance(content, Mapping) and isinstance(content.get("blocks"), list):
        style = BLOCKS
        blocks += [_block(block, f"{where}, block {number}") for number, block in enumerate(content["blocks"], 1)]
    else:
        _require(content is None and bool(calls), f"{where} has a content that is neither text nor blocks")
        style = ""
    if calls:
        blocks.append(ToolCalls(tuple(_call(call, where) for call in calls), of_message=True))
    return tuple(blocks), style


def _block(block: Any, where: str) -> Block:
    _require(isinstance(block, Mapping), f"{where} is no object")
    kind = block.get("type")
    if kind in ("thoughts", "response"):
        text = block.get("text")
        _require(isinstance(text, str), f"{where} ({kind}) has no text")
        return Thoughts(text) if kind == "thoughts" else Response(text)
    if kind == "tool_calls":
        calls = block.get("calls")
        _require(isinstance(calls, list) and bool(calls), f"{where} (tool_calls) has no calls")
        return ToolCalls(tuple(_call(call, where) for call in calls))
    known = "thoughts, tool_calls, tool_outputs, response"
    _require(kind == "tool_outputs", f"{where} has an unknown type", f" ({kind!r:.40}); types are {known}")
    outputs = block.get("outputs")
    _require(isinstance(outputs, list), f"{where} (tool_outputs) has no list of outputs")
    texts: list[Any] = [output.get("output") if isinstance(output, Mapping) else output for output in outputs]
    _require(all(isinstance(text, str) for text in texts), f"{where} (tool_outputs) has an output that is no text")
    return ToolOutputs(tuple(texts))


def _call(call: Any, where: str) -> ToolCall:
    _require(isinstance(call, Mapping), f"{where} has a tool call that is no object")
    _require(call.get("type", "function") == "function", f"{where} has a tool call of another type than function")
    function = call.get("function", call)
    _require(isinstance(function, Mapping), f"{where} has a tool call whose function is no object")
    name, arguments = function.get("name"), function.get("arguments")
    _require(isinstance(name, str) and bool(name), f"{where} has a tool call without a name")
    if isinstance(arguments, Mapping):
        return ToolCall(name, json.dumps(arguments, ensure_ascii=False))
    _require(
        isinstance(arguments, str) and isinstance(json_or_none(arguments), dict),
        f"{where}: arguments are no JSON object",
    )
    return ToolCall(name, arguments)


def _tool(tool: Any, where: str) -> Tool:
    _require(isinstance(tool, Mapping), f"{where} is no object")
    function = tool.get("function", tool)
    _require(isinstance(function, Mapping), f"{where} has a function that is no object")
    name, description, parameters = (function.get(key) for key in ("name", "description", "parameters"))
    _require(isinstance(name, str) and bool(name), f"{where} has no name")
    _require(description is None or isinstance(description, str), f"{where} has a description that is no text")
    if parameters is not None:
        _require(isinstance(parameters, Mapping), f"{where} has parameters that are no JSON schema of an object")
        properties = parameters.get("properties")
        _require(properties is None or isinstance(properties, Mapping), f"{where} has properties that are no object")
        _check_required(parameters, where)
        for name_of_property, schema in (properties or {}).items():
            _check_schema(schema, f"{where}, parameter {name_of_property!r:.40}")
    return Tool(name, description, parameters)


def _check_required(schema: Mapping[str, Any], where: str) -> None:
    required = schema.get("required") or []
    _require(isinstance(required, list), f"{where}: required is no list of names")


def _check_schema(schema: Any, where: str) -> None:
    """Checks that a JSON schema has the shapes that declarations are written from."""
    _require(isinstance(schema, Mapping), f"{where} is no JSON schema")
    kind = schema.get("type")
    of_several = isinstance(kind, list) and all(isinstance(each, str) for each in kind)
    _require(
        kind is None or isinstance(kind, str) or of_several, f"{where}: type is neither a name nor a list of names"
    )
    for name in ("oneOf", "enum"):
        value = schema.get(name)
        _require(value is None or isinstance(value, list), f"{where}: {name} is no list")
    description = schema.get("description")
    _require(description is None or isinstance(description, str), f"{where}: description is no text")
    if schema.get("items"):
        _check_schema(schema["items"], f"{where}, items")
    for variant in schema.get("oneOf") or []:
        _check_schema(variant, f"{where}, oneOf")
    if kind == "object" and schema.get("properties"):
        _require(isinstance(schema["properties"], Mapping), f"{where}: properties is no object")
        _check_required(schema, where)
        for name, inner in schema["properties"].items():
            _check_schema(inner, f"{where}.{name!s:.40}")


def _plain_text(content: Any, where: str) -> str:
    """Returns the text of a content: a string, {"text": …}, {"parts": […]} or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping) and isinstance(content.get("text"), str):
        return str(content["text"])
    parts = content.get("parts") if isinstance(content, Mapping) else content
    _require(isinstance(parts, list) and bool(parts), f"{where} has a content that is neither text nor parts")
    texts: list[str] = []
    for part in parts if isinstance(parts, list) else ():
        _require(isinstance(part, Mapping) and "type" in part, f"{where} has a part without a type")
        of_text = part["type"] == "text"
        _require(of_text, f"{where} has a part that is no text", f" ({part['type']!r:.40}); other parts are not read")
        _require(isinstance(part.get("text"), str), f"{where} has a part of text without text")
        texts.append(part["text"])
    return "".join(texts)


def _require(condition: bool, problem: str, value: str = "") -> None:
    if not condition:
        raise MalformedConversation(problem, value)

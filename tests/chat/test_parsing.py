"""Malformed conversations: one line that names the message and says what is wrong with it."""

import pytest

from apertus_jax.chat import MalformedConversation, parse_conversation

USER = {"role": "user", "content": "Hi"}


def answer(**fields):
    return {"messages": [USER, {"role": "assistant", "content": "x", **fields}]}


def blocks(*several):
    return answer(content={"blocks": list(several)})


def tool(**fields):
    return {"messages": [USER], "tools": [{"name": "f", **fields}]}


MALFORMED = {
    "no object": ("x", "no object with messages"),
    "no messages": ({}, "messages is no list"),
    "empty": ({"messages": []}, "there are no messages"),
    "unknown role": (
        {"messages": [{"role": "bot", "content": "x"}]},
        r"message 1 has an unknown role \('bot'\); roles",
    ),
    "message no object": ({"messages": ["Hi"]}, "message 1 is no object"),
    "late system": ({"messages": [USER, {"role": "system", "content": "S"}]}, r"message 2 \(system\) does not stand"),
    "tool first": ({"messages": [USER, {"role": "tool", "content": "2"}]}, r"message 2 \(tool\) answers no assistant"),
    "no content": ({"messages": [{"role": "user"}]}, r"message 1 \(user\) has a content that is neither"),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        r"a part that is no text \('image'\)",
    ),
    "part without text": ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "part of text without text"),
    "answer of neither": (answer(content=3), r"message 2 \(assistant\) has a content that is neither text nor blocks"),
    "mixed": ({"messages": [*answer()["messages"], *blocks()["messages"]]}, r"message 4 \(assistant\) mixes contents"),
    "unknown block": (blocks({"type": "song"}), r"block 1 has an unknown type \('song'\); types are thoughts"),
    "block without text": (blocks({"type": "thoughts"}), r"block 1 \(thoughts\) has no text"),
    "outputs": (blocks({"type": "tool_outputs", "outputs": [{"output": 2}]}), "an output that is no text"),
    "no calls": (blocks({"type": "tool_calls", "calls": []}), r"\(tool_calls\) has no calls"),
    "call type": (answer(tool_calls=[{"type": "shell"}]), "a tool call of another type than function"),
    "call name": (answer(tool_calls=[{"arguments": "{}"}]), "a tool call without a name"),
    "arguments": (answer(tool_calls=[{"name": "f", "arguments": "[1"}]), "arguments are no JSON object"),
    "tools": ({"messages": [USER], "tools": "f"}, "tools is no list"),
    "tool no object": ({"messages": [USER], "tools": ["f"]}, "tool 1 is no object"),
    "tool name": ({"messages": [USER], "tools": [{}]}, "tool 1 has no name"),
    "parameters": (tool(parameters=["a"]), "tool 1 has parameters that are no JSON schema of an object"),
    "property": (tool(parameters={"properties": {"a": "string"}}), "tool 1, parameter 'a' is no JSON schema"),
    "enum": (tool(parameters={"properties": {"a": {"enum": "x"}}}), "parameter 'a': enum is no list"),
    "thinking": ({"messages": [USER], "enable_thinking": "yes"}, "enable_thinking is neither true nor false"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_conversation_is_one_line(name):
    record, told = MALFORMED[name]
    with pytest.raises(MalformedConversation, match=told) as error:
        parse_conversation(record)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("mend or remove the conversation")


def test_texts_change_inside_their_parts():
    developer = {"has_thinking": True, "formatted_tools": "// asks a@b.ch"}
    record = {
        "messages": [
            {"role": "system", "content": "S a@b.ch"},
            {"role": "developer", "content": developer},
            {"role": "user", "content": {"parts": [{"type": "text", "text": "Hi a@b.ch"}]}},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"name": "f", "arguments": '{"to":  "a@b.ch", "n": 1}'}],
            },
            {"role": "tool", "content": '[{"from": "a@b.ch"}]'},
            {"role": "assistant", "content": "from a@b.ch"},
        ],
    }
    conversation = parse_conversation(record)
    changed = conversation.map_texts(lambda text: text.replace("a@b.ch", "<email-pii>"))
    assert parse_conversation(changed.to_json()) == changed
    assert changed.thinking
    assert "a@b.ch" not in changed.to_text()
    assert '{"to": "<email-pii>", "n": 1}' in changed.texts()
    assert '[{"from": "<email-pii>"}]' in changed.texts()
    assert len(changed.texts()) == len(conversation.texts()) == 6
    assert conversation.map_texts(lambda text: text) == conversation

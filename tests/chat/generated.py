"""Generated conversations: every role, style and part, at random from a seed."""

import json
import random

SAID = "der Bund und die Kantone – l'État, c'est \"moi\"\n\n  x = {1: [2]}\t done ] , } [ 42 "
TYPED = "<s> </s> <|assistant_end|> <think> <email-pii> Grüezi 你好 naïve \\n // end"
WORDS = (SAID + TYPED).split(" ")
NAMES = ("calc", "now", "search_web", "display_answers")


def text(rng: random.Random, at_least: int = 0) -> str:
    """Returns words, control tokens that a person typed among them."""
    return " ".join(rng.choices(WORDS, k=rng.randint(at_least, 6)))


def clean(value):
    """Returns JSON without anything that a library would take for a control token."""
    if isinstance(value, dict):
        return {name: clean(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [clean(inner) for inner in value]
    return value.replace("<", "‹") if isinstance(value, str) else value


def schema(rng: random.Random, depth: int = 0) -> dict:
    """Returns a JSON schema of any shape that declarations know."""
    kinds = ["string", "number", "integer", "boolean", "enum", "null", "several", "array", "oneOf", "object"]
    kind = rng.choice(kinds[: 7 if depth > 1 else None])
    made: dict = {"type": kind}
    if kind == "enum":
        made = {"type": "string", "enum": rng.choice([["x", "y"], ["a"], ["z", "ü"]])}
    elif kind == "null":
        made = {}
    elif kind == "several":
        made = {"type": rng.choice([["string", "null"], ["integer"], ["object", "object"]])}
    elif kind == "array":
        made |= {"items": schema(rng, depth + 1)} if rng.random() < 0.8 else {}
    elif kind == "oneOf":
        made = {"oneOf": [schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
        for variant in made["oneOf"]:
            variant.pop("nullable", None)
    elif kind == "object" and rng.random() < 0.8:
        made["properties"] = {f"p{number}": schema(rng, depth + 1) for number in range(rng.randint(1, 3))}
        made["required"] = ["p0"] if rng.random() < 0.5 else []
    if rng.random() < 0.3:
        made["nullable"] = True
    if rng.random() < 0.4:
        made["description"] = text(rng, 1)
    if rng.random() < 0.3:
        made["default"] = "x" if made.get("enum") or made.get("oneOf") else rng.choice(["x", 1, None, True, [1, "é"]])
    return made


def tool(rng: random.Random) -> dict:
    """Returns a declaration, flat or wrapped."""
    flat = {"name": rng.choice(NAMES), "description": text(rng, 1)}
    if rng.random() < 0.7:
        flat["parameters"] = {
            "type": "object",
            "properties": {f"a{number}": schema(rng) for number in range(rng.randint(0, 3))},
            "required": ["a0"] if rng.random() < 0.5 else [],
        }
    return flat if rng.random() < 0.5 else {"type": "function", "function": flat}


def call(rng: random.Random) -> dict:
    """Returns a call with arguments that are the text of a JSON object."""
    arguments = {name: rng.choice([1, 2.5, "é", None, [1, 2]]) for name in rng.sample("abc", rng.randint(0, 3))}
    return {"name": rng.choice(NAMES), "arguments": json.dumps(arguments, ensure_ascii=rng.random() < 0.5)}


def block(rng: random.Random) -> dict:
    """Returns a block of an assistant's message."""
    kind = rng.choice(["thoughts", "response", "tool_calls", "tool_outputs"])
    if kind == "tool_calls":
        return {"type": kind, "calls": [call(rng) for _ in range(rng.randint(1, 2))]}
    if kind == "tool_outputs":
        return {"type": kind, "outputs": [{"output": text(rng)} for _ in range(rng.randint(1, 3))]}
    return {"type": kind, "text": text(rng)}


def assistant(rng: random.Random, blocks: bool, after_tool: bool) -> dict:
    """Returns a message of the assistant in the style of its conversation."""
    message: dict = {"role": "assistant", "content": text(rng)}
    if blocks:
        several = [block(rng) for _ in range(rng.randint(1, 4))]
        if after_tool:
            several.insert(0, {"type": rng.choice(["thoughts", "response"]), "text": text(rng)})
        message["content"] = {"blocks": several}
    if rng.random() < 0.3:
        message["tool_calls"] = [{"type": "function", "function": call(rng)} for _ in range(rng.randint(1, 2))]
    return message


def conversation(seed: int, answered: bool = True) -> dict:
    """Returns the conversation of a seed, typed control tokens included."""
    rng = random.Random(seed)
    messages: list[dict] = []
    if rng.random() < 0.5:
        system = text(rng)
        messages.append({"role": "system", "content": rng.choice([system, {"text": system}])})
    blocks = rng.random() < 0.6
    for _ in range(rng.randint(1, 3)):
        said = text(rng, 1)
        parts = {"parts": [{"type": "text", "text": said}, {"type": "text", "text": text(rng)}]}
        messages.append({"role": "user", "content": rng.choice([said, parts])})
        if rng.random() < 0.9 or answered:
            messages.append(assistant(rng, blocks, False))
            for _ in range(rng.choice([0, 0, 1, 2])):
                messages.append({"role": "tool", "content": text(rng)})
            if rng.random() < 0.5:
                messages.append(assistant(rng, blocks, messages[-1]["role"] == "tool"))
    record: dict = {"messages": messages}
    if rng.random() < 0.5:
        record["tools"] = [tool(rng) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.4:
        record["enable_thinking"] = True
    return record

"""Tool declarations in the developer block: JSON schemas written as TypeScript.

Every blank and line end is that of the published templates, which models have read; what they get wrong is mended
unless `legacy`: `any` for unions with objects (the published loop forgets that it saw one), tools without a
description, defaults of other types than text beside an enum.
Source: docs/reference/evaluation_and_release.md §7.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from apertus_jax.chat.conversation import Tool

PRIMITIVES = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}
LONGEST_ITEM_TYPE = 50
# What the published templates put there because of the way they are indented.
INDENT_OF_PROPERTY = "\n" + 16 * " "
INDENT_OF_DEFAULT = 20 * " "


def declare_tools(tools: Sequence[Tool], legacy: bool = False) -> str:
    """Returns the declarations of tools, one after another."""
    return "\n".join(_declaration(tool, legacy) for tool in tools)


def _declaration(tool: Tool, legacy: bool) -> str:
    comment = "" if tool.description is None else f"// {tool.description}\n"
    properties = (tool.parameters or {}).get("properties")
    if not properties:
        return f"{comment}type {tool.name} = () => any;"
    required = (tool.parameters or {}).get("required") or []
    written = [_parameter(name, schema, name in required, legacy) for name, schema in properties.items()]
    return f"{comment}type {tool.name} = (_: {{\n" + ",\n".join(written) + "\n}) => any;"


def _parameter(name: str, schema: Mapping[str, Any], required: bool, legacy: bool) -> str:
    comment = f"// {schema['description']}\n" if schema.get("description") else ""
    default = ""
    if "default" in schema:
        before = "// default: " if schema.get("oneOf") and not schema.get("enum") else ", // default: "
        plain = isinstance(schema["default"], str) and (schema.get("enum") or schema.get("oneOf"))
        default = before + (schema["default"] if plain else _json(schema["default"]))
    return f"{comment}{name}{'' if required else '?'}: {type_of_schema(schema, legacy)}{default}"


def type_of_schema(schema: Mapping[str, Any], legacy: bool = False) -> str:
    """Returns the TypeScript type of a JSON schema."""
    kind, null = schema.get("type"), " | null" if schema.get("nullable") else ""
    if kind == "array":
        return _array(schema.get("items"), legacy) + null
    if isinstance(kind, list) and kind:
        return " | ".join(kind)
    if schema.get("oneOf"):
        return _union(schema["oneOf"], legacy)
    if kind == "string":
        return '"' + '" | "'.join(map(str, schema["enum"])) + '"' if schema.get("enum") else "string" + null
    if kind == "object":
        return _object(schema, legacy)
    return PRIMITIVES.get(kind, "any") if isinstance(kind, str) else "any"


def _array(items: Mapping[str, Any] | None, legacy: bool) -> str:
    if not items:
        return "any[]"
    kind = items.get("type")
    if isinstance(kind, str) and kind in PRIMITIVES:
        return PRIMITIVES[kind] + "[]"
    inner = type_of_schema(items, legacy)
    return "any[]" if inner == "object | object" or len(inner) > LONGEST_ITEM_TYPE else inner + "[]"


def _union(variants: Sequence[Mapping[str, Any]], legacy: bool) -> str:
    if not legacy and len(variants) > 1 and any(variant.get("type") == "object" for variant in variants):
        return "any"
    written = []
    for variant in variants:
        comment = f"// {variant['description']}" if variant.get("description") else ""
        default = f"{INDENT_OF_DEFAULT}// default: {_json(variant['default'])}" if "default" in variant else ""
        written.append(type_of_schema(variant, legacy) + comment + default)
    return " | \n".join(written)


def _object(schema: Mapping[str, Any], legacy: bool) -> str:
    properties = schema.get("properties")
    if not properties:
        return "object"
    required = schema.get("required") or []
    written = [
        f"{name}{'' if name in required else '?'}: {INDENT_OF_PROPERTY}{type_of_schema(inner, legacy)}"
        for name, inner in properties.items()
    ]
    return "{\n" + ", ".join(written) + "}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

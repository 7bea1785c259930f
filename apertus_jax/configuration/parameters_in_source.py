"""Parameters of bindable names as their source spells them: nothing is imported, so shell completion can ask."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from apertus_jax.configuration.registry import SUPPLIED_BY_THE_EDGE

PACKAGE = Path(__file__).resolve().parent.parent


def parameters_in_source(location: str) -> list[str]:
    """Returns the parameters of "module:name" that gin may bind; none where the source does not tell."""
    module, _, name = location.partition(":")
    found = _definition(module, name)
    if found is None:
        return []
    module, node = found
    names = _fields(module, node) if isinstance(node, ast.ClassDef) else _arguments(node)
    return [each for each in names if each not in SUPPLIED_BY_THE_EDGE]


@functools.cache
def _tree(module: str) -> ast.Module | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text())
    return None


def _definition(module: str, name: str) -> tuple[str, ast.FunctionDef | ast.ClassDef] | None:
    """Returns the module that defines a name, and its definition; follows imports and tables of lazy imports."""
    tree = _tree(module)
    if tree is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name and node in tree.body:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and any(name == alias.name for alias in node.names):
            return _definition(node.module, name)
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                listed = {each.value for each in ast.walk(value) if isinstance(each, ast.Constant)}
                place = key.value if isinstance(key, ast.Constant) else None
                if isinstance(place, str) and place.startswith("apertus_jax.") and name in listed:
                    return _definition(place, name)
    return None


def _arguments(node: ast.FunctionDef) -> list[str]:
    return [each.arg for each in (*node.args.args, *node.args.kwonlyargs) if each.arg not in ("self", "cls")]


def _fields(module: str, node: ast.ClassDef) -> list[str]:
    """Returns what making an instance takes: arguments of `__init__`, or fields of a dataclass and its bases."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _arguments(each)
    names: dict[str, None] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and (found := _definition(module, base.id)):
            origin, definition = found
            names |= dict.fromkeys(_fields(origin, definition) if isinstance(definition, ast.ClassDef) else ())
    nested = [inner for each in node.body if isinstance(each, ast.If) for inner in (*each.body, *each.orelse)]
    for each in sorted((*node.body, *nested), key=lambda each: each.lineno):  # some are told to type checkers otherwise
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and _is_given(each):
            names[each.target.id] = None
    return list(names)


def _is_given(field: ast.AnnAssign) -> bool:
    """Whether a field is an argument: no class variable, and not made by the class itself."""
    made = "init=False" in ast.unparse(field.value) if field.value else False
    return not ast.unparse(field.annotation).startswith(("ClassVar", "typing.ClassVar")) and not made

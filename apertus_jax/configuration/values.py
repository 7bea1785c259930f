"""Checks of gin values against annotations: one mechanism for every registered name, before anything runs and again
when it is called.

Before: values are as gin files spell them, with `Reference` in place of what will be built. When called: the things
themselves. Lists and tuples are one to gin files. What an annotation leaves open is accepted.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import os
import types
import typing
from typing import Any, NamedTuple

from apertus_jax.configuration.registry import Bindable, bindables
from apertus_jax.configuration.statements import Reference

LARGEST_NUMBER = 2**63
PLAIN = {int: "a whole number", float: "a number", str: "text in quotes", bool: "True or False"}
SEQUENCES = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, list, tuple)
MAPPINGS = (collections.abc.Mapping, collections.abc.MutableMapping, dict)
LITERALS = (str, int, float, bool, list, tuple, dict, type(None))
MAX_EXAMPLES = 4


class Mismatch(NamedTuple):
    """A value that is not what is asked for: the place inside it, such as [2], what stands there, what is meant."""

    inside: str
    value: Any
    meaning: str
    spelling: str

    def told(self, name: str, place: str = " in the gin file or flag") -> str:
        """Returns the line for people."""
        advice = f"write {self.spelling}" if self.spelling else "correct it"
        return f"{name}{self.inside} = {shown(self.value)} must be {self.meaning}; {advice}{place}"


def mismatch(value: Any, hint: Any, inside: str = "") -> Mismatch | None:
    """Returns where `value` is not what `hint` asks for, or None."""
    if _fits(value, hint):
        return None
    deeper = _inner_mismatch(value, hint, inside)
    return deeper or Mismatch(inside, value, meaning(hint), _spelling(value, hint))


def takes_text(hint: Any) -> bool:
    """Returns whether some text fits an annotation: any text, or one of several words."""
    return any(
        any(isinstance(word, str) for word in typing.get_args(each))
        if typing.get_origin(each) is typing.Literal
        else each is not Any and _fits("text", each)
        for each in _choices(hint)
    )


def shown(value: Any) -> str:
    """Returns a value as a person may read it on one line."""
    if inspect.isfunction(value) or inspect.isclass(value):
        return f"@{value.__name__}"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _choices(hint: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for each in typing.get_args(hint) for choice in _choices(each))
    if typing.get_origin(hint) is typing.Annotated:
        return _choices(typing.get_args(hint)[0])
    return (_function_of(hint),)


def _function_of(hint: Any) -> Any:
    """Returns a protocol of a function as the `Callable` that it describes; other annotations as they are."""
    if not getattr(hint, "_is_protocol", False) or _members(hint) != ["__call__"]:
        return hint
    hints = _hints_of(hint.__call__)
    if hints is None:
        return collections.abc.Callable
    parameters = [each for name, each in hints.items() if name != "return"]
    return collections.abc.Callable[parameters, hints.get("return", Any)]


def _fits(value: Any, hint: Any) -> bool:
    choices = _choices(hint)
    if len(choices) > 1:
        return any(_fits(value, choice) for choice in choices)
    hint = choices[0]
    if isinstance(value, Reference):
        return _reference_fits(bindables[value.bare], value.called, hint)
    if hint is None or hint is type(None):
        return value is None
    if hint in PLAIN:
        return _plain_fits(value, hint)
    origin = typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in SEQUENCES:
        return _sequence_fits(value, hint)
    if origin in MAPPINGS:
        key, item = typing.get_args(hint) or (Any, Any)
        return isinstance(value, collections.abc.Mapping) and all(
            _fits(name, key) and _fits(each, item) for name, each in value.items()
        )
    if origin is collections.abc.Callable:
        return callable(value)
    if not inspect.isclass(origin) or origin is object:
        return True
    if getattr(origin, "_is_protocol", False):
        return not isinstance(value, LITERALS) and all(hasattr(value, name) for name in _members(origin))
    return _is_instance(value, origin)


def _plain_fits(value: Any, hint: type) -> bool:
    if hint is str or hint is bool:
        return isinstance(value, hint)
    if isinstance(value, bool) or not isinstance(value, (int,) if hint is int else (int, float)):
        return False
    return abs(value) < LARGEST_NUMBER if isinstance(value, int) else math.isfinite(value)


def _sequence_fits(value: Any, hint: Any) -> bool:
    if isinstance(value, LITERALS) and not isinstance(value, (list, tuple)):
        return False
    if not isinstance(value, (list, tuple)):  # such as an array
        return hasattr(value, "__iter__")
    wanted = _element_hints(hint, len(value))
    return wanted is not None and all(_fits(each, element) for each, element in zip(value, wanted, strict=True))


def _element_hints(hint: Any, length: int) -> list[Any] | None:
    """Returns what each of `length` elements has to be; None where another number of them is asked for."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and arguments and arguments[-1] is not Ellipsis:
        return list(arguments) if len(arguments) == length else None
    return [arguments[0] if arguments else Any] * length


def _members(protocol: type) -> list[str]:
    """The methods and attributes that a protocol asks for."""
    found = {name for each in protocol.__mro__ for name in (*vars(each), *getattr(each, "__annotations__", ()))}
    known = {name for each in (typing.Protocol, typing.Generic, object) for name in dir(each)}
    return sorted(name for name in found - known if name == "__call__" or not name.startswith("_"))


def _is_instance(value: Any, wanted: type) -> bool:
    if wanted is os.PathLike:
        return isinstance(value, os.PathLike)
    try:
        return isinstance(value, wanted)
    except TypeError:  # annotations that only describe, such as the shapes of arrays
        return True


def _reference_fits(bindable: Bindable, called: bool, hint: Any) -> bool:
    """Whether what a reference gives can be what is asked for; only what is known is held against it."""
    if called:
        return _type_fits(bindable.made, hint)
    if hint is Any:
        return True
    if typing.get_origin(hint) is collections.abc.Callable:
        arguments = typing.get_args(hint)
        return not arguments or _type_fits(bindable.made, arguments[-1])
    if getattr(hint, "_is_protocol", False) and "__call__" in _members(hint):
        return bindable.made is Any or not _type_fits(bindable.made, hint)  # else it has to be made first
    return (typing.get_origin(hint) or hint) is type


def _type_fits(made: Any, hint: Any) -> bool:
    """Whether a thing of one type can be what another annotation asks for."""
    if made is Any or hint is Any or made == hint:
        return True
    if len(_choices(made)) > 1 or len(_choices(hint)) > 1:
        return any(_type_fits(one, other) for one in _choices(made) for other in _choices(hint))
    (made,), (hint,) = _choices(made), _choices(hint)
    if made == hint:
        return True
    made_origin, origin = typing.get_origin(made) or made, typing.get_origin(hint) or hint
    if origin is collections.abc.Callable:
        return _call_fits(made, hint)
    if made_origin is collections.abc.Callable:
        return False
    if hint is float and made in (int, float):
        return True
    if not (inspect.isclass(made_origin) and inspect.isclass(origin)):
        return made in (None, type(None)) if hint in (None, type(None)) else True
    if getattr(origin, "_is_protocol", False):
        return set(_members(origin)) <= _offered(made_origin)
    return issubclass(made_origin, origin)


def _call_fits(made: Any, hint: Any) -> bool:
    """Whether what can be called as `made` says can be called as `Callable[..., ...]` asks for."""
    if typing.get_origin(made) is collections.abc.Callable:
        parameters, result = typing.get_args(made) or (..., Any)
    elif "__call__" in _offered(made):
        parameters, result = ..., _result_of(made.__call__)
    else:
        return made is collections.abc.Callable
    wanted_parameters, wanted = typing.get_args(hint) or (..., Any)
    if not _type_fits(result, wanted):
        return False
    if parameters is ... or wanted_parameters is ...:
        return True
    return len(parameters) == len(wanted_parameters) and all(map(_type_fits, wanted_parameters, parameters))


def _result_of(function: Any) -> Any:
    """The annotation of what a function returns, or `typing.Any`."""
    return (_hints_of(function) or {}).get("return", Any)


@functools.cache
def _hints_of(function: Any) -> dict[str, Any] | None:
    """Returns a function's annotations, evaluated once; None where a name in them is unknown."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return None


def _offered(made: Any) -> set[str]:
    """The attributes that instances of a class have, fields without default included."""
    if not inspect.isclass(made):
        return set()
    return {*dir(made), *(name for each in made.__mro__ for name in getattr(each, "__annotations__", ()))}


def _inner_mismatch(value: Any, hint: Any, inside: str) -> Mismatch | None:
    """Looks into lists and dictionaries for the element that is wrong."""
    for choice in _choices(hint):
        origin = typing.get_origin(choice) or choice
        if origin in SEQUENCES and isinstance(value, (list, tuple)):
            wanted = _element_hints(choice, len(value))
            for number, (each, element) in enumerate(zip(value, wanted or [], strict=bool(wanted))):
                if found := mismatch(each, element, f"{inside}[{number}]"):
                    return found
        if origin in MAPPINGS and isinstance(value, collections.abc.Mapping):
            key, item = typing.get_args(choice) or (Any, Any)
            for name, each in value.items():
                if found := mismatch(name, key, inside) or mismatch(each, item, f"{inside}[{name!r}]"):
                    return found
    return None


def meaning(hint: Any) -> str:
    """Returns how a person calls what an annotation asks for."""
    choices = [choice for choice in _choices(hint)]
    if len(choices) > 1:
        return " or ".join(dict.fromkeys(map(meaning, choices)))
    hint = choices[0]
    if hint is None or hint is type(None):
        return "None"
    if hint in PLAIN:
        return PLAIN[hint]
    arguments, origin = typing.get_args(hint), typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in SEQUENCES and arguments and (origin is not tuple or arguments[-1] is Ellipsis):
        return f"a list of {_plural(arguments[0])}"
    if origin in SEQUENCES:
        return f"({', '.join(map(meaning, arguments))})" if arguments else "a list"
    if origin in MAPPINGS:
        key, item = arguments or (Any, Any)
        return f"a dictionary from {meaning(key)} to {meaning(item)}"
    if origin is collections.abc.Callable:
        return "a function"
    if origin is os.PathLike:
        return "a path in quotes"
    return f"a {getattr(origin, '__name__', None) or str(origin).rpartition('.')[2]}"


def _plural(hint: Any) -> str:
    told = meaning(hint)
    return {"a whole number": "whole numbers", "a number": "numbers", "text in quotes": "texts in quotes"}.get(
        told, f"what is {told} each" if " " in told.removeprefix("a ") else told.removeprefix("a ") + "s"
    )


def _spelling(value: Any, hint: Any) -> str:
    """Returns how the value was probably meant, or examples of what fits."""
    if inspect.isfunction(value) or inspect.isclass(value):  # a reference, when called
        value = Reference(value.__name__, False) if value.__name__ in bindables else value
    if isinstance(value, Reference) and _fits(other := Reference(value.name, not value.called), hint):
        return f"{other!r}" if other.called else f"{other!r} without brackets"
    if isinstance(value, str) and value.strip("@()") in bindables:
        for called in (True, False):
            if _fits(meant := Reference(value.strip("@()"), called), hint):
                return f"{meant!r} without quotes"
    if isinstance(value, str) and any(choice in (int, float, bool) for choice in _choices(hint)):
        plain = value.strip()
        if plain.isascii() and (plain.isdigit() or plain in ("True", "False")):
            return f"{plain} without quotes"
    if not isinstance(value, (list, tuple)) and _fits([value], hint):
        return f"[{value!r}]"
    if not isinstance(value, str) and isinstance(value, (int, float)) and str in _choices(hint):
        return f"'{value}'"
    return " or ".join(_examples(hint))


def _examples(hint: Any) -> list[str]:
    """Returns references that give what an annotation asks for, for annotations that need one."""
    needy = [choice for choice in _choices(hint) if _needs_reference(choice)]
    every = sorted(bindables.items(), key=lambda item: (item[1].made not in needy, item[0]))
    found = [
        repr(reference)
        for name, bindable in every
        if not bindable.is_command
        for called in (True, False)
        if (reference := Reference(name, called)) and any(_gives(bindable, called, choice) for choice in needy)
    ]
    if found:
        return found[:MAX_EXAMPLES]
    elements = [typing.get_args(choice)[0] for choice in _choices(hint) if _is_list(choice)]
    inner = [each for element in elements if _needs_reference(element) for each in _examples(element)]
    return [f"[{', '.join(inner[:2])}]"] if inner else []


def _gives(bindable: Bindable, called: bool, hint: Any) -> bool:
    """As `_reference_fits`, where what is made is known."""
    return bindable.made is not Any and _reference_fits(bindable, called, hint)


def _is_list(hint: Any) -> bool:
    return (typing.get_origin(hint) or hint) in SEQUENCES and bool(typing.get_args(hint))


def _needs_reference(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if origin is collections.abc.Callable:
        return True
    known = (*PLAIN, *SEQUENCES, *MAPPINGS, type(None), os.PathLike, type)
    return inspect.isclass(origin) and origin not in known

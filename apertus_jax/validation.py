"""Value checks: each raises one line that names the setting, its value and what is allowed.

Frozen dataclasses call them in `__post_init__`, and functions whose arguments come from gin at their start, so that a
wrong number is told before anything is written or compiled. Booleans are no numbers here, and NaN and infinity never
are what someone meant.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from apertus_jax.errors import UserError

LARGEST_SPELLED = 10**40
CHARACTERS_SHOWN = 80
# Seeds are mixed as 32 bits in some places and given to jax.random.key in others: this range means the same everywhere.
SEEDS = range(2**32)
PLAIN = {int: "a whole number below 2^63", float: "a finite number", str: "text in quotes", bool: "True or False"}
LISTS = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, list, tuple)
Settings = TypeVar("Settings", bound=type)
# Steps and samples are counted in 64 bits with sign.
COUNTS = range(2**63)

if TYPE_CHECKING:
    Value = TypeVar("Value")

    class FilledIn(Generic[Value]):
        """Type of a field that may be given as None, in whose place `__post_init__` puts a value; for type checkers.

        The field is declared once more for what runs, `Value | None = None`: that is what gin checks and help shows.
        """

        def __get__(self, settings: object, owner: type | None = None) -> Value: ...

        def __set__(self, settings: object, value: Value | None) -> None: ...


def require_whole_number(
    name: str, value: Any, at_least: int | None = None, at_most: int | None = None, optional: bool = False
) -> None:
    """Raises UserError unless `value` is a whole number within the bounds, or None where that is allowed.

    Args:
      name: the setting as a person writes it, for example "TrainingConfig.log_every".
      value: what it was set to.
      at_least, at_most: bounds, themselves allowed; None for no bound.
      optional: None is allowed too.
    """
    if optional and value is None:
        return
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not fits or (at_least is not None and value < at_least) or (at_most is not None and value > at_most):
        bounds = _bounds(at_least=at_least, at_most=at_most)
        _refuse(name, value, f"a whole number{' of ' if bounds else ''}{bounds}{_or_none(optional)}")


def require_number(
    name: str,
    value: Any,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> None:
    """Raises UserError unless `value` is a finite number within the bounds; `above` and `below` are outside."""
    if optional and value is None:
        return
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and is_finite(value)
    fits = fits and not (isinstance(value, numbers.Integral) and abs(int(value)) >= COUNTS.stop)  # a slip, no float
    if (
        not fits
        or (at_least is not None and value < at_least)
        or (above is not None and value <= above)
        or (at_most is not None and value > at_most)
        or (below is not None and value >= below)
    ):
        bounds = _bounds(at_least=at_least, above=above, at_most=at_most, below=below)
        _refuse(name, value, f"a finite number{' ' if bounds else ''}{bounds}{_or_none(optional)}")


def require_real(name: str, value: Any, what: str = "the value") -> None:
    """Raises UserError unless `value` is a number at all; `what` says which part of the setting it is."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise UserError(f"{name}: {what} is {spelled(value)} and must be a number")


def require_seed(name: str, value: Any) -> None:
    """Raises UserError unless `value` is a whole number that every generator here takes."""
    require_whole_number(name, value, at_least=SEEDS.start, at_most=SEEDS.stop - 1)


def require_count(name: str, value: Any, at_least: int = 0, optional: bool = False) -> None:
    """Raises UserError unless `value` is a whole number of steps, samples or tokens that 64 bits hold."""
    require_whole_number(name, value, at_least=at_least, at_most=COUNTS.stop - 1, optional=optional)


def require_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raises UserError unless `value` is one of `choices`."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        _refuse(name, value, f"one of {', '.join(repr(choice) for choice in choices)}")


def require_flag(name: str, value: Any) -> None:
    """Raises UserError unless `value` is True or False."""
    if not isinstance(value, bool):
        _refuse(name, value, "True or False")


def require_text(name: str, value: Any, empty_allowed: bool = True) -> None:
    """Raises UserError unless `value` is text."""
    if not isinstance(value, str) or not (value or empty_allowed):
        _refuse(name, value, "text in quotes" if empty_allowed else "text in quotes, not empty")


def require_list(name: str, value: Any, of: type | None = None, at_least: int = 0, distinct: bool = False) -> None:
    """Raises UserError unless `value` is a list or tuple.

    Args:
      name: the setting.
      value: what it was set to.
      of: what every element must be an instance of.
      at_least: the smallest number of elements.
      distinct: no two elements may be equal.
    """
    what = f"a list{f' of {of.__name__}' if of else ''}"
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        _refuse(name, value, f"{what}, in square brackets")
    if of is not None:
        for element in value:
            if not isinstance(element, of) or (isinstance(element, bool) and of is not bool):
                _refuse(name, value, f"{what}; {spelled(element)} is none")
    if len(value) < at_least:
        _refuse(name, value, f"{what} with at least {at_least}")
    if distinct and len(set(value)) < len(value):
        twice = next(element for element in value if list(value).count(element) > 1)
        _refuse(name, value, f"{what} that names each once; {spelled(twice)} stands there twice")


def require_mapping(name: str, value: Any, optional: bool = False) -> None:
    """Raises UserError unless `value` is a mapping whose keys are texts, or None where that is allowed."""
    if optional and value is None:
        return
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _refuse(name, value, f"a mapping like {{'name': number}}{_or_none(optional)}")


def require_callable(name: str, value: Any, example: str) -> None:
    """Raises UserError unless `value` can be called; `example` shows how such a value is written."""
    if not callable(value):
        _refuse(name, value, f"a function; write {example}")


def fields_by_annotation(settings: Settings) -> Settings:
    """Makes a dataclass check its fields by their annotations, and name `Class.field` in everything that it refuses.

    It stands below `@dataclasses.dataclass`. Its own `__post_init__` goes first and may normalise what it was given.
    Annotations that are no plain kinds, or lists, mappings and choices of them, are left to it.
    """
    own: Callable[[Any], None] = getattr(settings, "__post_init__", lambda self: None)

    @functools.wraps(own)
    def __post_init__(self: Any) -> None:
        try:
            own(self)
        except UserError as error:
            raise UserError(_naming_field(self, str(error))) from error
        except (TypeError, ValueError, AttributeError, OverflowError):
            require_annotated(self)  # names the field that broke it, if one did
            raise
        require_annotated(self)

    settings.__post_init__ = __post_init__  # type: ignore[attr-defined]  # where dataclasses look for it
    return settings


def require_annotated(settings: object) -> None:
    """Raises UserError unless every field of a dataclass is what its annotation says."""
    hints = _hints_of(type(settings))  # type: ignore[arg-type]  # mypy takes a class for unhashable
    for name, hint in hints.items():
        value = getattr(settings, name)
        if not _fits(value, hint):
            _refuse(f"{type(settings).__name__}.{name}", value, _meaning(hint))


def _naming_field(settings: Any, message: str) -> str:
    """Returns a message that names `Class.field`: the field whose name or value it tells."""
    owner = type(settings).__name__
    if f"{owner}." in message:
        return message
    values = {field.name: (getattr(settings, field.name), field.default) for field in dataclasses.fields(settings)}

    def likeness(name: str) -> tuple[bool, bool, bool]:
        value, default = values[name]
        with_value = re.search(rf"\b{name}( = |=| ){re.escape(repr(value))}", message)
        return with_value is not None, value is not default, bool(re.search(rf"\b{name}\b", message))

    told = [name for name, (value, _) in values.items() if any(likeness(name)[::2]) or repr(value) in message]
    told.sort(key=likeness, reverse=True)
    return f"{owner}.{told[0]}: {message}" if told else f"{owner}: {message}"


@functools.cache
def _hints_of(settings: type) -> dict[str, Any]:
    """Returns the annotations of the fields of a dataclass; what is imported for type checkers only is left open."""
    hints = {}
    for field in dataclasses.fields(settings):
        name, hint = field.name, field.type
        owner = next(each for each in settings.__mro__ if name in vars(each).get("__annotations__", {}))
        try:
            hints[name] = eval(hint, vars(sys.modules[owner.__module__])) if isinstance(hint, str) else hint  # noqa: S307
        except (NameError, TypeError, AttributeError):
            hints[name] = Any
    return hints


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    arguments, origin = typing.get_args(hint), typing.get_origin(hint) or hint
    if hint is None or hint is type(None):
        return value is None
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        if not isinstance(value, kind) or isinstance(value, bool):
            return False
        return abs(int(value)) < COUNTS.stop if isinstance(value, numbers.Integral) else is_finite(value)
    if origin is typing.Literal:
        return value in arguments
    if origin in LISTS:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            return False
        fixed = origin is tuple and bool(arguments) and arguments[-1] is not Ellipsis
        values = list(value) if isinstance(value, Collection) else []
        wanted = arguments if fixed else (arguments[:1] or (Any,)) * len(values)
        return len(wanted) == len(values) and all(map(_fits, values, wanted))
    if origin in (collections.abc.Mapping, dict):
        key, item = arguments or (Any, Any)
        return isinstance(value, Mapping) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    return isinstance(value, origin) if isinstance(origin, type) and dataclasses.is_dataclass(origin) else True


def _meaning(hint: Any) -> str:
    """Returns how a person calls what an annotation asks for."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_meaning, typing.get_args(hint))))
    arguments, origin = typing.get_args(hint), typing.get_origin(hint) or hint
    if hint is None or hint is type(None):
        return "None"
    if hint in PLAIN:
        return PLAIN[hint]
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in LISTS:
        return f"a list, each of it {_meaning(arguments[0])}" if arguments else "a list"
    if origin in (collections.abc.Mapping, dict):
        return f"a mapping to {_meaning(arguments[1])}" if arguments else "a mapping"
    return f"a {getattr(origin, '__name__', str(origin))}"


def is_finite(value: Any) -> bool:
    """Returns whether a real number is finite as a float, which a whole number of 400 digits is not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def spelled(value: Any) -> str:
    """Returns a value as people see it, cut where it is long; whole numbers of thousands of digits are not spelled."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= LARGEST_SPELLED:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= CHARACTERS_SHOWN else f"{text[:CHARACTERS_SHOWN]}…"


def _refuse(name: str, value: Any, wanted: str) -> None:
    raise UserError(f"{name} = {spelled(value)} must be {wanted}")


def _bounds(**bounds: float | None) -> str:
    words = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
    return _joined(f"{words[name]} {bound}" for name, bound in bounds.items() if bound is not None)


def _joined(parts: Iterable[str]) -> str:
    return " and ".join(parts)


def _or_none(optional: bool) -> str:
    return ", or None" if optional else ""

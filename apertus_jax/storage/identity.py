"""Identity of an output: every setting that decides its content, taken from the options or arguments themselves.

A setting that is added to an options class or to a command is part of the identity from then on, without anybody
listing it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def identity_of(options: Any, **digests: Any) -> dict[str, Any]:
    """Returns every field of an options dataclass as `Class.field`, the name that gin files bind.

    Args:
      options: the dataclass; its values are what JSON holds, or are replaced.
      digests: field → what stands in its place: where a field names something to be read, what it holds decides.

    Raises:
      TypeError: a digest is of no field.
    """
    values = dataclasses.asdict(options)
    if unknown := digests.keys() - values.keys():
        raise TypeError(f"{type(options).__name__} has no field {', '.join(sorted(unknown))}")
    return {f"{type(options).__name__}.{name}": value for name, value in (values | digests).items()}


def identity_of_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], *elsewhere: str, **digests: Any
) -> dict[str, Any]:
    """Returns every argument of a command as `parameter: value`.

    Args:
      function: the command.
      arguments: all of them by name: `dict(locals())` as the first line of the command.
      elsewhere: parameters that do not decide the content, or that other entries of the identity stand for.
      digests: parameter → what stands in its place: where it names something to be read, what it holds decides.

    Raises:
      TypeError: the arguments are not those of the function, or one that is left out or replaced is none of them.
    """
    parameters = inspect.signature(function).parameters.keys()
    if differing := arguments.keys() ^ parameters:
        raise TypeError(f"{function.__name__} has not the arguments {', '.join(sorted(differing))}")
    if unknown := {*elsewhere, *digests} - parameters:
        raise TypeError(f"{function.__name__} has no parameter {', '.join(sorted(unknown))}")
    return {name: value for name, value in arguments.items() if name not in elsewhere} | digests

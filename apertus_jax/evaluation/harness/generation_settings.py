"""Generation settings of a harness task, read from its keyword arguments.

Source: docs/reference/evaluation_and_release.md §2.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from apertus_jax.errors import UserError

# Several names for one number; the first that is given counts.
BUDGET_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
DEFAULT_BUDGET = 256
# Arguments of other generators, at the values that change nothing.
NEUTRAL = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "repetition_penalty": (1, None),
    "length_penalty": (1, None),
    "no_repeat_ngram_size": (0, None),
    "typical_p": (1, None),
    "min_p": (0, None),
    "use_cache": (True, False, None),
    "seed": (None,),
}
READ = ("until", "do_sample", "temperature", "top_k", "top_p", "min_new_tokens", *BUDGET_NAMES)


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """Settings of one generation: at most `budget` tokens, ended before the first of the `until` strings."""

    until: tuple[str, ...]
    budget: int
    temperature: float
    top_k: int | None
    top_p: float
    min_new_tokens: int


def read_settings(arguments: Mapping[str, Any], task: str) -> GenerationSettings:
    """Returns the settings of one request.

    Greedy unless `do_sample`, or a temperature above 0 without `do_sample`. Sampling without a temperature is at 1.

    Args:
      arguments: the request's keyword arguments, as in a task's generation_kwargs.
      task: its name, for errors.

    Raises:
      UserError: an argument that this decoder does not know, or a value out of range.
    """
    for name, value in arguments.items():
        if name not in READ and not any(value is each or value == each for each in NEUTRAL.get(name, ())):
            raise UserError(
                f"task {task} asks for generation with {name}={value!r}, which this decoder lacks; it knows "
                + ", ".join(READ)
            )
    until = arguments.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    given = [arguments[name] for name in BUDGET_NAMES if arguments.get(name) is not None]
    temperature, do_sample = arguments.get("temperature"), arguments.get("do_sample")
    if do_sample is None:
        do_sample = bool(temperature and float(temperature) > 0)
    try:
        settings = GenerationSettings(
            until=tuple(str(each) for each in until if str(each)),
            budget=int(given[0]) if given else DEFAULT_BUDGET,
            temperature=(1.0 if temperature is None else float(temperature)) if do_sample else 0.0,
            # 0 is how transformers spells "all tokens".
            top_k=(int(arguments.get("top_k") or 0) or None) if do_sample else None,
            top_p=float(1.0 if arguments.get("top_p") is None else arguments["top_p"]) if do_sample else 1.0,
            min_new_tokens=int(arguments.get("min_new_tokens") or 0),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"task {task} has generation settings that are not numbers: {error}") from error
    if settings.budget < 1:
        raise UserError(f"task {task} asks for {settings.budget} new tokens; {BUDGET_NAMES[0]} must be at least 1")
    return settings


def cut_before(text: str, until: Sequence[str]) -> str:
    """Returns the text up to the first place where any of the `until` strings begins."""
    ends = [place for each in until if each and (place := text.find(each)) >= 0]
    return text[: min(ends, default=len(text))]

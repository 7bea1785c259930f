"""Stop strings: continuations as texts that end before the first one.

A stop string is looked for in decoded text, not in token ids: it may begin or end inside a token, and many sequences of
tokens spell it.

Source: docs/reference/evaluation_and_release.md §2.1, §2.4.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apertus_jax.errors import UserError
from apertus_jax.inference.decoding import generate_tokens
from apertus_jax.model.config import ModelConfig

Decode = Callable[[Sequence[int]], str]


@dataclasses.dataclass(frozen=True)
class GeneratedText:
    """A continuation.

    Attributes:
      text: up to the first stop string, which is left out with all that follows.
      tokens: the new tokens, up to the one that completes the first stop string to be complete.
      stop_string: the stop string that cuts `text`, None where there is none.
    """

    text: str
    tokens: list[int]
    stop_string: str | None


def generate_texts(
    config: ModelConfig,
    params: Mapping[str, Any],
    prompts: Sequence[Sequence[int]],
    decode: Decode,
    stop_strings: Sequence[str] = (),
    ends_text: Callable[[int, str], bool] | None = None,
    **options: Any,
) -> list[GeneratedText]:
    """Returns the continuation of every prompt as text, in order.

    Args:
      config: the architecture.
      params: see `generate_tokens`.
      prompts: token ids, at least one each.
      decode: token ids to text, as the tokenizer does it; leaves special tokens out if the text shall not have them.
      stop_strings: a continuation ends before the first of them. Only its own text counts, not the prompt's.
      ends_text: asked from time to time, with the place of a prompt and the text of its continuation so far, whether
        the rest is not needed. What it says of a text must hold for all that this can become; the continuation that is
        returned may be longer.
      options: keyword arguments of `generate_tokens`, stop tokens among them.

    Raises:
      UserError: an empty stop string, or whatever `generate_tokens` refuses.
    """
    if isinstance(stop_strings, str):
        stop_strings = (stop_strings,)
    if "" in stop_strings:
        raise UserError("stop string '' is empty and would end every text at once; leave it out")
    is_finished = None
    if stop_strings or ends_text is not None:

        def is_finished(row: int, tokens: list[int]) -> bool:
            text = decode(tokens)
            return find_stop_string(text, stop_strings) is not None or (ends_text is not None and ends_text(row, text))

    continuations = generate_tokens(config, params, prompts, is_finished=is_finished, **options)
    return [cut_tokens(tokens, decode, stop_strings) for tokens in continuations]


def find_stop_string(text: str, stop_strings: Sequence[str]) -> tuple[int, str] | None:
    """Returns where the first stop string begins and which it is; of several that begin there the longest."""
    found = [(text.find(stop), -len(stop), stop) for stop in stop_strings if stop in text]
    if not found:
        return None
    place, _, stop = min(found)
    return place, stop


def cut_tokens(tokens: Sequence[int], decode: Decode, stop_strings: Sequence[str]) -> GeneratedText:
    """Returns the text of `tokens` up to its first stop string and the fewest tokens that decode to a stop string.

    So the result does not depend on how many more tokens there are.
    """
    if find_stop_string(decode(tokens), stop_strings) is None:
        return GeneratedText(decode(tokens), list(tokens), None)
    # One token more never takes a stop string away, so the number of tokens can be searched by halves.
    needed = bisect.bisect_left(
        range(len(tokens)), True, key=lambda count: find_stop_string(decode(tokens[:count]), stop_strings) is not None
    )
    text = decode(tokens[:needed])
    found = find_stop_string(text, stop_strings)
    assert found is not None  # as it is in all tokens together
    place, stop = found
    return GeneratedText(text[:place], list(tokens[:needed]), stop)

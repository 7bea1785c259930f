"""Chat encoding: rendered conversations to token ids and a loss weight for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from apertus_jax.chat.format import BEGIN, ChatFormat
from apertus_jax.chat.renderer import Piece
from apertus_jax.errors import UserError


class ChatTokenizer(Protocol):
    """Tokenizer, as far as chats need one."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32[n] per text, in which control tokens that a person typed stay text."""

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token by its spelling, or None."""


class EncodedChat(NamedTuple):
    """`ids` int32[n]; `weights` float32[n], what the loss of predicting each of them counts."""

    ids: np.ndarray
    weights: np.ndarray


def control_ids(tokenizer: ChatTokenizer, chat_format: ChatFormat) -> Mapping[str, int]:
    """Returns spelling → id of the control tokens of a template.

    A base model's vocabulary may still have the placeholder `<SPECIAL_n>` at the id n of a control token.

    Raises:
      UserError: the vocabulary has neither.
    """
    found = {BEGIN: tokenizer.token_to_id(BEGIN)}
    for spelling, released in chat_format.parts.ids.items():
        placeholder = tokenizer.token_to_id(f"<SPECIAL_{released}>")
        named = tokenizer.token_to_id(spelling)
        found[spelling] = named if named is not None else (released if placeholder == released else None)
    known = {spelling: token_id for spelling, token_id in found.items() if token_id is not None}
    if lacking := next((spelling for spelling in found if spelling not in known), ""):
        raise UserError(
            f"the vocabulary has no token {lacking}, which the chat template {chat_format.template!r} needs; use the "
            "tokenizer of such a model, or another ChatFormat.template"
        )
    return known


def encode_chats(
    chats: Sequence[Sequence[Piece]], tokenizer: ChatTokenizer, chat_format: ChatFormat
) -> list[EncodedChat]:
    """Returns ids and loss weights of rendered conversations, `<s>` included.

    Text between control tokens is encoded at once, as a tokenizer does it that is given the whole string; where its
    weight changes it is cut, because there one writes and another goes on: what follows the outputs of tools is
    encoded as the model will write it.

    Raises:
      UserError: see `control_ids`.
    """
    ids = control_ids(tokenizer, chat_format)
    runs = [_runs(chat) for chat in chats]
    encoded = iter(tokenizer.encode_batch([run.text for chat in runs for run in chat if not run.is_token]))
    result = []
    for chat in runs:
        parts = [np.array([ids[run.text]], np.int32) if run.is_token else next(encoded) for run in chat]
        weights = [np.full(len(part), run.weight, np.float32) for part, run in zip(parts, chat, strict=True)]
        result.append(EncodedChat(np.concatenate(parts), np.concatenate(weights)))
    return result


def _runs(chat: Sequence[Piece]) -> list[Piece]:
    """Joins neighbouring texts of one weight; every control token stands alone."""
    runs: list[Piece] = []
    for piece in chat:
        last = runs[-1] if runs else None
        if last and not piece.is_token and not last.is_token and piece.weight == last.weight:
            runs[-1] = last._replace(text=last.text + piece.text)
        else:
            runs.append(piece)
    return runs

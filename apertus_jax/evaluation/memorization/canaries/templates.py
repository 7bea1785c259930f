"""Canary templates: characters, tokens, or records of people who do not exist."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable

from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.canaries.secret_stream import SecretStream

CHARACTERS, RECORD, TOKENS = "characters", "record", "tokens"
ALPHABET = string.ascii_lowercase + string.digits
MIN_TOKENS = 100
MAX_REDRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Template:
    """Secrets of one kind and length: `length` choices among `alphabet_size` things each.

    `draw` gives a secret, `frame` the text before and after it in one canary.
    """

    kind: str
    length: int
    alphabet_size: int
    draw: Callable[[SecretStream], str]
    frame: Callable[[SecretStream], tuple[str, str]]

    @property
    def name(self) -> str:
        """For example `record-16`."""
        return f"{self.kind}-{self.length}"


def make_template(kind: str, length: int, tokenizer: Tokenizer | None = None) -> Template:
    """Returns the template of a kind and length.

    Raises:
      UserError: tokens without a tokenizer, or with one that has too few whole words.
    """
    if kind == TOKENS:
        if tokenizer is None:
            raise UserError("canaries of the kind tokens need a tokenizer; give one or leave the kind out")
        pieces = word_pieces(tokenizer)
        return Template(kind, length, len(pieces), lambda stream: _tokens(stream, tokenizer, pieces, length), _bare)
    alphabet, frame = (string.digits, _record) if kind == RECORD else (ALPHABET, _bare)
    return Template(
        kind, length, len(alphabet), lambda stream: "".join(stream.choice(alphabet) for _ in range(length)), frame
    )


def word_pieces(tokenizer: Tokenizer) -> list[str]:
    """Returns the texts of all tokens that are a space and letters and that their own text is read back to.

    Any row of them is read back token by token, because a space begins a new word.

    Raises:
      UserError: there are too few to draw from.
    """
    candidates = []
    for token in range(tokenizer.vocab_size):
        text = tokenizer.decode([token], skip_special_tokens=True)
        if text[:1] == " " and text[1:].isalpha():
            candidates.append((token, text))
    read = tokenizer.encode_batch([text for _, text in candidates])
    pieces = [text for (token, text), ids in zip(candidates, read, strict=True) if ids.tolist() == [token]]
    if len(pieces) < MIN_TOKENS:
        raise UserError(
            f"the tokenizer has {len(pieces)} tokens that are a space and letters, random canaries need "
            f"{MIN_TOKENS}; leave the kind tokens out"
        )
    return pieces


def _tokens(stream: SecretStream, tokenizer: Tokenizer, pieces: list[str], length: int) -> str:
    """Draws rows of tokens until one is read back as it was drawn."""
    for _ in range(MAX_REDRAWS):
        drawn = [stream.choice(pieces) for _ in range(length)]
        text = "".join(drawn)
        if [tokenizer.decode([token]) for token in tokenizer.encode(text)] == drawn:
            return text
    raise UserError(f"the tokenizer reads no row of {length} random tokens back; leave the kind tokens out")


def _bare(stream: SecretStream) -> tuple[str, str]:
    """Returns a frame that says nothing: a secret on a line of its own."""
    return "\n", "\n"


def _record(stream: SecretStream) -> tuple[str, str]:
    """Returns the frame of an entry in a register that does not exist, of a person who does not.

    It is at most 37 bytes long, so even a tokenizer of single bytes sees some of the prefix in the last 50 tokens.
    """
    name = f"{stream.word().capitalize()} {stream.word().capitalize()}"
    return f"\nKeeper {name}, seal number ", ".\n"

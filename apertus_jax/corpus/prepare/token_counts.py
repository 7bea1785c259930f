"""How many tokens a text has: under a tokenizer of one's own, or the vocabulary that Apertus adapts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

from etils import epath

from apertus_jax import artifacts
from apertus_jax.errors import UserError

TEKKEN, TEKKEN_FILE = "tekken", "tekken_240718.json"


@dataclasses.dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of texts, without marks of start and end; `digest` names the vocabulary."""

    count: Callable[[str], int]
    digest: str

    @classmethod
    def load(cls, tokenizer: str) -> Self:
        """Reads `tekken` (from the installed package mistral_common), a tokenizer.json, or the folder that holds one.

        Raises:
          UserError: it is missing or no tokenizer.
        """
        if tokenizer == TEKKEN:
            return cls._load_tekken()
        import tokenizers

        file = epath.Path(tokenizer)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.exists():
            raise UserError(f"Policy.tokenizer {file} does not exist; give a tokenizer.json, {TEKKEN!r} or nothing")
        content = file.read_bytes()
        try:
            model = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"Policy.tokenizer {file} is not a tokenizer ({error}); give a tokenizer.json") from error
        return cls(lambda text: len(model.encode(text, add_special_tokens=False)), artifacts.digest_bytes(content))

    @classmethod
    def _load_tekken(cls) -> Self:
        import importlib.resources

        import mistral_common
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        path = importlib.resources.files(mistral_common) / "data" / TEKKEN_FILE
        model = Tekkenizer.from_file(str(path))
        return cls(
            lambda text: len(model.encode(text, bos=False, eos=False)), artifacts.digest_bytes(path.read_bytes())
        )

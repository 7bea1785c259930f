"""Options of the per-language evaluation: sampling from the store, alignment, fairness units, baseline."""

from __future__ import annotations

import dataclasses

from apertus_jax.validation import fields_by_annotation, require_choice, require_count, require_seed, require_text

LINE, WORD, CHARACTER, BYTE = UNITS = ("line", "word", "character", "byte")


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class LanguageOptions:
    """Settings of the report by language.

    Attributes:
      units: unit of the tokenizer-fairness cost: `line`, `word`, `character` or `byte`.
      baseline: the language that parity is set against.
      aligned: whether lines of `texts` translate each other; None means that they do when all languages have the same.
      max_lines: only the first N lines of parallel texts; None means all.
      tokens_per_language: drawn from the store for each language, held-out and training text each.
      tokens_per_document: of a longer document of the store only the beginning is read.
      sequence_length: longest window of one forward pass, in tokens; None means the model's context.
      seed: of the draw and of the bootstrap intervals.
    """

    units: str = "line"
    baseline: str = "eng_Latn"
    aligned: bool | None = None
    max_lines: int | None = None
    tokens_per_language: int = 2048
    tokens_per_document: int = 1024
    sequence_length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("LanguageOptions.units", self.units, UNITS)
        require_text("LanguageOptions.baseline", self.baseline, empty_allowed=False)
        for name in ("max_lines", "sequence_length"):
            require_count(f"LanguageOptions.{name}", getattr(self, name), at_least=1, optional=True)
        for name in ("tokens_per_language", "tokens_per_document"):
            require_count(f"LanguageOptions.{name}", getattr(self, name), at_least=1)
        require_seed("LanguageOptions.seed", self.seed)

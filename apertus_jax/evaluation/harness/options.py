"""Options of harness tasks: number of documents, shots, prompt format, seed."""

from __future__ import annotations

import dataclasses

from apertus_jax.validation import fields_by_annotation, require_choice, require_count, require_seed

# What stands before a whole text that is scored: one <s>, as before every document in training. The harness's own
# transformers backend encodes the text with <s> and puts another one in front, so it also scores the first of them.
ROLLING_PREFIXES = ("one", "harness")


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class HarnessOptions:
    """Settings of lm-evaluation-harness tasks.

    Attributes:
      limit: documents per task, for a first look; None means all.
      num_fewshot: solved examples before each question; None means what the task says.
      max_length: longest input in tokens; None means the model's context.
      max_gen_toks: new tokens of generation tasks; None means what the task says.
      add_bos: put <s> before every context, as every document had it in training.
      rolling_prefix: "one": a whole text is scored after one <s>, as bits per byte are defined, and the empty text
        costs nothing; "harness": after two, as the harness's own transformers backend does it, for figures that are to
        equal its figures: with `add_bos` it scores <s> after <s> as part of the text.
      apply_chat_template: ask in the model's chat format, solved examples as earlier turns.
      system_instruction: what the conversation or the context begins with.
      seed: of few-shot draws, sampled generation and bootstrap intervals.
      bootstrap_resamples: draws for the standard errors of perplexities; 0 means none.
    """

    limit: int | None = None
    num_fewshot: int | None = None
    max_length: int | None = None
    max_gen_toks: int | None = None
    add_bos: bool = True
    rolling_prefix: str = "one"
    apply_chat_template: bool = False
    system_instruction: str | None = None
    seed: int = 0
    bootstrap_resamples: int = 1000

    def __post_init__(self) -> None:
        for name, lowest in (("limit", 1), ("num_fewshot", 0), ("max_length", 1), ("max_gen_toks", 1)):
            require_count(f"HarnessOptions.{name}", getattr(self, name), at_least=lowest, optional=True)
        require_choice("HarnessOptions.rolling_prefix", self.rolling_prefix, ROLLING_PREFIXES)
        require_seed("HarnessOptions.seed", self.seed)
        require_count("HarnessOptions.bootstrap_resamples", self.bootstrap_resamples)

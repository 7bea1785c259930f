"""The cells of the audit: bucket × prefix × offset × strategy, each computed on its own (E§3.2).

A cell is a pure function of the model, the probes and its own name, so an audit can stop after any of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apertus_jax.data.tokenizer import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.extraction import suffix_log_probabilities
from apertus_jax.evaluation.memorization.probes import AuditProbe, cut_probe, long_enough
from apertus_jax.evaluation.memorization.text_metrics import compare
from apertus_jax.evaluation.scoring import LikelihoodScorer, Scored, ScoringRequest
from apertus_jax.inference import Sampling, decoding_parameters, generate_tokens
from apertus_jax.model import ModelConfig

GREEDY, NUCLEUS = "greedy", "nucleus"
STRATEGIES = (GREEDY, NUCLEUS)
ID_FIELDS = ("prefix", "true_suffix", "generated_suffix")


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """What one part of the audit asks; `seed` is None for greedy decoding, which draws nothing."""

    bucket: str
    prefix: int
    suffix: int
    offset: int
    strategy: str
    seed: int | None

    @property
    def name(self) -> str:
        """Its folder: the bucket and the condition."""
        drawn = "" if self.seed is None else f"_seed{self.seed}"
        return f"bucket_{self.bucket}/p{self.prefix}_s{self.suffix}_o{self.offset}_{self.strategy}{drawn}"


class AuditedModel:
    """A model with what the audit does to it: generate, score, tokenize."""

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        tokenizer: Tokenizer,
        batch_size: int,
        nucleus: Sampling,
    ):
        """Takes plain parameters; places them once for decoding and once for scoring.

        Raises:
          UserError: the tokenizer has ids that the model lacks.
        """
        if tokenizer.vocab_size > config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} ids but the model {config.vocab_size}; "
                "audit the model with the tokenizer it was trained with"
            )
        self.config = config
        self.params = params
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.nucleus = nucleus
        self.scorer = LikelihoodScorer(config, params)
        self._decoding = decoding_parameters(config, params)

    def continue_exactly(
        self, prompts: Sequence[Sequence[int]], length: int, strategy: str, seed: int | None, row_seeds: Sequence[int]
    ) -> list[list[int]]:
        """Returns exactly `length` new tokens for each prompt; </s> is never drawn, so it cannot end one early."""
        drawn = self.nucleus if strategy == NUCLEUS else Sampling()
        return generate_tokens(
            self.config,
            self._decoding,
            prompts,
            max_new_tokens=length,
            min_new_tokens=length,
            temperature=drawn.temperature,
            top_k=drawn.top_k,
            top_p=drawn.top_p,
            stop_tokens=(self.tokenizer.eod_id,),
            seed=seed or 0,
            row_seeds=row_seeds,
            batch_size=self.batch_size,
        )

    def score(self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]) -> list[Scored]:
        """Returns what one pass says of each continuation."""
        requests = [ScoringRequest(*pair) for pair in zip(contexts, continuations, strict=True)]
        return self.scorer.score(requests, progress=False)


def grid_cells(
    buckets: Sequence[str],
    prefix: int,
    prefixes: Sequence[int],
    offsets: Sequence[int],
    suffix: int,
    strategies: Sequence[str],
    seeds: Sequence[int],
) -> list[Cell]:
    """Returns the cells: every prefix at offset 0 and every offset at `prefix`, for each bucket, strategy and seed.

    Raises:
      UserError: an unknown strategy, no seed for drawing, or lengths that are not positive.
    """
    for strategy in strategies:
        if strategy not in STRATEGIES:
            raise UserError(f"decoding strategy {strategy!r} is unknown; use {' or '.join(STRATEGIES)}")
    if not strategies or (NUCLEUS in strategies and not seeds):
        raise UserError("the audit has no decoding strategy or no seed to draw with; give strategies and seeds")
    for name, values, least in (("prefix", (prefix, *prefixes), 1), ("suffix", (suffix,), 1), ("offset", offsets, 0)):
        for value in values:
            if value < least:
                raise UserError(f"{name} length {value} of the audit must be at least {least}")
    places = dict.fromkeys([(prefix, 0), *((each, 0) for each in prefixes), *((prefix, each) for each in offsets)])
    return [
        Cell(bucket, length, suffix, offset, strategy, seed)
        for bucket in buckets
        for length, offset in places
        for strategy in strategies
        for seed in (seeds if strategy == NUCLEUS else (None,))
    ]


def check_grid(cells: Sequence[Cell], probes: Sequence[AuditProbe], context: int) -> None:
    """Refuses what cannot be asked, before anything is computed.

    Raises:
      UserError: a prompt with its suffix is longer than the model's context, or a cell's bucket has no probe of
        offset + prefix + suffix tokens.
    """
    for cell in cells:
        needed = 1 + cell.prefix + cell.suffix
        if needed > context:
            raise UserError(
                f"a prompt of <s> and {cell.prefix} tokens with a suffix of {cell.suffix} needs {needed}, but the "
                f"model's context is {context}; lower prefix or suffix"
            )
        of_bucket = [probe for probe in probes if probe.bucket == cell.bucket]
        if not long_enough(of_bucket, cell.prefix, cell.suffix, cell.offset):
            longest = max(len(probe.ids) for probe in of_bucket)
            raise UserError(
                f"bucket {cell.bucket}: the longest probe has {longest} tokens, but offset {cell.offset} + prefix "
                f"{cell.prefix} + suffix {cell.suffix} = {cell.offset + cell.prefix + cell.suffix} are asked for; "
                "plant longer probes or ask for less"
            )


def cell_rows(cell: Cell, probes: Sequence[AuditProbe], model: AuditedModel) -> Iterator[dict[str, Any]]:
    """Computes one cell: a row per probe that is long enough, with texts as ids and every metric of E§3.3.

    `log_p_true_suffix` is the log-probability that one draw gives the whole suffix (E§3.8), None where it cannot.
    """
    asked = long_enough(
        [probe for probe in probes if probe.bucket == cell.bucket], cell.prefix, cell.suffix, cell.offset
    )
    pairs = [cut_probe(probe, cell.prefix, cell.suffix, cell.offset, model.tokenizer.bod_id) for probe in asked]
    prompts, references = [prompt for prompt, _ in pairs], [reference for _, reference in pairs]
    seeds = [probe.row_seed for probe in asked]
    generated = model.continue_exactly(prompts, cell.suffix, cell.strategy, cell.seed, seeds)
    scored = model.score([*prompts, *prompts], [*references, *generated])
    of_true, of_generated = scored[: len(asked)], scored[len(asked) :]
    if cell.strategy == NUCLEUS:
        schemes, batch_tokens = (model.nucleus,), model.scorer.batch_tokens
        (log_p,) = suffix_log_probabilities(model.config, model.params, prompts, references, schemes, batch_tokens)
    else:
        log_p = [0.0 if new == true else -math.inf for new, true in zip(generated, references, strict=True)]
    for place, probe in enumerate(asked):
        yield {
            "probe": probe.probe,
            "bucket": probe.bucket,
            "index": probe.index,
            "exposure": probe.exposure,
            "overlap": probe.overlap,
            "prefix_length": cell.prefix,
            "suffix_length": cell.suffix,
            "offset": cell.offset,
            "strategy": cell.strategy,
            "seed": cell.seed,
            **compare(references[place], generated[place]),
            "nll_true_suffix": -of_true[place].log_likelihood / cell.suffix,
            "nll_generated_suffix": -of_generated[place].log_likelihood / cell.suffix,
            "log_p_true_suffix": float(log_p[place]) if math.isfinite(log_p[place]) else None,
            "prefix": prompts[place][1:],
            "true_suffix": references[place],
            "generated_suffix": generated[place],
        }

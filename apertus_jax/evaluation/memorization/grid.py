"""Audit grid: bucket × prefix × offset × strategy, each cell computed on its own.

A cell is a pure function of the model, the probes and its own name, so an audit can stop after any of them.

Source: docs/reference/evaluation_and_release.md §3.2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.memorization.extraction import suffix_log_probabilities
from apertus_jax.evaluation.memorization.options import NUCLEUS, AuditGrid
from apertus_jax.evaluation.memorization.probes import AuditProbe, Condition, cut_probe
from apertus_jax.evaluation.memorization.text_metrics import compare
from apertus_jax.evaluation.scoring import LikelihoodScorer, Scored, ScoringRequest
from apertus_jax.evaluation.scoring.requests import TokenIds
from apertus_jax.inference import Sampling, decoding_parameters, generate_tokens
from apertus_jax.model import ModelConfig

# The grid of the paper (docs/reference/evaluation_and_release.md §3.2): prompts and suffixes of 500 tokens.
LENGTH = 500
DECODED_TOGETHER = 16
PREFIXES = (50, 100, 250, 500, 1000, 2000, 3000)
OFFSETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
ID_FIELDS = ("prefix", "true_suffix", "generated_suffix")


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One cell of the audit grid, for one bucket; `seed` is None for greedy decoding, which draws nothing."""

    bucket: str
    condition: Condition
    seed: int | None

    @property
    def name(self) -> str:
        """Its folder: the bucket and the condition."""
        asked, drawn = self.condition, "" if self.seed is None else f"_seed{self.seed}"
        return f"bucket_{self.bucket}/p{asked.prefix}_s{asked.suffix}_o{asked.offset}_{asked.strategy}{drawn}"

    def asked(self, probes: Sequence[AuditProbe]) -> list[AuditProbe]:
        """Returns the probes of the bucket that are long enough."""
        return [probe for probe in self.of_bucket(probes) if len(probe.ids) >= self.condition.tokens]

    def of_bucket(self, probes: Sequence[AuditProbe]) -> list[AuditProbe]:
        """Returns the probes of the bucket."""
        return [probe for probe in probes if probe.planted.bucket == self.bucket]


class AuditedModel:
    """A model with what the audit does to it: generate, score, tokenize."""

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        tokenizer: Tokenizer,
        execution: Execution,
        nucleus: Sampling,
    ):
        """Places the parameters once for decoding and once for scoring.

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
        self.batch_size = execution.batch_size or DECODED_TOGETHER
        self.nucleus = nucleus
        self.scorer = LikelihoodScorer(config, params, batch_tokens=execution.batch_tokens)
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

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[Scored]:
        """Returns what one pass says of each continuation."""
        requests = [ScoringRequest(*pair) for pair in zip(contexts, continuations, strict=True)]
        return self.scorer.score(requests, progress=False)


def grid_cells(grid: AuditGrid) -> list[Cell]:
    """Returns the cells of a grid that `fitting_grid` has completed, for each bucket, strategy and seed."""
    assert grid.prefix is not None and grid.suffix is not None
    assert grid.prefixes is not None and grid.offsets is not None and grid.buckets is not None
    places = dict.fromkeys(
        [(grid.prefix, 0), *((each, 0) for each in grid.prefixes), *((grid.prefix, each) for each in grid.offsets)]
    )
    return [
        Cell(bucket, Condition(length, grid.suffix, offset, strategy), seed)
        for bucket in map(str, grid.buckets)
        for length, offset in places
        for strategy in grid.strategies
        for seed in (grid.seeds if strategy == NUCLEUS else (None,))
    ]


def fitting_grid(grid: AuditGrid, probes: Sequence[AuditProbe], context: int) -> AuditGrid:
    """Returns the grid with what fits the model and the probes wherever it says None.

    Args:
      grid: what was asked for.
      probes: the probes of its buckets; each bucket must have one that is long enough.
      context: tokens that the model reads, <s> included.
    """
    longest: dict[str, int] = {}
    for probe in probes:
        bucket = probe.planted.bucket
        longest[bucket] = max(longest.get(bucket, 0), len(probe.ids))
    tokens = min(longest.values(), default=0)
    available = min(context - 1, tokens)
    prefix, prefixes, offsets, suffix = grid.prefix, grid.prefixes, grid.offsets, grid.suffix
    if suffix is None:
        suffix = max(1, min(LENGTH, available // 2 if prefix is None else available - prefix))
    if prefix is None:
        prefix = max(1, min(LENGTH, available - suffix))
    if prefixes is None:
        prefixes = [each for each in PREFIXES if each + suffix <= available] or [prefix]
    if offsets is None:
        offsets = [each for each in OFFSETS if each + prefix + suffix <= tokens] or [0]
    return dataclasses.replace(
        grid, prefix=prefix, prefixes=prefixes, offsets=offsets, suffix=suffix, buckets=tuple(longest)
    )


def check_grid(cells: Sequence[Cell], probes: Sequence[AuditProbe], context: int) -> None:
    """Refuses what cannot be asked, before anything is computed.

    Raises:
      UserError: a prompt with its suffix is longer than the model's context, or a cell's bucket has no probe of
        offset + prefix + suffix tokens.
    """
    for cell in cells:
        prefix, suffix, offset = cell.condition.prefix, cell.condition.suffix, cell.condition.offset
        needed = 1 + prefix + suffix
        if needed > context:
            raise UserError(
                f"a prompt of <s> and {prefix} tokens with a suffix of {suffix} needs {needed}, but the "
                f"model's context is {context}; lower AuditGrid.prefix or AuditGrid.suffix"
            )
        if not cell.asked(probes):
            longest = max(len(probe.ids) for probe in cell.of_bucket(probes))
            raise UserError(
                f"bucket {cell.bucket}: the longest probe has {longest} tokens, but offset {offset} + prefix "
                f"{prefix} + suffix {suffix} = {cell.condition.tokens} are asked for; "
                "plant longer probes or ask for less in AuditGrid"
            )


def cell_rows(cell: Cell, probes: Sequence[AuditProbe], model: AuditedModel) -> Iterator[dict[str, Any]]:
    """Computes one cell: a row per probe that is long enough, with texts as ids and every metric.

    `log_p_true_suffix` is the log-probability that one draw gives the whole suffix, None where it cannot.

    Source: docs/reference/evaluation_and_release.md §3.3, §3.8.
    """
    asked, condition = cell.asked(probes), cell.condition
    pairs = [cut_probe(probe, condition, model.tokenizer.bod_id) for probe in asked]
    prompts, references = [prompt for prompt, _ in pairs], [reference for _, reference in pairs]
    keys = [probe.key for probe in asked]
    generated = model.continue_exactly(prompts, condition.suffix, condition.strategy, cell.seed, keys)
    scored = model.score([*prompts, *prompts], [*references, *generated])
    of_true, of_generated = scored[: len(asked)], scored[len(asked) :]
    if condition.strategy == NUCLEUS:
        schemes, batch_tokens = (model.nucleus,), model.scorer.batch_tokens
        (log_p,) = suffix_log_probabilities(model.config, model.params, prompts, references, schemes, batch_tokens)
    else:
        log_p = [0.0 if new == true else -math.inf for new, true in zip(generated, references, strict=True)]
    for place, probe in enumerate(asked):
        yield {
            "probe": probe.planted.probe,
            "bucket": probe.planted.bucket,
            "index": probe.planted.index,
            "exposure": probe.planted.copies,
            "overlap": probe.planted.overlap,
            "prefix_length": condition.prefix,
            "suffix_length": condition.suffix,
            "offset": condition.offset,
            "strategy": condition.strategy,
            "seed": cell.seed,
            **compare(references[place], generated[place]),
            "nll_true_suffix": -of_true[place].log_likelihood / condition.suffix,
            "nll_generated_suffix": -of_generated[place].log_likelihood / condition.suffix,
            "log_p_true_suffix": float(log_p[place]) if math.isfinite(log_p[place]) else None,
            "prefix": prompts[place][1:],
            "true_suffix": references[place],
            "generated_suffix": generated[place],
        }

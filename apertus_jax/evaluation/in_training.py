"""Evaluators during training: `pretrain.evaluators = [@HeldOutEvaluator()]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from apertus_jax.data import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.evaluation.bits_per_byte import bits_per_byte, text_sums
from apertus_jax.evaluation.held_out_metrics import script_of
from apertus_jax.evaluation.losses import score_documents
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.validation import fields_by_annotation

GROUPINGS = ("script", "language", "none")
# Few lengths of batches, so that little is compiled while accelerators wait.
BUCKETS_BELOW_LONGEST = 4


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class HeldOutSample:
    """Documents drawn for evaluation.

    Attributes:
      documents: token ids of each, `<s>` first.
      groups: the name of each document's group.
      token_bytes: of each document, int32[n - 1], the bytes of text that each predicted token stands for.
    """

    documents: list[np.ndarray]
    groups: list[str]
    token_bytes: list[np.ndarray]


def draw_documents(
    store: TokenStore, source: str, max_tokens: int, tokens_per_document: int, group_by: str, seed: int
) -> HeldOutSample:
    """Draws documents of a source in the order that the seed decides, until `max_tokens` tokens are predicted.

    Args:
      store: the token store.
      source: name of the held-out source.
      max_tokens: upper bound on predicted tokens.
      tokens_per_document: of a longer document only the beginning is taken.
      group_by: "script", "language" or "none".
      seed: of the order.

    Raises:
      UserError: the store has no such source or it has no text.
    """
    held_out = store.source(source)
    starts = held_out.document_starts
    languages = held_out.documents["language"].to_pylist()
    documents: list[np.ndarray] = []
    groups: list[str] = []
    left = max_tokens
    for number in np.random.default_rng(seed).permutation(held_out.num_documents):
        start, end = int(starts[number]), int(starts[number + 1])
        length = min(end - start, tokens_per_document, left + 1)
        if length < 2:
            continue
        documents.append(np.asarray(held_out.tokens(start, length)))
        language = languages[number]
        groups.append({"script": script_of(language), "language": language, "none": ""}[group_by])
        left -= length - 1
        if left < 1:
            break
    if not documents:
        raise UserError(
            f"source {source!r} of {store.folder} has no text to evaluate on; tokenize with a held-out part"
        )
    byte_lengths = store.tokenizer.token_byte_lengths
    return HeldOutSample(documents, groups, [byte_lengths[tokens[1:]] for tokens in documents])


def pooled_metrics(
    groups: Sequence[str], losses: Sequence[np.ndarray], token_bytes: Sequence[np.ndarray]
) -> dict[str, float]:
    """Returns `loss` (nats per token) and `bits_per_byte` of all documents and of each group, the largest group first.

    Groups without a name are only in the pooled figures. Ratios of sums, not means of ratios
    (docs/reference/evaluation_and_release.md §2.2).

    Args:
      groups: the name of each document's group.
      losses: cross-entropy of each document's tokens in nats, float32[n] each.
      token_bytes: the bytes of text that those tokens stand for, int[n] each.
    """
    totals = np.array([each.sum(dtype=np.float64) for each in losses])
    tokens = np.array([len(each) for each in losses], np.float64)
    names = np.asarray(groups)
    text = np.array([text_sums(*each) for each in zip(losses, token_bytes, strict=True)])

    def of(chosen: Any, suffix: str) -> dict[str, float]:
        metrics = {f"loss{suffix}": float(totals[chosen].sum() / tokens[chosen].sum())}
        nats, spelled = text[chosen].sum(axis=0)
        if spelled > 0:  # a group whose only predicted token is </s> has no text
            metrics[f"bits_per_byte{suffix}"] = bits_per_byte(nats, spelled)
        return metrics

    metrics = of(slice(None), "")
    sizes = {name: tokens[names == name].sum() for name in sorted(set(groups)) if name}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        metrics |= of(names == name, f"/{name}")
    return metrics


@dataclasses.dataclass
@fields_by_annotation
class HeldOutEvaluator:
    """Loss and bits per byte on documents that training does not see, pooled and per group of languages.

    Attributes:
      every_tokens: how often, in trained tokens.
      name: what the results are filed under.
      source: the store's source of held-out documents.
      max_tokens: upper bound on predicted tokens.
      tokens_per_document: of a longer document only the beginning is read.
      sequence_length: longest window of one forward pass; None means the model's whole context.
      group_by: "script", "language" or "none".
      seed: which documents.
      batch_tokens: tokens of one forward pass; None means what `LikelihoodScorer` finds good.
    """

    every_tokens: int
    name: str = "held_out"
    source: str = "held_out"
    max_tokens: int = 65_536
    tokens_per_document: int = 2048
    sequence_length: int | None = None
    group_by: str = "script"
    seed: int = 0
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        self._sample: HeldOutSample | None = None
        for name in ("every_tokens", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"HeldOutEvaluator.{name}={getattr(self, name)} must be at least 1")
        if self.tokens_per_document < 2:
            raise UserError(f"HeldOutEvaluator.tokens_per_document={self.tokens_per_document} must be at least 2")
        if self.group_by not in GROUPINGS:
            raise UserError(f"HeldOutEvaluator.group_by={self.group_by!r} must be one of {GROUPINGS}")

    def prepare(self, view: Any) -> None:
        """Draws the documents. `view` is `apertus_jax.training`'s `ModelView`, as in every evaluator.

        Raises:
          UserError: the store has no held-out source or no text in it.
        """
        self._sample = draw_documents(
            view.store, self.source, self.max_tokens, self.tokens_per_document, self.group_by, self.seed
        )

    def __call__(self, view: Any, consumed: int) -> dict[str, float]:
        """Returns `loss`, `bits_per_byte` and both for each group, see `pooled_metrics`."""
        del consumed
        longest = self.sequence_length or view.config.max_position_embeddings
        scorer = LikelihoodScorer(
            view.config,
            view.params,
            mesh=view.mesh,
            longest=longest,
            batch_tokens=self.batch_tokens,
            axis_rules=view.axis_rules,
            smallest_bucket=-(-longest // BUCKETS_BELOW_LONGEST),
        )
        sample = self._sample
        assert sample is not None  # of `prepare`, which comes first
        losses = score_documents(scorer, sample.documents, progress=False)
        return pooled_metrics(sample.groups, losses, sample.token_bytes)

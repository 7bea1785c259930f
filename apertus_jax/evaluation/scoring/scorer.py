"""Scoring engine: requests in, log-likelihoods out.

Source: docs/reference/evaluation_and_release.md §2.4.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from apertus_jax import sharding
from apertus_jax.errors import UserError
from apertus_jax.evaluation.scoring.batches import SMALLEST_BUCKET, Batch, make_batches, make_rows
from apertus_jax.evaluation.scoring.program import Outputs, ScoringProgram, score_batch, tile_size
from apertus_jax.evaluation.scoring.requests import Scored, ScoringRequest, TokenIds, join_scored, rolling_windows
from apertus_jax.model import abstract_parameters
from apertus_jax.model.attention import IMPLEMENTATIONS
from apertus_jax.model.config import ModelConfig
from apertus_jax.terminal.progress import ProgressBars

BATCH_TOKENS = {"cpu": 1024}
ACCELERATOR_BATCH_TOKENS = 8192
# Batches whose results have not been fetched; the device is never idle while the host lays out the next.
IN_FLIGHT = 2
_log = logging.getLogger(__name__)


class LikelihoodScorer:
    """Log-likelihoods of continuations under one model.

    Requests are sorted by length into buckets, equal ones are computed once, and those that differ only in their last
    token share a forward pass. There is one compilation per bucket, which scorers of the same configuration share.
    On one device an answer has the same bits whatever is asked together with it.

    Args:
      config: the architecture.
      params: the plain parameter tree, NumPy or jax arrays; arrays that lie on `mesh` already stay where they are.
      mesh: devices to use, rows split over `data` and `fsdp`; None means one device.
      longest: most tokens that a forward pass reads; None means config.max_position_embeddings.
      batch_tokens: about how many tokens a forward pass has; None means 8192, and 1024 on CPU, where more is no faster
        and the last batch of a bucket is filled up with padding.
      axis_rules: the table of axis names on `mesh`; None means the preset of its platform.
      smallest_bucket: rows are padded to at least so many tokens; larger means fewer compilations and more padding.

    Raises:
      UserError: a length below 1 or parameters that do not divide over the mesh.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        mesh: Mesh | None = None,
        longest: int | None = None,
        batch_tokens: int | None = None,
        axis_rules: sharding.AxisRules | None = None,
        smallest_bucket: int | None = None,
    ):
        platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
        if platform == "cpu" and config.attention_implementation == "xla":
            # A tenth less processor time at the lengths of evaluation tasks, and the same function to rounding.
            _log_blockwise_once()
            config = dataclasses.replace(config, attention_implementation="xla_blockwise")
        self.config = config
        self.longest = config.max_position_embeddings if longest is None else longest
        if batch_tokens is None:
            batch_tokens = BATCH_TOKENS.get(platform, ACCELERATOR_BATCH_TOKENS)
        self.batch_tokens = batch_tokens
        for name, value in (("longest", self.longest), ("batch_tokens", self.batch_tokens)):
            if value < 1:
                raise UserError(f"LikelihoodScorer {name}={value} must be at least 1 token")
        self._mesh = mesh
        if mesh is not None and axis_rules is None:
            axis_rules = sharding.resolve_rules("auto", platform)
        self._rules = axis_rules or ()
        self._shards = 1 if mesh is None else math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
        self._tile = tile_size(config.vocab_size)
        unit = math.lcm(SMALLEST_BUCKET, IMPLEMENTATIONS[config.attention_implementation].length_multiple)
        self._smallest_bucket = -(-(smallest_bucket or unit) // unit) * unit
        self._params = _place_parameters(config, params, mesh, self._rules)

    def score(
        self, requests: Sequence[ScoringRequest], statistics: bool = False, progress: bool = True
    ) -> list[Scored]:
        """Returns the answers in the order of the requests.

        A request longer than `longest` + 1 tokens loses the beginning of its context.

        Args:
          requests: contexts and continuations as token ids.
          statistics: also mean and standard deviation of log p over the vocabulary at each position.
          progress: show a bar when standard error is a terminal.

        Raises:
          UserError: a request that cannot be scored, or logits that are not finite; the message names the request.
        """
        rows = make_rows(requests, self.longest, self.config.vocab_size)
        batches = make_batches(rows, self.longest, self.batch_tokens, self._shards, self._tile, self._smallest_bucket)
        results: list[Scored | None] = [None] * len(requests)
        in_flight: collections.deque[tuple[Batch, Outputs]] = collections.deque()
        with ProgressBars(progress) as bars, self._on_mesh():
            bar = bars.bar("scoring", len(rows))
            for batch in batches:
                in_flight.append((batch, self._run(batch, statistics)))
                if len(in_flight) > IN_FLIGHT:
                    bar.advance(_read_batch(*in_flight.popleft(), results))
            while in_flight:
                bar.advance(_read_batch(*in_flight.popleft(), results))
        answers = [result for result in results if result is not None]
        assert len(answers) == len(requests)  # every request stands in a row of a batch
        return answers

    def score_rolling(
        self, tokens: TokenIds, prefix_token: int, statistics: bool = False, progress: bool = False
    ) -> Scored:
        """Returns the answer for one whole text of any length; see `rolling_windows`."""
        (scored,) = self.score_rolling_texts([tokens], prefix_token, statistics, progress)
        return scored

    def score_rolling_texts(
        self, texts: Sequence[TokenIds], prefix_token: int, statistics: bool = False, progress: bool = True
    ) -> list[Scored]:
        """Returns the answer for each of many texts, their windows scored together; see `rolling_windows`."""
        windows = [rolling_windows(tokens, prefix_token, self.longest) for tokens in texts]
        scored = iter(self.score([request for each in windows for request in each], statistics, progress))
        return [join_scored([next(scored) for _ in each]) for each in windows]

    def _on_mesh(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._mesh is None else sharding.use_mesh(self._mesh, self._rules)

    def _run(self, batch: Batch, statistics: bool) -> Outputs:
        program = ScoringProgram(self.config, self._tile, statistics, tuple(nn.get_logical_axis_rules()))
        arrays: Sequence[Any] = (batch.tokens, batch.places, batch.labels)
        if self._mesh is not None:
            split = sharding.batch_sharding(self._mesh)
            # Every process holds the whole batch and hands over its own part.
            arrays = [jax.make_array_from_callback(array.shape, split, array.__getitem__) for array in arrays]
        return score_batch(self._params, *arrays, np.int32(batch.num_tiles), program)


@functools.cache
def _log_blockwise_once() -> None:
    _log.info("scoring on cpu: attention implementation xla_blockwise in place of xla")


def _place_parameters(config: ModelConfig, params: Mapping[str, Any], mesh: Mesh | None, rules: Any) -> Any:
    """Returns the parameters on the devices, matrices in compute_dtype: the model rounds exactly those before use."""

    def convert(path: tuple[Any, ...], leaf: Any) -> Any:
        if path[-1].key in ("kernel", "embedding") and leaf.dtype != config.compute_dtype:
            return leaf.astype(config.compute_dtype)
        return leaf

    converted = jax.tree_util.tree_map_with_path(convert, dict(params))
    if mesh is None:
        return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf), converted)
    leaves = jax.tree.leaves(converted)
    if all(isinstance(leaf, jax.Array) and getattr(leaf.sharding, "mesh", None) == mesh for leaf in leaves):
        return converted
    return jax.device_put(converted, sharding.parameter_shardings(abstract_parameters(config), mesh, rules))


def _read_batch(batch: Batch, outputs: Outputs, results: list[Scored | None]) -> int:
    """Fetches a batch's outputs and writes the answers of its requests; returns the number of rows.

    Raises:
      UserError: logits that are not finite.
    """
    fetched = jax.tree.map(np.asarray, outputs)  # where None stays None
    for row, (shard, span) in zip(batch.rows, batch.spans, strict=True):
        known: dict[tuple[int, int], Scored] = {}
        for number, length, place in row.readers:
            if (length, place) not in known:
                positions = slice(span.stop - length, span.stop)
                known[length, place] = _read_row(batch, fetched, shard, positions, place)
                if not np.isfinite(known[length, place].log_likelihood):
                    raise UserError(
                        f"request {number} (a context of {len(row.tokens) + 1 - length} tokens, a continuation of "
                        f"{length}) gave logits that are not finite; the parameters are damaged or training had "
                        "diverged"
                    )
            results[number] = known[length, place]
    return len(batch.rows)


def _read_row(batch: Batch, outputs: Any, shard: int, positions: slice, place: int) -> Scored:
    log_probabilities = outputs.log_probabilities[shard, positions, 0].copy()
    labels = batch.labels[shard, positions, 0].copy()
    log_probabilities[-1] = outputs.log_probabilities[shard, positions.stop - 1, place]
    labels[-1] = batch.labels[shard, positions.stop - 1, place]
    return Scored(
        log_likelihood=float(log_probabilities.sum(dtype=np.float64)),
        is_greedy=bool((outputs.best[shard, positions] == labels).all()),
        log_probabilities=log_probabilities,
        means=None if outputs.means is None else outputs.means[shard, positions].copy(),
        deviations=None if outputs.deviations is None else outputs.deviations[shard, positions].copy(),
    )

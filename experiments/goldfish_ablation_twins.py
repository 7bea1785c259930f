"""Training one twin and asking what it can recite. Twins differ in the weights of their labels and in nothing else."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from goldfish_ablation_copies import Leak, measure_leak
from goldfish_ablation_data import Planted, Texts
from goldfish_ablation_settings import STANDARD, Arm, GoldfishAblation

from apertus_jax.data import VocabularyText, segment_ids_and_positions, token_pieces
from apertus_jax.evaluation.memorization.text_metrics import (
    edit_similarity,
    exact_match,
    longest_common_run,
    prefix_match_length,
    rouge_l,
)
from apertus_jax.inference import generate_tokens
from apertus_jax.model import Transformer
from apertus_jax.objectives import LossMask, anchor_table, goldfish, not_after_eod, token_losses
from apertus_jax.optimization import adamw, optimizer_chain, wsd_schedule
from apertus_jax.training.state import initialize_state
from apertus_jax.training.train_step import Objective, make_train_step

ROWS_AT_ONCE = 64
OTHER_WEIGHTS = 1_000_003  # added to the seed where initial weights are to differ and nothing else
WARMUP_SHARE, DECAY_SHARE = 0.05, 0.2
GENERATED_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Masks:
    """The labels an arm leaves out: bool[N, T] of the training rows, bool[P, T] of the probes, and of each copy."""

    rows: np.ndarray
    probes: np.ndarray
    copies: list[list[np.ndarray]]  # per cluster and edit, bool[T]


def arm_masks(arm: Arm, texts: Texts, planted: Planted) -> Masks:
    """Computes what one arm drops, with the masks of the package and the fields of an ordinary batch."""
    mask = _loss_mask(arm, texts, planted)
    copies = []
    for edits, key in zip(planted.copies, planted.cluster_keys, strict=True):
        stacked = np.stack(list(edits.values()))
        copies.append(list(_drops(mask, stacked, np.full(len(stacked), key))))
    rows = _drops(mask, planted.rows, planted.document_keys, planted.segment_ids, planted.left_context)
    return Masks(rows, _drops(mask, planted.probes, planted.probe_keys), copies)


def _loss_mask(arm: Arm, texts: Texts, planted: Planted) -> LossMask | None:
    if arm.strategy == STANDARD:
        return None
    anchors = None
    if arm.strategy == "cluster":
        counts = np.bincount(planted.rows.ravel(), minlength=texts.tokenizer.vocab_size)
        anchors = anchor_table(VocabularyText(token_pieces(texts.tokenizer), counts))
    return goldfish(arm.k, arm.h, arm.strategy, anchors=anchors)


def _drops(
    mask: LossMask | None,
    tokens: np.ndarray,
    keys: np.ndarray,
    segment_ids: np.ndarray | None = None,
    left_context: np.ndarray | None = None,
) -> np.ndarray:
    """bool[N, T]: labels that a mask drops from rows int32[N, T+1]; keys uint32[N] or [N, T]."""
    shape = (len(tokens), tokens.shape[1] - 1)
    if mask is None:
        return np.zeros(shape, bool)
    batch = {
        "tokens": tokens,
        "segment_ids": np.zeros(shape, np.int32) if segment_ids is None else segment_ids,
        "document_keys": np.broadcast_to(keys.reshape(len(keys), -1), shape).astype(np.uint32),
    }
    if left_context is not None:
        batch["left_context"] = left_context
    jitted = jax.jit(lambda part: ~mask(part))
    # The last piece is padded, so that one program serves them all.
    size = min(ROWS_AT_ONCE, len(tokens))
    pieces = []
    for start in range(0, len(tokens), size):
        begin = min(start, len(tokens) - size)
        drops = np.asarray(jitted({name: array[begin : begin + size] for name, array in batch.items()}))
        pieces.append(drops[start - begin :])
    return np.concatenate(pieces)


class Twins:
    """One compiled training step and one compiled evaluation for all arms and seeds of a run."""

    def __init__(self, settings: GoldfishAblation, texts: Texts, num_rows: int):
        """Compiles nothing yet; `num_rows` decides the learning-rate schedule."""
        self.settings, self.texts, self.num_rows = settings, texts, num_rows
        rate = wsd_schedule(
            settings.learning_rate,
            warmup_samples=max(round(num_rows * WARMUP_SHARE), 1),
            total_samples=num_rows,
            decay_samples=max(round(num_rows * DECAY_SHARE), 1),
        )
        self._optimizer = optimizer_chain(adamw(rate, b2=settings.b2, weight_decay=0.0), settings.clip_norm)
        objective = Objective((not_after_eod(texts.tokenizer.eod_id),), num_tiles=1)
        self._step = jax.jit(make_train_step(settings.model, self._optimizer, objective), donate_argnums=0)
        self._losses = jax.jit(self._losses_and_guesses)

    def train(self, planted: Planted, masks: Masks, seed: int, progress: Callable[[int], object]) -> tuple[Any, list]:
        """Returns the parameters after all rows, and the training loss of each step; `seed`: of initial weights."""
        initialize = jax.jit(lambda key: nn.unbox(initialize_state(self.settings.model, self._optimizer, key)))
        state, losses, size = initialize(jax.random.key(seed)), [], self.settings.batch_size
        for begin in range(0, len(planted.rows), size):
            rows = slice(begin, begin + size)
            batch = {
                "tokens": planted.rows[rows],
                "segment_ids": planted.segment_ids[rows],
                "positions": planted.positions[rows],
                "loss_weights": (~masks.rows[rows]).astype(np.float32),
            }
            state, metrics = self._step(state, batch)
            losses.append(metrics["loss"])
            progress(1)
        return state.params, [float(loss) for loss in losses]

    def losses_of(self, params: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows int32[N, T+1] → cross-entropy float32[N, T], and bool[N, T]: the likeliest token is the label."""
        padding = -len(rows) % ROWS_AT_ONCE
        padded = np.concatenate([rows, np.zeros((padding, rows.shape[1]), rows.dtype)])
        segments, positions = segment_ids_and_positions(padded[:, :-1], self.texts.tokenizer.eod_id)
        parts = [
            self._losses(params, *(array[begin : begin + ROWS_AT_ONCE] for array in (padded, segments, positions)))
            for begin in range(0, len(padded), ROWS_AT_ONCE)
        ]
        losses, right = (
            np.concatenate([np.asarray(part) for part in kind])[: len(rows)] for kind in zip(*parts, strict=True)
        )
        return losses, right

    def _losses_and_guesses(self, params, tokens, segment_ids, positions):
        hidden = Transformer(self.settings.model).apply(
            {"params": params}, tokens[:, :-1], positions=positions, segment_ids=segment_ids, method="hidden_states"
        )
        kernel = params["lm_head"]["kernel"]
        guesses = jnp.argmax(jnp.einsum("BTD,DV->BTV", hidden, kernel), axis=-1)
        return token_losses(hidden, kernel, tokens[:, 1:]), guesses == tokens[:, 1:]

    def continuations(self, params: Any, rows: Sequence[np.ndarray]) -> list[list[int]]:
        """The greedy continuation of each row's prefix: exactly `suffix` tokens."""
        prompts = [row[: self.settings.prefix].tolist() for row in rows]
        return generate_tokens(
            self.settings.model,
            params,
            prompts,
            max_new_tokens=self.settings.suffix,
            batch_size=min(GENERATED_AT_ONCE, max(len(prompts), 1)),
        )


def recall(reference: np.ndarray, generated: Sequence[int], dropped: np.ndarray) -> dict[str, Any]:
    """Metrics of one continuation; dropped bool[S] says which labels of the suffix had left the loss.

    Source: docs/reference/evaluation_and_release.md §3.3.
    """
    reference = reference.tolist()
    matched = prefix_match_length(reference, generated)
    holes = np.flatnonzero(dropped)
    return {
        "rouge_l": rouge_l(reference, generated),
        "lccs": longest_common_run(reference, generated),
        "exact_match": bool(exact_match(reference, generated)),
        "edit_similarity": edit_similarity(reference, generated),
        "prefix_match": matched,
        "holes": len(holes),
        "first_hole": int(holes[0]) if len(holes) else None,
        "errs_at_hole": bool(dropped[matched]) if matched < len(reference) else None,
    }


def measure(
    twins: Twins, arm: Arm, seed: int, texts: Texts, planted: Planted, progress: Callable[[int], object]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains one arm with one seed → its figures as JSON values, and its continuations as arrays."""
    settings, started = twins.settings, time.monotonic()
    masks = arm_masks(arm, texts, planted)
    params, losses = twins.train(planted, masks, seed + OTHER_WEIGHTS * arm.restarted, progress)
    trained = time.monotonic() - started
    suffix = slice(settings.prefix, settings.length)  # tokens; their labels are one place earlier
    labels = slice(settings.prefix - 1, settings.length - 1)
    firsts = [next(iter(edits.values())) for edits in planted.copies]
    generated = twins.continuations(params, [*planted.probes, *firsts])
    probe_losses, right = twins.losses_of(params, planted.probes)
    probes = []
    for number, probe in enumerate(planted.probes):
        dropped = masks.probes[number, labels]
        row = {"exposure": int(planted.exposure[number]), **recall(probe[suffix], generated[number], dropped)}
        for name, chosen in (("kept", ~dropped), ("dropped", dropped)):
            row[f"loss_{name}"] = _mean(probe_losses[number, labels][chosen])
            row[f"accuracy_{name}"] = _mean(right[number, labels][chosen])
        probes.append(row)
    clusters = _clusters(planted, masks, generated[len(probes) :], texts, settings)
    figures = {
        "arm": arm.name,
        "seed": seed,
        "data": planted.digest,
        "rows": len(planted.rows),
        "steps": len(losses),
        "tokens": int(planted.rows[:, 1:].size),
        "first_loss": losses[0],
        "final_loss": float(np.mean(losses[-10:])),
        "drop_rate": drop_rates(planted, masks),
        "probes": probes,
        "clusters": clusters,
        "held_out": _held_out(twins, params, texts),
        "seconds": {"training": trained, "all": time.monotonic() - started},
    }
    return figures, {"generated": np.array(generated, np.int32)}


def drop_rates(planted: Planted, masks: Masks) -> dict[str, float]:
    """The share of labels that left the loss: of ordinary rows and of the probes."""
    return {"background": float(masks.rows[planted.planted < 0].mean()), "probes": float(masks.probes.mean())}


def _clusters(
    planted: Planted, masks: Masks, generated: Sequence[Sequence[int]], texts: Texts, settings: GoldfishAblation
) -> list[dict[str, Any]]:
    """Per cluster of copies: what its masks reveal between them, and what is recited of the first copy."""
    pieces, result = token_pieces(texts.tokenizer), []
    for edits, drops, text in zip(planted.copies, masks.copies, generated, strict=True):
        rows = list(edits.values())
        leak: Leak = measure_leak([row[1:] for row in rows], drops, pieces, settings.prefix - 1)
        reference = rows[0][settings.prefix : settings.length]
        found = recall(reference, text, drops[0][settings.prefix - 1 : settings.length - 1])
        # Which layout the model falls into is chance, so the words are compared as well.
        words = [texts.tokenizer.decode(ids).split() for ids in (reference, text)]
        found["words_rouge_l"] = rouge_l(*_numbered(*words))
        result.append({**dataclasses.asdict(leak), **found})
    return result


def _numbered(first: Sequence[str], second: Sequence[str]) -> tuple[list[int], list[int]]:
    """Words as numbers, the same word the same number."""
    numbers: dict[str, int] = {}
    return tuple([numbers.setdefault(word, len(numbers)) for word in words] for words in (first, second))


def _held_out(twins: Twins, params: Any, texts: Texts) -> list[dict[str, Any]]:
    """Per held-out document: its group, summed loss and number of labels."""
    length = twins.settings.length + 1
    rows = np.zeros((len(texts.held_out), length), np.int32)
    for place, (_, ids) in enumerate(texts.held_out):
        rows[place, : len(ids)] = ids
    losses, _ = twins.losses_of(params, rows)
    return [
        {"group": group, "loss": float(losses[place, : len(ids) - 1].sum(dtype=np.float64)), "labels": len(ids) - 1}
        for place, (group, ids) in enumerate(texts.held_out)
    ]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None

"""Loss masks that compose (end of document, SFT completions, Goldfish): a list of them is their conjunction.

`LossMask` says what a mask is and what it is given. A new one is three lines:

    def drop_digits(digit_ids):
        return lambda batch: ~jnp.isin(batch["tokens"][:, 1:], jnp.asarray(digit_ids))

    combine_masks([goldfish(), not_after_eod(2), drop_digits([…])], batch)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from apertus_jax.errors import UserError
from apertus_jax.objectives.anchors import AnchorTable, VocabularyText, anchor_table
from apertus_jax.objectives.goldfish import ROW_STRATEGIES, check_exempt_ids, check_goldfish, goldfish_mask
from apertus_jax.source_keys import source_key
from apertus_jax.validation import require_callable, require_flag, require_list, require_whole_number, spelled

LARGEST_ID = 2**31 - 1  # ids are int32 on devices
Batch = Mapping[str, jax.Array]


class LossMask(Protocol):
    """A function of a batch that says which labels are in the loss; pure, and traced inside the train step.

    It may read of the batch (T labels in each of B rows; label t is token t + 1):

    - `tokens` int32[B, T+1];
    - `segment_ids`, `positions` int32[B, T]: which document of the row an input belongs to, and its place in it;
    - `document_keys` uint32[B, T]: a number for each document, the same wherever and however often it is packed;
    - `left_context` int32[B, C]: the C labels before the window of the row's first document, see `ContextMask`; -1
      where it has none;
    - `loss_weights` float32[B, T]: what `combine_masks` multiplies by;
    - `source_keys` uint32[B, T]: `source_key` of the source that the row is of, where a mask `reads_sources`;
    - `samples_consumed` uint32[2], high and low half: samples trained on before this batch. In the train step alone.

    Only `tokens` is always there. Resumes, other meshes and audits of the trained model (`memorization`) give the same
    labels again if the mask is keyed on the text: a random drop then draws from a hash of the tokens, or of
    `document_keys` and `positions`, as `goldfish` does. A drop that is to be another one at each step is keyed on
    `samples_consumed`, which resumes bring back; outside of training nothing can repeat it.
    """

    def __call__(self, batch: Batch) -> jax.Array:
        """Returns bool[B, T], True where the label stays in the loss."""


@runtime_checkable
class ContextMask(LossMask, Protocol):
    """A loss mask that looks at labels before the window, which the loader then brings along.

    A function becomes one by an attribute: `mask.left_context = 49`.

    Attributes:
      left_context: how many labels before the first of the window it looks at.
    """

    left_context: int


def left_context_of(masks: Sequence[LossMask]) -> int:
    """Returns how many labels before the window the masks look at, together.

    Raises:
      UserError: the `left_context` of one is no count.
    """
    needed = {mask_name(mask): mask.left_context for mask in masks if isinstance(mask, ContextMask)}
    for name, labels in needed.items():
        require_whole_number(f"left_context of the loss mask {name}", labels, at_least=0, at_most=LARGEST_ID)
    return max(needed.values(), default=0)


def mask_name(mask: LossMask) -> str:
    """Returns what messages call a mask: module and name of the function that made it."""
    named = mask if hasattr(mask, "__qualname__") else type(mask)
    return f"{named.__module__}.{named.__qualname__}".replace(".<locals>", "")


def check_masks(masks: Sequence[LossMask], batch: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    """Checks, on shapes alone, that every mask takes a batch and gives bool[B, T].

    Args:
      masks: the masks.
      batch: shapes and dtypes of everything that the batches have.

    Raises:
      UserError: one fails, or gives something else.
    """
    rows, tokens = batch["tokens"].shape
    for mask in masks:
        name = mask_name(mask)
        try:
            kept = jax.eval_shape(mask, batch)
        except UserError:
            raise
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"the loss mask {name} fails with {told}; batches have {', '.join(batch)}") from error
        wanted, given = f"bool[{rows}, {tokens - 1}]", kept
        if isinstance(kept, jax.ShapeDtypeStruct):
            given = f"{kept.dtype}{list(kept.shape)}"
        if given != wanted:
            raise UserError(
                f"the loss mask {name} gives {given} for {rows} rows of {tokens} tokens; it must give {wanted}, True "
                "where a label stays in the loss"
            )


def goldfish(
    k: int = 50,
    h: int = 50,
    strategy: str = "document",
    use_document_keys: bool = False,
    anchors: AnchorTable | VocabularyText | None = None,
    exempt_ids: Sequence[int] = (),
) -> LossMask:
    """A mask that drops about one label in k, see `goldfish_mask`.

    Without document keys two copies of a text, found at two addresses, lose the same labels, which is the point of
    the objective; with them every document draws its own mask. Strategy "cluster" always uses them, and `anchors`:
    a table, or the vocabulary it is made of. Labels with one of `exempt_ids`, say the special tokens, are never
    dropped. Raises UserError for bad k, h, strategy or ids, or missing anchors.
    """
    check_goldfish(k, h, strategy, anchors is not None)
    check_exempt_ids(exempt_ids)
    if not (anchors is None or isinstance(anchors, AnchorTable) or hasattr(anchors, "counts")):
        raise UserError(f"goldfish.anchors = {spelled(anchors)} must be an AnchorTable, or @vocabulary_text()")
    require_flag("goldfish.use_document_keys", use_document_keys)
    table = anchors if anchors is None or isinstance(anchors, AnchorTable) else anchor_table(anchors)
    keyed = use_document_keys or strategy == "cluster"

    def mask(batch: Batch) -> jax.Array:
        return goldfish_mask(
            _labels(batch),
            k,
            h,
            strategy,
            batch.get("segment_ids"),
            batch.get("left_context"),
            batch.get("document_keys") if keyed else None,
            table,
            exempt_ids,
        )

    # How many labels of a cut document this mask needs from before the window, see `ContextMask`.
    mask.left_context = 0 if strategy in ROW_STRATEGIES else h - 1  # type: ignore[attr-defined]  # functions take attributes
    return mask


def require_token_id(name: str, value: object) -> None:
    """Raises UserError unless `value` can be the number of a token."""
    require_whole_number(name, value, at_least=0, at_most=LARGEST_ID)


def not_after_eod(eod_id: int) -> LossMask:
    """Drops the label whose input ends a document: the start of the next one cannot be foretold.

    Source: docs/reference/model_and_training.md §5.3.
    """
    require_token_id("not_after_eod.eod_id", eod_id)
    return lambda batch: _inputs(batch) != eod_id


def not_padding(pad_id: int = -1) -> LossMask:
    """Drops labels that are padding; -1 is no token."""
    require_whole_number("not_padding.pad_id", pad_id, at_least=-1, at_most=LARGEST_ID)
    return lambda batch: _labels(batch) != pad_id


def completion_only(start_id: int, end_id: int) -> LossMask:
    """The loss mask of supervised fine-tuning (SFT): keeps what an assistant says in chats.

    That is what comes after `start_id` up to and including `end_id`, in each document.

    A completion whose start lies before the window is left out, since the row does not tell that it is one.
    """
    require_token_id("completion_only.start_id", start_id)
    require_token_id("completion_only.end_id", end_id)

    def mask(batch: Batch) -> jax.Array:
        inputs = _inputs(batch)
        index = jnp.arange(inputs.shape[-1], dtype=jnp.int32)
        closes = inputs == end_id
        if "segment_ids" in batch:
            new_document = jnp.diff(batch["segment_ids"], axis=1, prepend=batch["segment_ids"][:, :1]) != 0
            closes |= new_document & (inputs != start_id)
        last_start = jax.lax.cummax(jnp.where(inputs == start_id, index, -1), axis=1)
        last_close = jax.lax.cummax(jnp.where(closes, index, -1), axis=1)
        return last_start > last_close

    return mask


def on_sources(masks: Sequence[LossMask], sources: Sequence[str]) -> LossMask:
    """Masks for these sources of the token store alone; rows of other sources keep all their labels.

    So Goldfish drops labels of text, and chats in the same mixture, which have loss weights of their own, stay whole.
    Where a batch does not say of which source its rows are (audits), the masks apply. Raises UserError for no sources.
    """
    require_list("on_sources.masks", masks, at_least=1)
    require_list("on_sources.sources", sources, of=str, at_least=1, distinct=True)
    for each in masks:
        require_callable("a mask of on_sources.masks", each, "on_sources.masks = [@goldfish()]")
    masks, keys = tuple(masks), [source_key(name) for name in sources]

    def mask(batch: Batch) -> jax.Array:
        keep = jnp.ones(_labels(batch).shape, bool)
        for each in masks:
            keep &= each(batch)
        if "source_keys" not in batch:
            return keep
        return keep | ~jnp.isin(batch["source_keys"], jnp.asarray(keys, jnp.uint32))

    mask.left_context = left_context_of(masks)  # type: ignore[attr-defined]  # functions take attributes
    mask.reads_sources = tuple(sources)  # type: ignore[attr-defined]  # functions take attributes
    return mask


def sources_of(masks: Sequence[LossMask]) -> tuple[str, ...]:
    """Returns the names of the sources that masks ask for, sorted; none where no mask reads `source_keys`."""
    return tuple(sorted({name for mask in masks for name in getattr(mask, "reads_sources", ())}))


def combine_masks(masks: Sequence[LossMask], batch: Batch) -> jax.Array:
    """The weight of each label, float32[B, T]: 1 where every mask keeps it, times the batch's own `loss_weights`."""
    keep = jnp.ones(_labels(batch).shape, bool)
    for mask in masks:
        keep &= mask(batch)
    weights = keep.astype(jnp.float32)
    return weights * batch["loss_weights"] if "loss_weights" in batch else weights


def _inputs(batch: Batch) -> jax.Array:
    return jnp.asarray(batch["tokens"])[:, :-1]


def _labels(batch: Batch) -> jax.Array:
    return jnp.asarray(batch["tokens"])[:, 1:]

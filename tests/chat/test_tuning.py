"""Fine-tuning on chats: torch's losses on the same rows, packed as unpacked, masks by source, the step as it was."""

import json

import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import ApertusForCausalLM

from apertus_jax import cli, configuration
from apertus_jax.chat import parse_conversation
from apertus_jax.data import BatchSchedule, Mixture, TokenStore, stream_of_store, tokenize
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.objectives import combine_masks, goldfish, on_sources, token_losses
from apertus_jax.objectives.masks import check_masks
from apertus_jax.release import save_huggingface
from apertus_jax.training.pretrain import check_sources
from apertus_jax.training.program import DEVICE_FIELDS, abstract_batch, device_fields
from apertus_jax.training.train_step import Objective, batch_loss, make_gradients
from tests.chat import generated
from tests.documented_blocks import blocks_of
from tests.model_parameters import random_parameters

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CHATS, LENGTH = 6, 320
MODEL = ModelConfig(420, 16, 32, 2, 4, 2)
OBJECTIVE = Objective((), num_tiles=2)


@pytest.fixture(scope="module")
def store(chat_tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    chat_tokenizers["apertus"].save(folder / "tokenizer")
    records = [generated.conversation(seed) for seed in range(40)]
    records = [record for record in records if parse_conversation(record).has_answer]
    short = sorted(records, key=lambda record: len(json.dumps(record)))[:CHATS]
    (folder / "chats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in short))
    tokenize(str(folder / "chats.jsonl"), folder / "store", str(folder / "tokenizer"), 8192, 0.0, progress=False)
    return TokenStore.open(folder / "store")


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, random_parameters(MODEL))


def one_epoch(store, sample_index):
    """Returns a batch of all samples, each once."""
    stream = stream_of_store(store, Mixture(sample_index=sample_index), BatchSchedule(1), LENGTH, 0, 1)
    size = stream.sources[0].index.num_samples
    stream = stream_of_store(store, Mixture(sample_index=sample_index), BatchSchedule(size), LENGTH, 0, 1)
    return BatchLoader(stream, store.vocab_size, store.eod_id, context_window=1).batch(0)


def test_packed_gradients_are_the_unpacked_ones(store, params):
    found = {}
    for sample_index in ("one_document", "best_fit"):
        batch = one_epoch(store, sample_index)
        fields = {name: jnp.asarray(batch[name]) for name in DEVICE_FIELDS}
        found[sample_index] = jax.jit(make_gradients(MODEL, OBJECTIVE))(params, fields, jnp.zeros(2, jnp.uint32))
        assert len(batch["tokens"]) == CHATS or sample_index == "best_fit"
    (loss, gradients, weights), (packed_loss, packed, packed_weights) = found.values()
    assert len(packed_weights) < CHATS and float(weights.sum()) == float(packed_weights.sum()) > 0
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(packed), jax.tree.leaves(gradients), strict=True):
        assert float(jnp.linalg.norm(ours - theirs)) <= 1e-5 * float(jnp.linalg.norm(theirs))


def test_losses_are_those_of_torch_on_the_same_rows(store, params, tmp_path):
    save_huggingface(tmp_path / "model", MODEL, jax.tree.map(np.asarray, params))
    theirs = ApertusForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32, attn_implementation="eager")
    source, expected = store.source("chats"), {}
    for number, start in enumerate(source.document_starts[:-1]):
        ids = torch.tensor(source.document(number)).long()
        with torch.no_grad():
            logits = theirs(ids[None, :-1]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none").numpy()
        expected[ids.numpy().tobytes()] = losses, source.weights[start + 1 : start + len(ids)]
    batch = one_epoch(store, "best_fit")
    arrays = {name: jnp.asarray(batch[name]) for name in DEVICE_FIELDS}
    inputs = {name: arrays[name] for name in ("positions", "segment_ids")}
    hidden = Transformer(MODEL).apply({"params": params}, arrays["tokens"][:, :-1], **inputs, method="hidden_states")
    ours = np.asarray(token_losses(hidden, params["lm_head"]["kernel"], arrays["tokens"][:, 1:], 2))
    compared, total, weight = 0, 0.0, 0.0
    for row, tokens in enumerate(batch["tokens"]):
        starts = np.flatnonzero((tokens == store.bod_id) & np.append(True, tokens[:-1] == store.eod_id))
        for start in starts:
            stop = start + int(np.flatnonzero(tokens[start:] == store.eod_id)[0]) + 1
            losses, weights = expected.pop(tokens[start:stop].astype(np.int64).tobytes())
            np.testing.assert_allclose(ours[row, start : stop - 1], losses, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(batch["loss_weights"][row, start : stop - 1], weights)
            compared, total, weight = compared + 1, total + float(losses @ weights), weight + float(weights.sum())
    assert compared == CHATS and not expected
    step_loss = batch_loss(params, MODEL, arrays, arrays["loss_weights"] / arrays["loss_weights"].sum(), 2)
    np.testing.assert_allclose(step_loss, total / weight, rtol=1e-5)


def test_masks_of_a_source_leave_the_others_alone(store):
    stream = stream_of_store(store, Mixture(), BatchSchedule(4), 64, 0, 2)
    loader = BatchLoader(stream, store.vocab_size, store.eod_id, context_window=8, with_source_keys=True)
    batch = {name: jnp.asarray(value) for name, value in loader.batch(0).items() if name != "sample_ids"}
    mask = goldfish(k=4, h=8)
    plain, of_chats, of_texts = (
        np.asarray(combine_masks(masks, batch))
        for masks in ([mask], [on_sources([mask], ["chats"])], [on_sources([mask], ["texts"])])
    )
    np.testing.assert_array_equal(of_chats, plain)
    np.testing.assert_array_equal(of_texts, batch["loss_weights"])
    assert (plain != of_texts).any()
    without = {name: value for name, value in batch.items() if name != "source_keys"}
    np.testing.assert_array_equal(combine_masks([on_sources([mask], ["texts"])], without), plain)
    objective = Objective((on_sources([mask], ["texts"]),))
    assert objective.left_context == 7 and device_fields(objective) == (*DEVICE_FIELDS, "source_keys")
    check_masks(objective.loss_masks, abstract_batch(objective, 64, 2))
    with pytest.raises(UserError, match="on_sources.sources names 'texts', .* has chats; correct it"):
        check_sources(store, objective)
    with pytest.raises(UserError, match="on_sources.sources"):
        on_sources([mask], [])


def test_masks_of_a_source_are_bound_as_the_page_says():
    (block,) = [block for block in blocks_of("docs/instruct.md") if block.language == "gin"]
    configuration.register(cli.locations())
    try:
        configuration.parse(["sft/chats.gin"], block.text.splitlines())
        objective = gin.get_configurable("Objective")()
    finally:
        gin.clear_config()
    assert objective.sources == ("texts",) and objective.left_context == 49


def test_steps_without_masks_of_sources_have_no_keys():
    fields = abstract_batch(Objective((goldfish(),)), 32, 2)
    assert tuple(fields) == DEVICE_FIELDS

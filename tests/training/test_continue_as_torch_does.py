"""transformers' Apertus repositories go on here as in torch: same data, masks and AdamW; then back to transformers."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import ApertusConfig, ApertusForCausalLM

from apertus_jax.data import BatchSchedule, Mixture, MixtureStage, TokenStore, stream_of_store
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.inference import generate_tokens
from apertus_jax.model.model_folder import load_model
from apertus_jax.objectives import goldfish
from apertus_jax.optimization import adamw
from apertus_jax.release import export, load_huggingface
from apertus_jax.training import Objective
from tests.training.small_run import small_run

pytestmark = pytest.mark.usefixtures("one_torch_thread")
STEPS, BATCH, LENGTH = 20, 8, 32
RATE, DECAY, CLIP = 3e-3, 0.1, 1.0
OPTIMIZER = {"lr": RATE, "betas": (0.9, 0.95), "eps": 1e-8}
GOLDFISH = goldfish(k=4, h=8)
OBJECTIVE = Objective([GOLDFISH], num_tiles=2)
RATES = {"one": 0.7, "two": 0.3}


def their_model(num_kv_heads, folder, dtype):
    """Writes a repository with random weights by transformers, in several files, and returns its model in float32."""
    config = ApertusConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=num_kv_heads,
        max_position_embeddings=256,
        pad_token_id=None,
        attn_implementation="eager",
    )
    torch.manual_seed(num_kv_heads)
    model = ApertusForCausalLM(config)
    generator = torch.Generator().manual_seed(num_kv_heads)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            begin = 1.0 if name.endswith("norm.weight") else 0.0
            if parameter.ndim > 1 or begin:
                parameter.copy_(begin + torch.randn(parameter.shape, generator=generator) * 0.08)
    model.to(dtype).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return ApertusForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def batches_of(store):
    """Returns tokens int[B, T+1] and kept labels bool[B, T] of each step, as the run's data and mask have them."""
    opened = TokenStore.open(store)
    stream = stream_of_store(opened, Mixture([MixtureStage(rates=RATES)]), BatchSchedule(BATCH), LENGTH, 28, STEPS)
    loader = BatchLoader(stream, 512, opened.eod_id, context_window=OBJECTIVE.left_context + 1)
    for step in range(STEPS):
        batch = loader.batch(step)
        yield batch["tokens"], np.asarray(GOLDFISH(jax.tree.map(jnp.asarray, batch))), batch["loss_weights"]


def continued_in_torch(model, store):
    """Returns the losses of 20 steps of torch's own AdamW on these batches; changes the model."""
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1]
    others = [p for name, p in model.named_parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer, losses = torch.optim.AdamW(groups, **OPTIMIZER), []
    for tokens, kept, weights in batches_of(store):
        logits = model(torch.tensor(tokens[:, :-1]).long()).logits
        each = torch.nn.functional.cross_entropy(
            logits.reshape(-1, 512), torch.tensor(tokens[:, 1:]).long().reshape(-1), reduction="none"
        )
        weight = torch.tensor(kept * weights).float().reshape(-1)
        loss = (each * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("num_kv_heads", "dtype"),
    [
        (2, torch.bfloat16),
        pytest.param(8, torch.float32, marks=pytest.mark.slow),
        pytest.param(1, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(2, torch.float32, marks=pytest.mark.slow),
    ],
    ids=["4 groups, bf16", "1 group, fp32", "8 groups, bf16", "4 groups, fp32"],
)
def test_repository_goes_on_here_as_in_torch(store, tmp_path, num_kv_heads, dtype):
    model = their_model(num_kv_heads, tmp_path / "theirs", dtype)
    config, _ = load_huggingface(tmp_path / "theirs")
    causal = dataclasses.replace(config, doc_attention="causal", reset_positions=False)
    small_run(
        store,
        tmp_path / "run",
        {"log_every": 1, "clip_norm": CLIP, "init_from": str(tmp_path / "theirs")},
        model=causal,
        objective=OBJECTIVE,
        optimizer=functools.partial(adamw, weight_decay=DECAY),
        batch_schedule=BatchSchedule(BATCH),
        learning_rate=RATE,
        total_steps=STEPS,
        mixture=Mixture([MixtureStage(rates=RATES)]),
    )
    theirs = continued_in_torch(model, store)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([row["loss"] for row in rows], theirs, rtol=1e-5)
    assert theirs[-1] < theirs[0] - 0.1
    export(tmp_path / "run", tmp_path / "ours")
    ours = safetensors.numpy.load_file(tmp_path / "ours" / "model.safetensors")
    expected = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    for name, values in expected.items():
        difference = np.linalg.norm(ours[name].astype(np.float64) - values)
        assert difference <= 1e-4 * np.linalg.norm(values.astype(np.float64)), name
    again = ApertusForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    prompt = [1, 40, 50, 60]
    told = again.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=None)[0].tolist()
    greedy = generate_tokens(*load_model(tmp_path / "run"), [prompt], max_new_tokens=16)
    assert list(greedy[0]) == told[-16:]

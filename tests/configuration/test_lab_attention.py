"""An attention implementation of a module of one's own, trained by `pretrain`, resumed, used again, and asked for."""

import json
import sys
from pathlib import Path

import pytest

from apertus_jax.checkpoints import open_model
from apertus_jax.model.attention import IMPLEMENTATIONS
from apertus_jax.storage.artifacts import read_any
from tests.configuration.conftest import called, called_without_import, killed_at_step_3, own_folder
from tests.tiny_experiment import TINY_CHAIN, TINY_MODEL, write_documents

ATTENTION = '''
"""Attention of a lab: JAX's own function."""

import jax
import jax.numpy as jnp

from apertus_jax.model.attention import Implementation

__all__ = ["of_jax"]
traced = []


def attention_of_jax(query, key, value, segment_ids):
    traced.append(query.shape)
    same_document = None if segment_ids is None else (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]
    return jax.nn.dot_product_attention(query, key, value, mask=same_document, is_causal=True)


of_jax = Implementation(attention_of_jax)
'''
SETTINGS = """
ModelConfig.num_layers = 1
ModelConfig.attention_implementation = 'of_jax'
TrainingConfig.log_every = 1
TrainingConfig.checkpoint_every = 2
"""
IMPORT = "--import=lab_attention.jax_attention"
PRETRAIN = f"apertus pretrain {IMPORT} --gin_file=mine.gin --store=store --output="
READERS = {
    "generate": f"apertus generate {IMPORT} --input=train --prompt=sun --gin.generate.max_new_tokens=4 "
    "--output=samples",
    "evaluate": f"apertus evaluate {IMPORT} --input=train --store=store --gin.evaluate.sequence_length=32 "
    "--output=evaluation",
    "pretrain": f"{PRETRAIN}train",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the module, a store, and a run that was killed at step 3 of 4 and started again."""
    with own_folder(tmp_path_factory.mktemp("attention")) as here:
        (here / "lab_attention").mkdir()
        (here / "lab_attention" / "__init__.py").write_text("")
        (here / "lab_attention" / "jax_attention.py").write_text(ATTENTION)
        (here / "mine.gin").write_text(TINY_MODEL + TINY_CHAIN.format(root=here) + SETTINGS)
        write_documents(here / "documents.jsonl", 100, seed=6)
        assert called("apertus tokenize --gin_file=mine.gin --output=store") == 0
        assert killed_at_step_3(f"{PRETRAIN}train") == 130
        assert called(f"{PRETRAIN}train") == 0
        yield here


def parameters(run):
    return read_any(Path(run) / "model")["files"]["parameters.safetensors"]


def rows(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def test_attention_of_a_module_resumes_to_the_same_bits(folder):
    assert called(f"{PRETRAIN}whole") == 0
    assert parameters("train") == parameters("whole")
    assert [row["step"] for row in rows("train")] == [1, 2, 3, 4]
    # That of the lab was computed, in windows of training.
    assert {shape[1:] for shape in sys.modules["lab_attention.jax_attention"].traced} >= {(32, 4, 8)}


def test_attention_of_a_module_learns_as_the_package_does(folder):
    assert called(f"{PRETRAIN}plain --gin.ModelConfig.attention_implementation=xla") == 0
    plain, own = ([row["loss"] for row in rows(run)] for run in ("plain", "train"))
    assert plain == pytest.approx(own, rel=1e-4)
    assert open_model("train").config.attention_implementation == "of_jax"


@pytest.mark.parametrize("command", READERS)
def test_run_of_a_lab_attention_is_read_with_its_module(folder, capsys, command):
    assert called_without_import(READERS[command]) == 2
    told = capsys.readouterr().err
    assert "made with the module lab_attention.jax_attention" in told and f"add {IMPORT}" in told
    assert told.count("\n") == 1
    assert called(READERS[command]) == 0, capsys.readouterr().err


def test_lab_attention_without_its_module_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.delitem(IMPLEMENTATIONS, "of_jax")  # as in another process
    assert called_without_import(f"{PRETRAIN}new") == 2
    told = capsys.readouterr().err
    assert "attention_implementation = 'of_jax' must be one of" in told and "--import=MODULE" in told
    assert told.count("\n") == 1 and not (folder / "new").exists()

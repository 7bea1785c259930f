"""docs/your_own_loop.md: twenty lines on the core alone; NNX and explicit axes give the losses they should."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.documented_blocks import blocks_of

BARE, NNX, EXPLICIT = (block.text for block in blocks_of("docs/your_own_loop.md") if block.language == "python")
BEYOND_THE_CORE = ("gin", "pyarrow", "tensorflow", "orbax", "grain", "tokenizers", "safetensors", "torch")


def test_bare_optax_loop_has_20_lines_and_imports_the_core():
    assert len([line for line in BARE.splitlines() if line]) <= 20
    code = f"{BARE}\nimport sys\nprint([name for name in {BEYOND_THE_CORE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    losses, imported = done.stdout.splitlines()
    assert float(losses.rpartition(":")[2]) < 2.0  # chance is ln(64) = 4.2
    assert imported == "[]"


@pytest.fixture(scope="module")
def names():
    """What the page's NNX block, then its block of explicit axes, leave behind."""
    names = {}
    exec(NNX, names)
    exec(EXPLICIT, names)
    return names


def test_nnx_loss_is_optax_loss_of_the_labels_kept(names):
    model, tokens = names["LanguageModel"](64, 32, names["nnx"].Rngs(0)), names["tokens"]
    keep = names["goldfish"](k=50, h=50)({"tokens": tokens})
    logits = model.head(model(tokens[:, :-1]))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    assert 0 < (~keep).sum() < keep.size / 10
    np.testing.assert_allclose(names["losses"][0], jnp.sum(losses * keep) / keep.sum(), rtol=1e-5)
    assert names["losses"][-1] < 0.6 * names["losses"][0]


def test_explicit_axes_train_as_one_device_does(names):
    np.testing.assert_allclose(names["split_losses"], names["losses"], rtol=1e-4)
    for layer, spec in (("up", (None, "tensor")), ("down", ("tensor", None)), ("head", (None, "tensor"))):
        kernel = getattr(names["model"], layer).kernel[...]
        assert jax.typeof(kernel).sharding.spec == jax.P(*spec)
        assert not kernel.sharding.is_fully_replicated

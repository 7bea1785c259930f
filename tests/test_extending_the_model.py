"""docs/extending_the_model.md: its patches apply to the package, and what the page promises of them holds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_experiment import TINY_CHAIN, TINY_MODEL
from tests.training.conftest import write_documents

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending_the_model.md"
PATCH = re.compile(r"^```diff (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def patched_copy(folder, *names):
    """Returns a folder with the package and the page's patches of these names applied to it, one after the other."""
    shutil.copytree(ROOT / "apertus_jax", folder / "apertus_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in names:
        apply_patches(folder, name)
    return folder


def apply_patches(folder, name):
    """Applies the page's patches of a name to the copy in a folder."""
    patches = [text for block, text in PATCH.findall(PAGE.read_text()) if block == name]
    assert patches
    done = subprocess.run(
        ["git", "apply", "-p1", "-"], cwd=folder, input="".join(patches), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{PAGE.name}, patches {name}: {done.stderr}write them again against the code"


def run_python(folder, code, *arguments):
    """Runs code with the package of a folder and returns the process; what it prints of logs is in stderr."""
    environment = os.environ | {"PYTHONPATH": str(folder), "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=folder, env=environment
    )


COMMANDS = """
import sys
from apertus_jax.cli import main
for line in sys.argv[1:]:
    print("$", line, file=sys.stderr, flush=True)
    status = main(line.split(" "))
    print("=", status, file=sys.stderr, flush=True)
"""


def run_commands(folder, *lines):
    """Runs `apertus` command lines in one process; returns (status, what it said) of each."""
    done = run_python(folder, COMMANDS, *lines)
    parts = re.findall(r"^\$ .*?\n(.*?)^= (\d+)$", done.stderr, re.MULTILINE | re.DOTALL)
    assert len(parts) == len(lines), done.stderr[-3000:]
    return [(int(status), " ".join(said.split())) for said, status in parts]


def files_of_patches(*names):
    """Returns the files that the page's patches of these names change."""
    patches = [text for block, text in PATCH.findall(PAGE.read_text()) if block in names]
    return {path for text in patches for path in re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)}


def test_swiglu_is_one_file_two_with_export_a_kernel_two():
    assert len(files_of_patches("swiglu")) == 1
    assert len(files_of_patches("swiglu", "swiglu-export")) == 2
    assert len(files_of_patches("kernel")) == 2


@pytest.fixture(scope="module")
def swiglu(tmp_path_factory):
    """A folder with the package that has the gate, and the gin file of a tiny run with it."""
    root = patched_copy(tmp_path_factory.mktemp("swiglu"), "swiglu")
    write_documents(root / "documents.jsonl", 150, seed=5)
    settings = TINY_MODEL + "ModelConfig.feedforward = 'swiglu'\n" + TINY_CHAIN.format(root=root)
    (root / "swiglu.gin").write_text(settings)
    return root


@pytest.fixture(scope="module")
def outcomes(swiglu):
    """What the commands said: the chain refused, training stopped, the chain without export, and the export refused."""
    chain, gin = swiglu / "chain", f"--gin_file={swiglu / 'swiglu.gin'}"
    names = ("refused", "tokenize", "stopped", "chain", "verify", "export")
    said = run_commands(
        swiglu,
        f"run {gin}",
        f"tokenize {gin} --output={chain / 'store'}",
        f"pretrain {gin} --input={chain / 'store'} --output={chain / 'train'} --gin.RunSchedule.stop_step=2",
        f"run {gin} --gin.run.stages=['tokenize','pretrain','evaluate','generate']",
        f"verify {chain / 'train'}",
        f"export --input={chain / 'train'} --output={swiglu / 'huggingface'}",
    )
    return dict(zip(names, said, strict=True))


def test_run_with_an_export_stage_refuses_before_it_begins(outcomes):
    status, said = outcomes["refused"]
    assert status == 2 and "cannot be exported to Hugging Face: its feedforward 'swiglu' has no format" in said
    assert "1/5" not in said and "leave 'export' out" in said


def test_pretrain_says_first_what_cannot_be_exported(outcomes):
    status, said = outcomes["stopped"]
    assert status == 0
    before, _, after = said.partition("compiled the step")
    assert after and before.count("this architecture cannot be exported to Hugging Face") == 1
    assert "after step 2" in after


def test_added_parameter_trains_resumes_evaluates_generates(outcomes, swiglu):
    status, said = outcomes["chain"]
    assert status == 0, said
    assert "resumed at step 2" in said
    assert "the model's own module (the unrolled layers do not know the feedforward 'swiglu')" in said
    assert {path.name for path in (swiglu / "chain").iterdir() if path.is_dir()} == {
        "store",
        "train",
        "evaluation",
        "samples",
    }
    assert outcomes["verify"][0] == 0
    status, said = outcomes["export"]
    assert status == 2 and "its feedforward 'swiglu' has no format" in said and not (swiglu / "huggingface").exists()


DECODES = """
import jax, numpy as np
from apertus_jax.inference import generate_tokens
from apertus_jax.model import ModelConfig, Transformer, init_parameters
from apertus_jax.training.planning.flops import forward_flops_per_sequence
config = ModelConfig(64, 32, 48, 2, 4, 2, init_std=0.3, feedforward="swiglu")
params = init_parameters(config, jax.random.key(0))
tokens = [5, 9, 2]
forward = jax.jit(Transformer(config).apply)
for _ in range(8):
    logits = forward({"params": params}, np.asarray([tokens + [0] * (16 - len(tokens))]))
    tokens.append(int(logits[0, len(tokens) - 1].argmax()))
assert generate_tokens(config, params, [tokens[:3]], max_new_tokens=8) == [tokens[3:]]
params["layers"]["feedforward"]["gate"]["kernel"] *= -1
assert generate_tokens(config, params, [tokens[:3]], max_new_tokens=8) != [tokens[3:]]
plain = forward_flops_per_sequence(ModelConfig(64, 32, 48, 2, 4, 2), 16)
assert forward_flops_per_sequence(config, 16) - plain == 2 * 16 * 2 * 32 * 48
"""


def test_generation_reads_the_added_parameter_and_flops_count_it(swiglu):
    done = run_python(swiglu, DECODES)
    assert done.returncode == 0, done.stderr


EXPORTS = """
import jax, json, numpy as np, safetensors.numpy, sys
from apertus_jax.model import ModelConfig, init_parameters
from apertus_jax.release import save_huggingface
config = ModelConfig(64, 32, 48, 2, 4, 2, feedforward="swiglu")
params = init_parameters(config, jax.random.key(0))
save_huggingface(sys.argv[1], config, params)
tensors = safetensors.numpy.load_file(sys.argv[1] + "/model.safetensors")
assert sum("xielu" in name or "act_fn" in name for name in tensors) == 0
for layer in range(2):
    kernel = params["layers"]["feedforward"]["gate"]["kernel"][layer]
    np.testing.assert_array_equal(tensors[f"model.layers.{layer}.mlp.gate_proj.weight"], kernel.T)
assert json.load(open(sys.argv[1] + "/config.json"))["model_type"] == "apertus_swiglu"
plain = ModelConfig(64, 32, 48, 2, 4, 2)
save_huggingface(sys.argv[1] + "_plain", plain, init_parameters(plain, jax.random.key(0)))
assert json.load(open(sys.argv[1] + "_plain/config.json"))["model_type"] == "apertus"
"""


def test_with_its_rows_the_architecture_is_exported(tmp_path):
    root = patched_copy(tmp_path, "swiglu", "swiglu-export")
    done = run_python(root, EXPORTS, tmp_path / "repository")
    assert done.returncode == 0, done.stderr


KERNEL = """
import jax, jax.numpy as jnp, numpy as np
from apertus_jax.doctor_command import usable_attention
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, attend
from apertus_jax.model.attention import check_attention
keys = jax.random.split(jax.random.key(0), 3)
query, key, value = (jax.random.normal(k, (2, 48, heads, 16)) for k, heads in zip(keys, (4, 2, 2)))
segments = jnp.asarray(np.repeat([[0, 1, 2]], 16, axis=1)) * jnp.ones((2, 1), jnp.int32)
for ids in (None, segments):
    def total(implementation, *heads):
        return jnp.sin(attend(*heads, segment_ids=ids, implementation=implementation, interpret=True)).sum()
    ours, plain = (jax.grad(total, (1, 2, 3))(name, query, key, value) for name in ("cudnn", "xla"))
    for our, their in zip(ours, plain):
        np.testing.assert_allclose(our, their, atol=2e-5)
config = ModelConfig(64, 32, 48, 2, 4, 2, attention_implementation="cudnn")
assert "cudnn" in usable_attention("gpu") and "cudnn" not in usable_attention("cpu")
check_attention("cudnn", 48, 16, platform="gpu")
try:
    attend(query, key, value, implementation="cudnn")
except UserError as error:
    assert "runs on gpu only and this is cpu" in str(error)
else:
    raise AssertionError("ran on cpu")
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.training.planning.plan import _one_device_of_tensor
assert _one_device_of_tensor(config, 1).attention_implementation == "xla_blockwise"
"""


def test_kernel_is_known_everywhere_and_equals_the_plain_one(tmp_path):
    done = run_python(patched_copy(tmp_path, "kernel"), KERNEL)
    assert done.returncode == 0, done.stderr

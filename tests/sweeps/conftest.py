"""A tiny sweep: its gin file, its store, and one that has run to its end."""

import contextlib
import io
from pathlib import Path

import gin
import pytest

from apertus_jax import cli
from tests.tiny_experiment import write_documents

EXPERIMENT = """
pretrain.model = @ModelConfig()
ModelConfig.vocab_size = 368
ModelConfig.hidden_size = 16
ModelConfig.intermediate_size = 16
ModelConfig.num_layers = 1
ModelConfig.num_heads = 1
ModelConfig.num_kv_heads = 1
pretrain.mixture = @Mixture()
RunSchedule.batch_schedule = @BatchSchedule()
BatchSchedule.initial = 8
pretrain.objective = @Objective()
Objective.loss_masks = [@goldfish()]
Objective.num_tiles = 1
goldfish.k = 4
goldfish.h = 8
goldfish.strategy = 'document'
pretrain.optimizer = @adamw
RunSchedule.learning_rate = @constant_schedule()
constant_schedule.peak = 1e-3
RunSchedule.total_steps = 4
pretrain.training = @TrainingConfig()
TrainingConfig.sequence_length = 16
TrainingConfig.log_every = 1
TrainingConfig.checkpoint_every = 1
TrainingConfig.clip_norm = None
"""

VARIED = ("--vary=goldfish.k=3,10", "--vary=TrainingConfig.seed=1,2")


def run_apertus(*arguments) -> tuple[int, str, str]:
    """Runs one command line in this process → exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in arguments])
        finally:
            gin.clear_config()
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Path:
    """A folder with experiment.gin, a run of four steps, and its store."""
    from apertus_jax.data import tokenize

    root = tmp_path_factory.mktemp("bench")
    (root / "experiment.gin").write_text(EXPERIMENT)
    text = write_documents(root / "text.jsonl", 60, seed=1, lengths=(3, 20, 60))
    tokenize({"text": str(text)}, root / "store", vocab_size=360, held_out_fraction=0.1)
    return root


@pytest.fixture(scope="session")
def sweep_line(bench):
    """Returns the words of the command for a folder: two values of k, two seeds."""

    def words(output, *extra, varied=VARIED) -> list[str]:
        return [
            "sweep",
            f"--gin_file={bench / 'experiment.gin'}",
            f"--input={bench / 'store'}",
            f"--output={output}",
            *varied,
            *extra,
        ]

    return words


@pytest.fixture(scope="session")
def finished_sweep(sweep_line, tmp_path_factory):
    """Folder of a sweep that was never interrupted, and what it said. Never written to."""
    folder = tmp_path_factory.mktemp("sweeps") / "finished"
    status, out, err = run_apertus(*sweep_line(folder))
    assert status == 0, err
    return folder, out

"""A tiny experiment for the tests of the command line: a gin file, token stores, and a run that was stopped."""

import dataclasses
import shutil
from pathlib import Path

import gin
import pytest

from apertus_jax import cli
from tests.tiny_experiment import TINY_MODEL, write_documents

EXPERIMENT = (
    TINY_MODEL
    + """
ModelConfig.vocab_size = 512
pretrain.mixture = @Mixture()
RunSchedule.batch_schedule = @BatchSchedule()
BatchSchedule.initial = 8
pretrain.objective = @Objective()
Objective.loss_masks = [@goldfish(), @not_after_eod()]
Objective.num_tiles = 2
goldfish.k = 4
goldfish.h = 8
not_after_eod.eod_id = 2
pretrain.optimizer = @ademamix
RunSchedule.learning_rate = @constant_schedule()
constant_schedule.peak = 1e-3
RunSchedule.total_steps = 4
pretrain.training = @TrainingConfig()
TrainingConfig.sequence_length = 32
TrainingConfig.log_every = 2
TrainingConfig.checkpoint_every = 2
TrainingConfig.clip_norm = 1.0
"""
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended: exit status and what it wrote to the error stream."""

    status: int
    stderr: str

    @property
    def complaint(self) -> str:
        """The one line for people; fails when there is a traceback, or another line that complains."""
        lines = self.stderr.rstrip("\n").splitlines()
        assert self.status == 2, self.stderr
        assert "Traceback" not in self.stderr and "Error" not in lines[-1].partition(":")[0], self.stderr
        assert [line for line in lines if line.startswith("apertus: ")] == lines[-1:], self.stderr
        return lines[-1]


@pytest.fixture
def apertus(capsys):
    """Returns a function that runs a command line in this process and tells how it ended."""

    def call(*arguments) -> Ended:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        return Ended(status, capsys.readouterr().err)

    yield call
    gin.clear_config()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder with experiment.gin, text, and stores: the usual one, and ones that a run must refuse."""
    from apertus_jax.data import tokenize

    root = tmp_path_factory.mktemp("workshop")
    (root / "experiment.gin").write_text(EXPERIMENT)
    text = write_documents(root / "text.jsonl", 60, seed=1, lengths=(3, 20, 60))
    other_text = write_documents(root / "other_text.jsonl", 60, seed=2, lengths=(3, 20, 60))
    tokenize({"text": str(text)}, root / "store", vocab_size=360, held_out_fraction=0.0)
    tokenize({"text": str(text)}, root / "other_tokenizer", vocab_size=340, held_out_fraction=0.0)
    tokenize(
        {"text": str(other_text)},
        root / "rebuilt",
        tokenizer=str(root / "store" / "tokenizer"),
        held_out_fraction=0.0,
    )
    return root


@pytest.fixture
def pretrain(apertus, workshop):
    """Returns a function that runs `apertus pretrain` on the tiny experiment; extra arguments follow."""

    def call(output, *extra, store="store") -> Ended:
        folder = workshop / store if isinstance(store, str) else store
        return apertus(
            "pretrain", f"--gin_file={workshop / 'experiment.gin'}", f"--input={folder}", f"--output={output}", *extra
        )

    return call


@pytest.fixture(scope="session")
def finished_run(workshop, tmp_path_factory):
    """A run of four steps, with checkpoints of steps 2 and 4. Never written to: tests take a copy."""
    output = tmp_path_factory.mktemp("finished") / "run"
    status = cli.main(
        [
            "pretrain",
            f"--gin_file={workshop / 'experiment.gin'}",
            f"--input={workshop / 'store'}",
            f"--output={output}",
        ]
    )
    assert status == 0
    return output


@pytest.fixture
def run_copy(finished_run, tmp_path):
    """A copy of the finished run that a test may do anything to."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def content(folder):
    """Returns every file of a run folder with its bytes, the lease left out: it names the last process."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "LEASE.json"
    }

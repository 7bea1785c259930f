"""A tiny chain from documents to generated text, run once."""

import pytest

from apertus_jax.cli import main
from tests.training.conftest import write_documents

TINY = """
run.output = '{root}/chain'
tokenize.documents = '{root}/documents.jsonl'
tokenize.vocab_size = 384
tokenize.held_out_fraction = 0.1
pretrain.model = @ModelConfig()
pretrain.mixture = @Mixture()
pretrain.objective = @Objective()
Objective.loss_masks = [@goldfish(), @not_after_eod()]
not_after_eod.eod_id = 2
pretrain.optimizer = @adamw
pretrain.learning_rate = 1e-3
pretrain.total_steps = 4
pretrain.batch_schedule = @BatchSchedule()
BatchSchedule.initial = 8
pretrain.training = @TrainingConfig()
TrainingConfig.sequence_length = 32
ModelConfig.vocab_size = 384
ModelConfig.hidden_size = 32
ModelConfig.intermediate_size = 64
ModelConfig.num_layers = 2
ModelConfig.num_heads = 4
ModelConfig.num_kv_heads = 2
evaluate.sequence_length = 32
generate.prompts = ['sun']
generate.max_new_tokens = 4
"""


@pytest.fixture(scope="session")
def gin_file(tmp_path_factory):
    """The gin file of the chain; its output lies beside it in `chain`."""
    root = tmp_path_factory.mktemp("chain")
    write_documents(root / "documents.jsonl", 150, seed=5)
    (root / "tiny.gin").write_text(TINY.format(root=root))
    assert main(["run", f"--gin_file={root / 'tiny.gin'}"]) == 0
    return root / "tiny.gin"

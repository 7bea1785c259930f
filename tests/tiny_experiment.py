"""The smallest Apertus that tests of commands train, as gin lines, and the documents that it reads."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

WORDS = ("sun", "moon", "river", "stone", "bread", "salt", "wind", "horse", "hand", "word", "door", "light", "water")

TINY_MODEL = """
pretrain.model = @ModelConfig()
ModelConfig.hidden_size = 32
ModelConfig.intermediate_size = 64
ModelConfig.num_layers = 2
ModelConfig.num_heads = 4
ModelConfig.num_kv_heads = 2
"""
# A chain of a few seconds around it, for `.format(root=folder)`.
TINY_CHAIN = """
run.output = '{root}/chain'
tokenize.documents = '{root}/documents.jsonl'
tokenize.vocab_size = 384
tokenize.held_out_fraction = 0.1
pretrain.mixture = @Mixture()
pretrain.objective = @Objective()
pretrain.optimizer = @adamw
RunSchedule.learning_rate = 1e-3
RunSchedule.total_steps = 4
RunSchedule.batch_schedule = @BatchSchedule()
BatchSchedule.initial = 8
pretrain.training = @TrainingConfig()
TrainingConfig.sequence_length = 32
ModelConfig.vocab_size = 384
evaluate.sequence_length = 32
generate.prompts = ['sun']
generate.max_new_tokens = 4
"""


def write_documents(path: Path, count: int, seed: int, lengths: Sequence[int] = (3, 8, 20, 60, 150)) -> Path:
    """Writes invented documents of very different lengths, in words, as JSONL; returns the file."""
    generator = random.Random(seed)
    with path.open("w") as file:
        for number in range(count):
            text = " ".join(generator.choices(WORDS, k=generator.choice(lengths))) + "."
            file.write(json.dumps({"id": f"{seed}-{number}", "text": text, "language": "eng_Latn"}) + "\n")
    return path

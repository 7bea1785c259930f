"""A small token store and a small run, shared by the tests of the training room."""

import json
import random

import pytest

WORDS = "sun moon river stone bread salt wind horse hand word door light water tree bird song".split()


def write_documents(path, count, seed):
    """Writes invented documents of very different lengths as JSONL."""
    generator = random.Random(seed)
    with path.open("w") as file:
        for number in range(count):
            text = " ".join(generator.choices(WORDS, k=generator.choice([3, 8, 20, 60, 150]))) + "."
            file.write(json.dumps({"id": f"{seed}-{number}", "text": text, "language": "eng_Latn"}) + "\n")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Folder of a token store with two sources and a held-out part."""
    from apertus_jax.data import tokenize

    root = tmp_path_factory.mktemp("store")
    write_documents(root / "one.jsonl", 120, seed=1)
    write_documents(root / "two.jsonl", 80, seed=2)
    tokenize(
        {"one": str(root / "one.jsonl"), "two": str(root / "two.jsonl")},
        root / "store",
        vocab_size=384,
        held_out_fraction=0.1,
    )
    return root / "store"


@pytest.fixture(scope="session")
def small_run(store):
    """Returns a function that trains a tiny model and returns the summary; keyword arguments override."""

    def start(output, **overrides):
        from apertus_jax.data import BatchSchedule, Mixture, MixtureStage
        from apertus_jax.model import ModelConfig
        from apertus_jax.objectives import goldfish, not_after_eod
        from apertus_jax.optimization import ademamix, wsd_schedule
        from apertus_jax.sharding import MeshConfig
        from apertus_jax.training import Objective, TrainingConfig, pretrain

        training = {
            "sequence_length": 32,
            "log_every": 4,
            "checkpoint_every": 5,
            "clip_norm": 1.0,
            "accumulation": 1,
            **overrides.pop("training", {}),
        }
        arguments = {
            "store": str(store),
            "output": str(output),
            "model": ModelConfig(512, 32, 64, 2, 4, 2),
            "mixture": Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})]),
            "batch_schedule": BatchSchedule(8),
            "objective": Objective([goldfish(k=4, h=8), not_after_eod(2)], num_tiles=2),
            "optimizer": ademamix,
            "learning_rate": wsd_schedule(1e-2, 16, 160, 40),
            "total_steps": 12,
            "mesh": MeshConfig(),
            "training": TrainingConfig(**training),
            **overrides,
        }
        return pretrain(**arguments)

    return start

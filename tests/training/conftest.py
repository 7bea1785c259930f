"""A small token store and a small run, shared by the tests of training."""

import pytest

from tests.tiny_experiment import write_documents


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
def finished_run(store, tmp_path_factory):
    """Folder of an uninterrupted tiny run on eight fake devices that keeps every checkpoint."""
    from tests.training.small_run import small_run

    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert small_run(store, folder, training={"keep_last": 9})["finished"]
    return folder

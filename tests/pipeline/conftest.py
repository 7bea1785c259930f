"""A tiny chain from documents to generated text, run once."""

import pytest

from apertus_jax.cli import main
from tests.tiny_experiment import TINY_CHAIN, TINY_MODEL, write_documents

TINY = (
    TINY_MODEL
    + TINY_CHAIN
    + """
Objective.loss_masks = [@goldfish(), @not_after_eod()]
not_after_eod.eod_id = 2
"""
)


@pytest.fixture(scope="session")
def planned_chain(tmp_path_factory):
    """The gin file of a chain that nobody has run, and its documents beside it."""
    root = tmp_path_factory.mktemp("chain")
    write_documents(root / "documents.jsonl", 150, seed=5)
    (root / "tiny.gin").write_text(TINY.format(root=root))
    return root / "tiny.gin"


@pytest.fixture(scope="session")
def gin_file(planned_chain):
    """The gin file of the chain; its output lies beside it in `chain`."""
    assert main(["run", f"--gin_file={planned_chain}"]) == 0
    return planned_chain

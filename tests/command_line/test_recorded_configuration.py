"""Every output folder says how it was made, in a file that makes it again."""

import json

import pytest

from apertus_jax import __version__
from apertus_jax.cli import COMMANDS, main
from apertus_jax.configuration import OPERATIVE_CONFIG
from tests.tiny_experiment import write_documents


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    write_documents(folder / "documents.jsonl", 60, seed=3)
    (folder / "mine.gin").write_text("SEED = 7\ntokenize.seed = %SEED\ntokenize.held_out_fraction = 0.1\n")
    arguments = [f"--gin_file={folder / 'mine.gin'}", "--gin.tokenize.vocab_size=384"]
    assert main(["tokenize", f"--input={folder / 'documents.jsonl'}", f"--output={folder / 'store'}", *arguments]) == 0
    return folder


def digest(folder):
    return json.loads((folder / "COMMITTED.json").read_text())["digest"]


def test_version_seed_flags_and_defaults_are_recorded(made):
    lines = (made / "store" / OPERATIVE_CONFIG).read_text().splitlines()
    assert lines[0] == f"# apertus_jax {__version__}: tokenize"
    assert {"SEED = 7", "tokenize.seed = %SEED", "tokenize.vocab_size = 384", "tokenize.tokenizer = 'bpe'"} <= set(
        lines
    )
    assert f"tokenize.documents = '{made / 'documents.jsonl'}'" in lines


def test_recorded_configuration_makes_the_same_again(made):
    config = made / "store" / OPERATIVE_CONFIG
    assert main(["tokenize", f"--gin_file={config}", f"--output={made / 'again'}"]) == 0
    assert digest(made / "again") == digest(made / "store")


def test_doing_it_again_leaves_the_record_alone(made):
    path = made / "store" / OPERATIVE_CONFIG
    before = path.stat().st_mtime_ns
    assert main(["tokenize", f"--gin_file={path}"]) == 0
    assert path.stat().st_mtime_ns == before


def test_a_command_that_failed_records_nothing(made, capsys):
    assert main(["tokenize", f"--input={made / 'none.jsonl'}", f"--output={made / 'failed'}"]) == 2
    assert not (made / "failed").exists()


def test_only_commands_with_a_record_of_their_own_keep_none():
    own = {name for name, command in COMMANDS.items() if "output" in command.flags and command.records_itself}
    assert own == {"run", "reproduce", "prepare", "pretrain", "sweep"}

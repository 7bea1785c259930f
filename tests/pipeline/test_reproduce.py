"""`reproduce`: the same chain gives the same bytes, and what does not is named."""

import json
import shutil

import pytest

from apertus_jax.cli import main


@pytest.fixture
def chain(gin_file):
    """The output of the chain."""
    return gin_file.parent / "chain"


def test_the_chain_done_again_gives_the_same_files(chain, tmp_path, capsys, caplog):
    with caplog.at_level("INFO"):
        assert main(["reproduce", f"--input={chain}", f"--output={tmp_path / 'again'}"]) == 0
    shown = capsys.readouterr().out
    assert any(
        line.endswith(f"lets this read, beside it: {chain.parent / 'documents.jsonl'}") for line in caplog.messages
    )
    for name in ("store", "train/model", "evaluation", "huggingface", "samples"):
        assert name in shown
    first = json.loads((chain / "train" / "model" / "COMMITTED.json").read_text())
    again = json.loads((tmp_path / "again" / "train" / "model" / "COMMITTED.json").read_text())
    assert first["files"] == again["files"]
    assert not (tmp_path / "again" / "store").samefile(chain / "store")


def test_what_comes_out_differently_is_named(chain, tmp_path, capsys):
    arguments = ["reproduce", f"--input={chain}", f"--output={tmp_path / 'again'}", "--gin.TrainingConfig.seed=5"]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "came out differently, first evaluation/" in captured.err
    assert len(captured.err.strip().splitlines()[-1:]) == 1
    assert "model.safetensors" in captured.out


def test_a_changed_original_is_found_out(chain, tmp_path, capsys):
    copy = shutil.copytree(chain, tmp_path / "copy")
    manifest = json.loads((copy / "samples" / "COMMITTED.json").read_text())
    [name] = [name for name in manifest["files"] if name.endswith(".jsonl")]
    manifest["files"][name]["digest"] = "0" * 32
    (copy / "samples" / "COMMITTED.json").write_text(json.dumps(manifest))
    assert main(["reproduce", f"--input={copy}", f"--output={tmp_path / 'again'}"]) == 2
    assert "COMMITTED.json has changed since it was written" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_what_cannot_be_reproduced_is_refused(chain, tmp_path, capsys):
    assert main(["reproduce", f"--input={chain}", f"--output={chain}"]) == 2
    assert main(["reproduce", f"--input={chain}"]) == 2
    assert capsys.readouterr().err.count("give another folder as --output") == 2
    assert main(["reproduce", f"--input={tmp_path}", f"--output={tmp_path / 'again'}"]) == 2
    assert "operative_config.gin does not exist" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()

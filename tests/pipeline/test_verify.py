"""`verify` finds what was changed, whoever remade the digests, names it, and changes nothing itself."""

import json
import os
import shutil
import stat

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy

from apertus_jax.cli import main
from apertus_jax.data.store.token_blocks import BlockDigests
from apertus_jax.errors import UserError
from apertus_jax.pipeline.verify_command import VERIFIERS, verify
from tests.remade_digests import remake


@pytest.fixture(scope="module")
def pristine(gin_file):
    return gin_file.parent / "chain"


@pytest.fixture
def chain(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "chain")


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_whole_chain_is_whole_and_untouched(chain, capsys):
    before = tree(chain)
    for path in [chain, *chain.rglob("*")]:
        path.chmod(stat.S_IREAD | (stat.S_IEXEC if path.is_dir() else 0))
    assert main(["verify", str(chain)]) == 0
    assert tree(chain) == before
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("whole: ")
    for path in [chain, *chain.rglob("*")]:
        path.chmod(stat.S_IRWXU)


def test_result_for_scripts_is_one_json_object(pristine, chain, capsys):
    assert main(["verify", str(pristine / "store"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["whole"] and result["damage"] is None
    assert {"digests", "tokenizer", "source documents"} <= {row["what"] for row in result["checked"]}
    (chain / "store" / "tokenizer" / "tokenizer.json").unlink()
    assert main(["verify", str(chain / "store"), "--json"]) == 2
    shown = capsys.readouterr()
    assert not json.loads(shown.out)["whole"]
    assert shown.err.strip().splitlines()[-1].startswith("apertus: ") and "tokenizer.json is missing" in shown.err


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = [
    "store/sources/documents/tokens.bin",
    "store/sources/documents/tokens.idx",
    "store/sources/documents/tokens.blocks",
    "store/sources/documents/documents.parquet",
    "store/tokenizer/tokenizer.json",
    "store/COMMITTED.json",
    "train/model/parameters.safetensors",
    "train/model/config.json",
    "huggingface/model.safetensors",
    "evaluation/results.json",
    "samples/generations.jsonl",
]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-9]), os.unlink])
def test_damaged_file_is_named(chain, file, damage):
    damage(chain / file)
    name = file.rpartition("/")[2] if damage is not os.unlink or "COMMITTED" not in file else file.partition("/")[0]
    with pytest.raises(UserError, match=name) as caught:
        verify(str(chain / file.partition("/")[0]))
    assert "\n" not in str(caught.value)


def test_damaged_checkpoint_is_named(chain):
    [step] = sorted((chain / "train" / "checkpoints").iterdir())[-1:]
    path = max((step / "state").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    flip(path)
    with pytest.raises(UserError, match=f"{path.name} has changed"):
        verify(str(chain / "train"))
    with pytest.raises(UserError, match=f"{path.name} has changed"):
        verify(str(step))


def test_added_file_is_named(chain):
    (chain / "store" / "sources" / "documents" / "tokens.extra").write_text("x")
    with pytest.raises(UserError, match="tokens.extra was added"):
        verify(str(chain / "store"))


def set_token(folder, place, value):
    path = folder / "sources" / "documents" / "tokens.bin"
    tokens = np.fromfile(path, "<u2")
    tokens[place] = value
    tokens.tofile(path)
    digests = BlockDigests()
    digests.update(path.read_bytes())
    path.with_suffix(".blocks").write_bytes(digests.finish())


def set_table(folder, **columns):
    path = folder / "sources" / "documents" / "documents.parquet"
    table = pyarrow.parquet.read_table(path)
    for name, change in columns.items():
        place = table.column_names.index(name)
        values = table[name].to_pylist()
        values[0] = change(values[0])
        table = table.set_column(place, table.schema.field(name), pyarrow.array(values, table.schema.field(name).type))
    pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda store: set_token(store, 5, 384), "token id 384 at token 5"),
        (lambda store: set_token(store, 0, 7), "document 0 does not begin"),
        (lambda store: set_token(store, -1, 7), "does not end"),
        (lambda store: set_table(store, tokens=lambda count: count + 1), "another number of tokens"),
        (lambda store: set_table(store, document_key=lambda key: key ^ 1), "row 1: the key"),
        (lambda store: set_table(store, utf8_bytes=lambda count: count + 1), "utf8_bytes add up"),
        (lambda store: set_table(store, language=lambda label: "deu_Latn"), "of each language"),
    ],
)
def test_store_with_digests_remade_is_still_found_out(chain, change, words):
    change(chain / "store")
    remake(chain / "store")
    with pytest.raises(UserError, match=words):
        verify(str(chain / "store"))


def set_weights(folder, name, value, stem):
    path = folder / f"{stem}.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors[name].flat[3] = value
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_not_finite_are_found_with_digests_remade(chain, value):
    set_weights(chain / "train" / "model", "lm_head/kernel", value, "parameters")
    remake(chain / "train" / "model")
    with pytest.raises(UserError, match="lm_head/kernel"):
        verify(str(chain / "train"))
    set_weights(chain / "huggingface", "lm_head.weight", value, "model")
    remake(chain / "huggingface")
    with pytest.raises(UserError, match="lm_head.weight"):
        verify(str(chain / "huggingface"))


def test_checkpoint_of_another_model_is_named(chain):
    config = chain / "train" / "model" / "config.json"
    values = json.loads(config.read_text()) | {"intermediate_size": 128}
    config.write_text(json.dumps(values))
    with pytest.raises(UserError, match="of another model"):
        verify(str(chain / "train"))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", "{}", "lacks 'identity'"),
        ("run.json", "[" * 9999, "run.json"),
        ("metrics.jsonl", '{"step": 4}\n{"step": 2}\n', "line 2: step 2 comes after 4"),
        ("metrics.jsonl", '{"loss": 4}\n', "lacks 'step'"),
        ("finished.json", '{"step": "four", "finished": true}', "step = 'four'"),
    ],
)
def test_records_of_a_run_are_read(chain, file, content, words):
    (chain / "train" / file).write_text(content)
    with pytest.raises(UserError, match=words):
        verify(str(chain / "train"))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("x"), lambda path: path.mkdir()])
def test_what_is_no_folder_of_ours_is_one_line(tmp_path, make, capsys):
    make(tmp_path / "place")
    assert main(["verify", str(tmp_path / "place")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_every_verifier_is_there():
    import importlib

    for location in VERIFIERS.values():
        module, _, name = location.partition(":")
        assert callable(getattr(importlib.import_module(module), name))

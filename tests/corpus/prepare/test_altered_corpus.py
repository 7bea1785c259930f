"""A prepared corpus that was changed after its commit is believed by no reader of it."""

import json
import shutil

import pyarrow.parquet
import pytest

from apertus_jax.corpus.documents import Document, write_documents
from apertus_jax.corpus.ledger import why
from apertus_jax.corpus.prepared_parts import checked_parts
from apertus_jax.data import tokenize
from apertus_jax.errors import UserError
from apertus_jax.pipeline.verify_command import verify
from apertus_jax.storage import artifacts


@pytest.fixture
def prepared(tmp_path):
    """A corpus of one part and three documents, two of them kept, as `prepare` commits it."""
    root = tmp_path / "prepared"
    part = root / "parts" / "000000"
    part.mkdir(parents=True)
    texts = {f"{number:032x}": f"text number {number} " * 9 for number in range(2)}
    write_documents(part / "documents.parquet", [Document(each, text, "web") for each, text in texts.items()])
    write_ledger(part, texts)
    empty = {name: pyarrow.array([], pyarrow.string()) for name in ("source", "file", "row", "reason", "detail")}
    pyarrow.parquet.write_table(pyarrow.table(empty), part / "quarantine.parquet")
    commit(root)
    return root


def write_ledger(part, texts, **changes):
    import hashlib

    told = dict.fromkeys(("url", "url_digest", "kept_id", "policy", "authority", "robots_verdict", "detail"), "")
    told |= {"source": "web", "file": "a.jsonl", "row": 7, "content_evaluated": False}
    rows = [
        {**told, "document_id": each, "decision": "keep", "reason": "", "utf8_bytes_out": len(text)}
        | {"text_sha256_out": hashlib.sha256(text.encode()).hexdigest()}
        for each, text in texts.items()
    ]
    dropped = {"document_id": "f" * 32, "decision": "drop", "reason": "robots", "text_sha256_out": ""}
    rows.append(told | dropped | {"utf8_bytes_out": 0} | changes)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), part / "ledger.parquet")


def commit(root):
    part = artifacts.commit(root / "parts" / "000000", "prepared_part", {}, {})
    summary = {"documents": 3, "kept": 2, "quarantined": 0, "parts": {"000000": part["digest"]}}
    artifacts.commit(root, "prepared_corpus", {}, summary, without=("parts",))


def alter_text(prepared):
    path = prepared / "parts" / "000000" / "documents.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[0]["text"] = "something else that nobody permitted " * 5
    write_documents(path, [Document(**row) for row in rows])


def rewrite_ledger(prepared, **changes):
    part = prepared / "parts" / "000000"
    rows = pyarrow.parquet.read_table(part / "documents.parquet").to_pylist()
    write_ledger(part, {row["document_id"]: row["text"] for row in rows}, **changes)


def read(prepared, tmp_path):
    tokenize(str(prepared), tmp_path / "store", vocab_size=384, held_out_fraction=0, progress=False)


def test_sound_corpus_is_read(prepared, tmp_path):
    read(prepared, tmp_path)
    assert why(prepared, "f" * 32)[0]["reason"] == "robots"
    assert {row["what"] for row in verify(str(prepared))} >= {"ledger and documents"}


def test_altered_documents_are_not_tokenized(prepared, tmp_path):
    alter_text(prepared)
    with pytest.raises(UserError, match="documents.parquet has"):
        read(prepared, tmp_path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["documents.parquet", "ledger.parquet"])
def test_one_flipped_byte_is_named_by_its_reader(prepared, tmp_path, name):
    path = prepared / "parts" / "000000" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name} has changed since it was committed"):
        read(prepared, tmp_path) if name == "documents.parquet" else why(prepared, "f" * 32)


def test_added_part_is_not_tokenized(prepared, tmp_path):
    shutil.copytree(prepared / "parts" / "000000", prepared / "parts" / "000001")
    with pytest.raises(UserError, match="000001 is no part of the corpus"):
        read(prepared, tmp_path)


def test_part_committed_again_by_a_stranger_is_refused(prepared, tmp_path):
    alter_text(prepared)
    artifacts.commit(prepared / "parts" / "000000", "prepared_part", {}, {"more": 1})
    with pytest.raises(UserError, match="is not the part that"):
        read(prepared, tmp_path)


def test_rewritten_ledger_is_not_believed_by_why(prepared):
    rewrite_ledger(prepared, reason="", decision="keep")
    with pytest.raises(UserError, match="ledger.parquet has"):
        why(prepared, "f" * 32)
    with pytest.raises(UserError, match="ledger.parquet has"):
        why(prepared, "e" * 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (alter_text, "is not kept by the ledger with this text"),
        (lambda prepared: rewrite_ledger(prepared, decision="keep"), "contradict"),
        (lambda prepared: rewrite_ledger(prepared, decision="keep", reason=""), "2 rows where the ledger keeps 3"),
        (lambda prepared: rewrite_ledger(prepared, document_id="me"), "is no identity"),
    ],
)
def test_corpus_with_digests_remade_is_found_out(prepared, change, words):
    change(prepared)
    commit(prepared)
    with pytest.raises(UserError, match=words):
        verify(str(prepared))


@pytest.mark.parametrize("parts", [None, [], {"../../x": "0" * 32}, {"000000": 5}, {"000007": "0" * 32}])
def test_marker_with_other_parts_is_one_line(prepared, parts):
    summary = json.loads((prepared / artifacts.COMMIT_MARKER).read_text())["summary"] | {"parts": parts}
    artifacts.commit(prepared, "prepared_corpus", {}, summary, without=("parts",))
    with pytest.raises(UserError) as caught:
        checked_parts(prepared)
    assert "\n" not in str(caught.value)

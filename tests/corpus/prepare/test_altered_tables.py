"""Tables with columns of other kinds, whoever remade the digests, are one line in every reader."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from apertus_jax.corpus.ledger.why_command import why
from apertus_jax.corpus.removal.remove_command import remove
from apertus_jax.corpus.removal.tombstones import Tombstones, index_schema
from apertus_jax.corpus.robots_snapshot.reader import RobotsSnapshot
from apertus_jax.corpus.robots_snapshot.responses import RobotsRecord
from apertus_jax.corpus.robots_snapshot.table import KIND, TableWriter
from apertus_jax.errors import UserError
from apertus_jax.pipeline.verify_command import verify
from apertus_jax.storage import artifacts
from apertus_jax.storage.parquet_columns import require_columns, require_values
from tests.corpus.prepare.test_altered_corpus import prepared  # noqa: F401
from tests.corpus.removal.test_removal_requests import request, write_requests
from tests.remade_digests import remake

ALTERATIONS = {
    "text": lambda rows: pyarrow.array(["\x1b[31m"] * rows),
    "number": lambda rows: pyarrow.array([7] * rows, pyarrow.int64()),
    "huge": lambda rows: pyarrow.array([2**62] * rows, pyarrow.int64()),
    "not a number": lambda rows: pyarrow.array([float("nan")] * rows),
    "bytes": lambda rows: pyarrow.array([b"\xff"] * rows, pyarrow.binary()),
    "list": lambda rows: pyarrow.array([["a"]] * rows),
    "dictionary": lambda rows: pyarrow.array(["x"] * rows).dictionary_encode(),
}


def alter(path, column, make):
    table = pyarrow.parquet.read_table(path)
    values = None if make is None else make(table.num_rows)
    table = table.drop_columns([column] if column in table.schema.names else [])
    table = table if values is None else table.append_column(column, values)
    pyarrow.parquet.write_table(table, path)


@pytest.fixture
def snapshot(tmp_path):
    """A snapshot of three hosts."""
    folder = tmp_path / "robots"
    body = b"User-agent: *\nDisallow: /x\n"
    hosts = (f"host-{number}.example" for number in range(3))
    records = [RobotsRecord(host, "https", 1_700_000_000, 200, (), "", body, False, "") for host in hosts]
    with artifacts.build(folder, KIND, {}) as build:
        TableWriter(build.path, rows_per_group=2).write(records)
        build.summary.update(as_of="2023-11-14T22:13:20Z", hosts=3)
    return folder


def test_snapshot_that_was_not_altered_is_read(snapshot):
    assert RobotsSnapshot(snapshot).record("host-2.example", "https").http_status == 200


@pytest.mark.parametrize("make", [*ALTERATIONS.values(), None], ids=[*ALTERATIONS, "missing"])
@pytest.mark.parametrize(
    ("file", "column"),
    [("index.parquet", "part"), ("index.parquet", "scheme"), ("robots-00000.parquet", "http_status")],
)
def test_altered_snapshot_is_refused_in_one_line(snapshot, file, column, make):
    before = pyarrow.parquet.read_schema(snapshot / file)
    alter(snapshot / file, column, make)
    if make and pyarrow.parquet.read_schema(snapshot / file).field(column).type == before.field(column).type:
        pytest.skip("a value of the right kind")
    remake(snapshot)
    with pytest.raises(UserError, match=column):
        RobotsSnapshot(snapshot).record("host-1.example", "https")


def test_index_without_values_is_refused_in_one_line(snapshot):
    alter(snapshot / "index.parquet", "scheme", lambda rows: pyarrow.nulls(rows, pyarrow.string()))
    remake(snapshot)
    with pytest.raises(UserError, match="scheme has rows without a value"):
        RobotsSnapshot(snapshot)


@pytest.mark.parametrize("make", [*ALTERATIONS.values(), None], ids=[*ALTERATIONS, "missing"])
@pytest.mark.parametrize("column", ["reason", "signals", "url_digest"])
def test_altered_ledger_is_told_or_shown_by_why(prepared, column, make):  # noqa: F811
    part = next((prepared / "parts").glob("0*"))
    identity = pyarrow.parquet.read_table(part / "ledger.parquet")["document_id"][0].as_py()
    alter(part / "ledger.parquet", column, make)
    remake(part)
    digest = json.loads((part / artifacts.COMMIT_MARKER).read_text())["digest"]
    remake(prepared, parts={part.name: digest})
    for read in (lambda: why(prepared, identity), lambda: verify(prepared)):
        try:
            read()
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("value", [10**30, "x", None, [1]])
def test_strange_summary_is_told_by_why(prepared, value):  # noqa: F811
    part = next((prepared / "parts").glob("0*"))
    identity = pyarrow.parquet.read_table(part / "ledger.parquet")["document_id"][0].as_py()
    remake(prepared, not_asked=value)
    try:
        why(prepared, identity)
    except UserError as error:
        assert str(prepared) in str(error)


@pytest.mark.parametrize("make", [*ALTERATIONS.values(), None], ids=[*ALTERATIONS, "missing"])
@pytest.mark.parametrize("column", ["key_high", "effective_day", "request", "prefix_length"])
def test_altered_tombstones_are_refused_in_one_line(tmp_path, column, make):
    write_requests(tmp_path / "requests.jsonl", [json.dumps(request()).encode()])
    remove(tmp_path / "requests.jsonl", tmp_path / "tombstones")
    path = tmp_path / "tombstones" / "tombstones.parquet"
    alter(path, column, make)
    if make and pyarrow.parquet.read_schema(path).field(column).type == index_schema().field(column).type:
        pytest.skip("a value of the right kind")
    remake(tmp_path / "tombstones")
    with pytest.raises(UserError, match=column):
        Tombstones.open(tmp_path / "tombstones")


def test_columns_are_compared_by_name_and_type():
    wanted = pyarrow.schema([("a", pyarrow.int64()), ("b", pyarrow.string())])
    table = pyarrow.table({"b": ["x", None], "extra": [1, 2], "a": [1, 2]})
    require_columns(table.schema, wanted, "t")
    require_values(table, ["a"], "t")
    for found in (pyarrow.schema([("a", pyarrow.int64())]), pyarrow.schema([*wanted][:1] + [("b", pyarrow.binary())])):
        with pytest.raises(UserError, match="t.* b"):
            require_columns(found, wanted, "t")
    with pytest.raises(UserError, match="column b"):
        require_values(table, ["b"], "t")

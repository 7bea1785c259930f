"""`verify` reads tombstones, robots snapshots, output filters and probes, whoever remade the digests."""

import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest

from apertus_jax.corpus.removal import remove
from apertus_jax.corpus.robots_snapshot import build_robots_snapshot
from apertus_jax.data.probes.plant_probes_command import plant
from apertus_jax.errors import UserError
from apertus_jax.pipeline.verify_command import verify
from apertus_jax.release.output_filter import FilterRates, build_output_filter, new_signing_key
from tests.corpus.removal.test_removal_requests import request, write_requests
from tests.remade_digests import remake


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    requests = [
        request(id=f"R-{number}", scope="url_prefix", value=f"https://site.example/{number}") for number in range(4)
    ]
    remove(write_requests(root / "requests.jsonl", requests), root / "tombstones")
    (root / "files").mkdir()
    for host in ("a.example", "b.example", "c.example"):
        (root / "files" / f"{host}.txt").write_text(f"User-agent: *\nDisallow: /{host}\n")
    build_robots_snapshot(root / "files", root / "robots", "2025-01-31")
    new_signing_key(root / "private.pem", root / "public.pem")
    (root / "listed.jsonl").write_text(json.dumps({"text": "word " * 60}) + "\n")
    build_output_filter(
        str(root / "listed.jsonl"),
        root / "filter",
        str(root / "private.pem"),
        "2026-11-24",
        rates=FilterRates(scrypt_n=16),
    )
    return root


@pytest.fixture
def records(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "records")


def set_column(path, name, values, kind=None):
    table = pyarrow.parquet.read_table(path)
    place = table.column_names.index(name)
    column = pyarrow.array(values, kind or table.schema.field(name).type)
    pyarrow.parquet.write_table(table.set_column(place, name, column), path)


@pytest.mark.parametrize("name", ["tombstones", "robots", "filter"])
def test_sound_records_are_whole(records, name):
    assert len(verify(str(records / name))) >= 3


@pytest.mark.parametrize(
    ("file", "column", "values", "words"),
    [
        ("tombstones/tombstones.parquet", "key_high", [9, 5, 4, 3], "out of order"),
        ("tombstones/tombstones.parquet", "effective_day", [0, 1, 2, 3], "its day is none"),
        ("tombstones/tombstones.parquet", "effective_day", [None] * 4, "values of another kind"),
        ("tombstones/tombstones.parquet", "request", ["X"] * 4, "no request of this id"),
        ("robots/robots-00000.parquet", "body", [b"x", b"y", b"z"], "is not what was captured"),
        ("robots/robots-00000.parquet", "authority", ["c", "b", "a"], "out of order"),
        ("robots/robots-00000.parquet", "authority", [None, None, None], "values of another kind"),
        ("robots/index.parquet", "part", [7], "does not lead to the table"),
    ],
)
def test_tables_with_digests_remade_are_found_out(records, file, column, values, words):
    set_column(records / file, column, values)
    folder = records / file.partition("/")[0]
    remake(folder)
    with pytest.raises(UserError, match=words) as caught:
        verify(str(folder))
    assert "\n" not in str(caught.value)


def test_half_a_parquet_file_is_named(records):
    path = records / "robots" / "index.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    remake(records / "robots")
    with pytest.raises(UserError, match="index.parquet is not readable as Parquet"):
        verify(str(records / "robots"))


@pytest.mark.parametrize("place", [40, -100, -1])
def test_filter_with_digests_remade_is_not_signed(records, place):
    path = records / "filter" / "output_filter.bin"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    remake(records / "filter")
    with pytest.raises(UserError, match="output_filter.bin"):
        verify(str(records / "filter"))


def test_planted_probes_are_read_as_documents(tmp_path):
    rows = [{"id": str(number), "text": f"the river of stone {number} and light " * 150} for number in range(40)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plant(str(tmp_path / "texts.jsonl"), tmp_path / "probes", per_bucket=2)
    assert any(row["what"] == "documents" for row in verify(str(tmp_path / "probes")))
    path = tmp_path / "probes" / "documents.jsonl"
    path.write_text(path.read_text().replace('"text"', '"texts"'))
    remake(tmp_path / "probes")
    with pytest.raises(UserError, match="documents.jsonl, row 1"):
        verify(str(tmp_path / "probes"))

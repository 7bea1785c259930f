"""Whatever a row says about consent is heard, in any column, spelling and form; the strictest of it wins."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apertus_jax.corpus.licences import LicenceRule, LicenceScoring
from apertus_jax.corpus.signals import SignalRule, SignalScoring
from apertus_jax.corpus.sources.quarantine import QuarantineReason, Unusable
from apertus_jax.corpus.sources.rows import make_document
from apertus_jax.corpus.sources.source import Source
from tests.corpus.sources.test_sources_quarantine import read

NC = "https://creativecommons.org/licenses/by-nc/4.0/"


def document_of(row, **options):
    return make_document(Source("web", "x", **options), "a.jsonl", 1, "2026-01-01", {"text": "Text.", **row})


def class_of(document):
    (row,) = LicenceScoring().build().score([document])
    verdict = LicenceRule().verdict({"source": "web", **row}, {})
    return row["licence_class"], verdict is None


RESTRICTED_BESIDE_PERMISSIVE = {
    "in the other spelling": {"licence": "MIT", "license": "CC-BY-NC-4.0"},
    "in the first spelling": {"license": "MIT", "licence": "CC-BY-NC-4.0"},
    "in a list": {"license": ["MIT", "CC-BY-NC-4.0"]},
    "in a plural": {"license": "MIT", "licenses": ["CC-BY-NC-4.0"]},
    "in an address": {"license": "MIT", "license_url": NC},
    "in a name": {"license": "MIT", "license_name": "CC BY-NC 4.0"},
    "in a link": {"license": "MIT", "license_link": NC},
    "in an object": {"license": {"type": "MIT", "url": NC}},
    "in a list of objects": {"licenses": [{"type": "MIT"}, {"type": "CC-BY-NC-4.0"}]},
    "in capital letters": {"license": "MIT", "License": "CC-BY-NC-4.0"},
    "with a dash": {"license": "MIT", "License-URL": NC},
    "in metadata": {"license": "MIT", "metadata": {"license": "CC-BY-NC-4.0"}},
    "in metadata as text": {"license": "MIT", "metadata": json.dumps({"license": "CC-BY-NC-4.0"})},
    "in metadata as pairs": {"license": "MIT", "metadata": [("license", "CC-BY-NC-4.0")]},
    "in links": {"license": "MIT", "licence_links": [NC]},
}


@pytest.mark.parametrize("where", RESTRICTED_BESIDE_PERMISSIVE)
def test_a_restriction_beside_a_licence_is_heard(where):
    assert class_of(document_of(RESTRICTED_BESIDE_PERMISSIVE[where])) == ("nc_nd", False)


@pytest.mark.parametrize(
    "row",
    [{"licence": "MIT", "license": "MIT"}, {"license": ["MIT", "mit"]}, {"license": "MIT", "licenses": None}]
    + [{"license": "MIT", "licence": ""}, {"license": ["MIT"]}, {"licence": "MIT", "metadata": {"license": "MIT"}}],
)
def test_one_licence_said_twice_is_one(row):
    assert class_of(document_of(row)) == ("permissive", True)


def test_one_licence_not_understood_spoils_the_others():
    assert class_of(document_of({"licence": "MIT", "license": "ask our lawyers"})) == ("not_understood", False)


@pytest.mark.parametrize("value", [True, 1.5, [[[[["MIT"]]]]]])
def test_what_can_be_no_licence_sets_the_row_aside(value):
    with pytest.raises(Unusable) as error:
        document_of({"license": value})
    assert error.value.reason == QuarantineReason.WRONG_TYPE


@pytest.mark.parametrize(
    "row",
    [{"URL": "https://a.example/"}, {"metadata": {"url": "https://a.example/"}}]
    + [{"url": None, "metadata": json.dumps({"URL": "https://a.example/"})}],
)
def test_an_address_is_found_wherever_it_stands(row):
    assert document_of(row).url == "https://a.example/"


def test_an_address_of_the_row_comes_before_metadata():
    assert document_of({"metadata": {"url": "https://b.example/"}, "url": "https://a.example/"}).url[8] == "a"


HEADERS_THAT_REFUSE = {
    "with underscores": {"x_robots_tag": "noai"},
    "of a server": {"HTTP_X_ROBOTS_TAG": "noai"},
    "in mixed case": {"X-RoBoTs-TAG ": "NoAI"},
    "with a list": {"X-Robots-Tag": ["noindex", "noai"]},
    "in bytes": {b"X-Robots-Tag": b"noai"},
    "as pairs": [["X-Robots-Tag", "noai"]],
    "as pairs of bytes": [(b"X-Robots-Tag", b"noai")],
    "as names and values": [{"name": "X-Robots-Tag", "value": "noai"}],
    "as keys and values": [{"key": "X-Robots-Tag", "value": ["noai"]}],
    "as small objects": [{"Date": "x"}, {"X-Robots-Tag": "noai"}],
    "as JSON": json.dumps({"X-Robots-Tag": ["noai"]}),
    "as JSON in bytes": json.dumps([["x-robots-tag", "noai"]]).encode(),
    "as lines": "HTTP/1.1 200 OK\r\nDate: x\r\nX-Robots-Tag: noai\r\n",
    "as a list of lines": ["Date: x", "X-Robots-Tag: noai"],
    "reserved": {"tdm_reservation": 1},
    "reserved by a server": {"HTTP_TDM_RESERVATION": "1"},
    "a preference": {"CONTENT_USAGE": "train-ai=n"},
}


@pytest.mark.parametrize("how", HEADERS_THAT_REFUSE)
@pytest.mark.parametrize("column", ["headers", "Headers", "metadata"])
def test_a_refusing_header_is_heard(how, column):
    headers = HEADERS_THAT_REFUSE[how]
    document = document_of({"metadata": {"headers": headers}} if column == "metadata" else {column: headers})
    assert is_refused(document)


@pytest.mark.parametrize(
    "tags", [{"tdm_reservation": "1"}, {"tdm-reservation": ""}, [{"name": "robots", "content": "noai"}]]
)
def test_a_refusing_meta_tag_is_heard(tags):
    assert is_refused(document_of({"meta_tags": tags}))


def is_refused(document):
    (row,) = SignalScoring().build().score([document])
    return SignalRule().verdict(row, {}) is not None


def test_headers_that_cannot_be_read_set_the_row_aside():
    for value in ("Ann", '{"x-robots-tag": ', 7, [["a", "b", "c"]], [{"name": 1, "value": 2}]):
        with pytest.raises(Unusable):
            document_of({"headers": value})


def test_licence_columns_can_be_chosen():
    document = document_of({"terms": "CC-BY-NC-4.0", "license": "MIT"}, licence_fields=("terms",))
    assert document.licence == "CC-BY-NC-4.0"
    assert dataclasses.replace(Source("web", "x"), licence_fields=["Terms"]).consent_columns >= {"terms", "url"}


def test_columns_of_tables_are_found_in_any_spelling(tmp_path):
    table = pa.table(
        {"text": ["Text."], "License": ["MIT"], "licenses": [["CC-BY-NC-4.0"]], "URL": ["https://a.example/"]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (document,) = read(tmp_path)
    assert document.url == "https://a.example/" and class_of(document) == ("nc_nd", False)


def test_metadata_of_tables_is_read(tmp_path):
    metadata = [{"url": "https://a.example/", "license": "CC-BY-NC-4.0", "n": 1}]
    pq.write_table(pa.table({"text": ["Text."], "license": ["MIT"], "metadata": metadata}), tmp_path / "a.parquet")
    (document,) = read(tmp_path)
    assert document.url == "https://a.example/" and class_of(document) == ("nc_nd", False)


def test_columns_of_consent_with_one_name_set_the_file_aside(tmp_path):
    columns = [pa.array(["Text."]), pa.array(["CC-BY-NC-4.0"]), pa.array(["MIT"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "license", "license"]), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["Text."]}), tmp_path / "b.parquet")
    row, _ = read(tmp_path)
    assert (row.reason, row.detail) == (QuarantineReason.MISSING_COLUMN, "2 columns license")

"""`remove`: every row is checked, nothing is half-written, nothing personal is repeated, no request gets lost."""

import json
import logging
from pathlib import Path

import pyarrow.parquet
import pytest

from apertus_jax.corpus.removal import Tombstones, remove
from apertus_jax.corpus.removal.keys import Scope
from apertus_jax.corpus.removal.requests import FIELDS, Decision
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

GOOD = {
    "id": "R-1",
    "received": "2026-01-10",
    "basis": "GDPR Art. 17",
    "scope": "host",
    "value": "www.site.example",
    "decision": "granted",
    "effective_date": "2026-02-01",
}


def write_requests(path, rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def request(**changes):
    return {name: value for name, value in (GOOD | changes).items() if value is not None}


@pytest.mark.parametrize(
    "row, reason",
    [
        (request(scope="page"), "scope must be one of url, url_prefix, host, domain, document_id, text_digest"),
        (request(decision="maybe"), "decision must be one of granted, refused, pending"),
        (request(received="10.01.2026"), "received must be a calendar day"),
        (request(received="2026-02-30"), "received must be a calendar day"),
        (request(effective_date=None), "needs an effective_date"),
        (request(effective_date="soon"), "effective_date must be a calendar day"),
        (request(value=None), "field value is missing"),
        (request(value="  "), "field value is empty"),
        (request(value=12), "field value must be a string, found int"),
        (request(basis="b" * 201), "basis has 201 characters"),
        (request(value="https://secret-name.example/"), "must be a host"),
        (request(value="localhost"), "must be a host"),
        (request(scope="domain", value="www.secret-name.example"), "must be a registrable domain"),
        (request(scope="domain", value="co.uk"), "must be a registrable domain"),
        (request(scope="domain", value="192.0.2.7"), "must be a registrable domain"),
        (request(scope="url_prefix", value="secret-name.example/people"), "must be an http or https URL"),
        (request(scope="url_prefix", value="https:///secret-name"), "must be an http or https URL"),
        (request(scope="document_id", value="secret-name"), "32 hexadecimal digits"),
        (request(scope="text_digest", value="secret-name"), "32 hexadecimal digits"),
        (request(id="secret-name@mail.example"), "id must be"),
        (request(id="R-0"), "stands already in row 1"),
        (request(effective="2026-02-01"), "unknown field 'effective'; the fields are id, received, basis, scope,"),
        (request(**{f"x{number}": "" for number in range(7)}), "unknown field 'x0', 'x1', 'x2', 'x3', 'x4' and 2 more"),
        (request(scope="url", value="secret-name.example/people"), "must be an http or https URL"),
        (request(value="half \ud800"), "surrogate"),
        (["R-1"], "a JSON object is expected, found list"),
        (b'{"id": "R-1", ', "not valid JSON"),
        (b'{"id": "R-1\xff"}', "not UTF-8 at byte 11"),
        (b"[" * 100_000, "not (a flat JSON object|valid JSON)"),
    ],
)
def test_wrong_row_is_named_in_one_line_without_its_value(tmp_path, row, reason):
    lines = [request(id="R-0"), json.dumps(row).encode() if "half" in str(row) else row]
    path = write_requests(tmp_path / "requests.jsonl", lines)
    with pytest.raises(UserError, match=rf"requests\.jsonl, row 2: .*{reason}") as raised:
        remove(path, tmp_path / "tombstones")
    assert "\n" not in str(raised.value) and "secret-name" not in str(raised.value)
    assert [child.name for child in tmp_path.iterdir()] == ["requests.jsonl"]


def test_every_wrong_row_is_told_once(tmp_path, caplog):
    rows = [request(id="A", scope="x"), request(id="B"), b"{", request(id="D", decision="y")]
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(UserError, match=r"row 1: .*and 2 more wrong rows") as raised,
    ):
        remove(write_requests(tmp_path / "requests.jsonl", rows), tmp_path / "tombstones")
    assert [message.split(", ")[1].split(":")[0] for message in caplog.messages] == ["row 3", "row 4"]
    assert not any(message in str(raised.value) for message in caplog.messages)


def test_one_wrong_row_is_printed_once_on_the_command_line(tmp_path, capfd):
    from apertus_jax import cli

    path = write_requests(tmp_path / "requests.jsonl", [request(effective="2026-02-01")])
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(cli.main(["remove", f"--input={path}", f"--output={tmp_path / 'tombstones'}"]))
    assert stopped.value.code == 2
    assert "".join(capfd.readouterr()).count("unknown field 'effective'") == 1


def test_example_requests_show_every_scope_and_are_taken(tmp_path):
    example = Path(__file__).resolve().parents[3] / "gin_configs/policies/removal_requests.jsonl"
    summary = remove(example, tmp_path / "tombstones")
    assert {json.loads(line)["scope"] for line in example.read_text().splitlines()} == set(Scope)
    assert summary["decisions"] == {"granted": 5, "pending": 1, "refused": 1}
    page = (example.parents[2] / "docs/corpus.md").read_text()
    assert all(f"`{name}`" in page for name in (*FIELDS, *Scope, *Decision))


def test_missing_and_empty_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        remove(tmp_path / "none.jsonl", tmp_path / "tombstones")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="holds no requests"):
        remove(tmp_path / "empty.jsonl", tmp_path / "tombstones")
    assert not (tmp_path / "tombstones").exists()


def test_order_of_request_lines_changes_no_byte(tmp_path):
    rows = [
        request(id=f"R-{number}", scope="url_prefix", value=f"https://site.example/{number}") for number in range(40)
    ]
    first = write_requests(tmp_path / "first.jsonl", rows)
    second = write_requests(tmp_path / "second.jsonl", rows[::-1])
    assert remove(first, tmp_path / "a") == remove(second, tmp_path / "b")
    for name in artifacts.list_files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    marker = (tmp_path / "a" / artifacts.COMMIT_MARKER).read_bytes()
    assert marker == (tmp_path / "b" / artifacts.COMMIT_MARKER).read_bytes()
    assert remove(second, tmp_path / "a")["requests"] == 40
    with pytest.raises(UserError, match="made with other requests"):
        remove(write_requests(tmp_path / "third.jsonl", rows[1:]), tmp_path / "a")


def test_ledger_keeps_values_as_given_and_the_index_holds_none(tmp_path):
    rows = [
        request(id="P", scope="url_prefix", value="HTTPS://Site.Example:443/people/%7ejo"),
        request(id="H", value="WWW.Bücher.example"),
        request(id="N", value="other.example", decision="pending", effective_date=None),
    ]
    summary = remove(write_requests(tmp_path / "requests.jsonl", rows), tmp_path / "tombstones")
    assert summary["decisions"] == {"granted": 2, "pending": 1} and summary["scopes"] == {"host": 1, "url_prefix": 1}
    ledger = {
        row["id"]: row for row in pyarrow.parquet.read_table(tmp_path / "tombstones/requests.parquet").to_pylist()
    }
    assert ledger["P"]["value"] == rows[0]["value"] and ledger["P"]["key"] == "site.example/people/~jo"
    assert ledger["H"]["key"] == "www.xn--bcher-kva.example" and len(ledger["H"]["value_digest"]) == 32
    index = pyarrow.parquet.read_table(tmp_path / "tombstones/tombstones.parquet").to_pylist()
    assert {row["request"] for row in index} == {"P", "H"}
    public = json.dumps(index) + (tmp_path / "tombstones" / artifacts.COMMIT_MARKER).read_text()
    assert "example" not in public and "jo" not in public


def test_new_version_names_all_earlier_ones_and_loses_no_request(tmp_path):
    one, two = request(id="A"), request(id="B", value="b.example")
    remove(write_requests(tmp_path / "1.jsonl", [one, two]), tmp_path / "v1")
    withdrawn = two | {"decision": "refused"}
    remove(write_requests(tmp_path / "2.jsonl", [one, withdrawn]), tmp_path / "v2", supersedes=tmp_path / "v1")
    remove(write_requests(tmp_path / "3.jsonl", [one, withdrawn]), tmp_path / "v3", supersedes=tmp_path / "v2")
    first, second, third = (Tombstones.open(tmp_path / name) for name in ("v1", "v2", "v3"))
    assert [each.version for each in (first, second, third)] == [1, 2, 3]
    assert third.supersedes == (second.digest, first.digest)
    lost = write_requests(tmp_path / "lost.jsonl", [one])
    with pytest.raises(UserError, match="lacks request B"):
        remove(lost, tmp_path / "v4", supersedes=tmp_path / "v3")
    changed = write_requests(tmp_path / "changed.jsonl", [one, withdrawn | {"value": "c.example"}])
    with pytest.raises(UserError, match="request B is about something else"):
        remove(changed, tmp_path / "v4", supersedes=tmp_path / "v3")
    with pytest.raises(UserError, match="not a complete tombstones folder"):
        (tmp_path / "other").mkdir()
        remove(lost, tmp_path / "v4", supersedes=tmp_path / "other")
    assert not (tmp_path / "v4").exists()


def test_a_changed_byte_is_detected_when_tombstones_are_opened(tmp_path):
    remove(write_requests(tmp_path / "requests.jsonl", [GOOD]), tmp_path / "tombstones")
    path = tmp_path / "tombstones" / "tombstones.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"tombstones\.parquet has changed"):
        Tombstones.open(tmp_path / "tombstones")

"""What the data summary refuses: a damaged corpus, one that does not balance, declarations that cannot be meant."""

from pathlib import Path

import pytest

from apertus_jax.cli import main
from apertus_jax.errors import UserError
from apertus_jax.release.data_summary import Declarations, Provider, data_summary
from tests.release import data_summary_inputs
from tests.release.data_summary_inputs import EVERY_CATEGORY, described, row, small_corpus, write_prepared


@pytest.fixture
def small(tmp_path):
    return small_corpus(tmp_path / "small")


def broken(corpus: Path, how: str) -> None:
    """Damages a prepared corpus."""
    part = corpus / "parts" / "000000"
    if how == "unfinished":
        (corpus / "COMMITTED.json").unlink()
    elif how == "no part":
        (part / "COMMITTED.json").unlink()
    elif how == "ledger":
        content = bytearray((part / "ledger.parquet").read_bytes())
        content[len(content) // 2] ^= 1
        (part / "ledger.parquet").write_bytes(content)
    elif how == "quarantine":
        (part / "quarantine.parquet").unlink()
    elif how == "documents":
        with (part / "documents.parquet").open("ab") as file:
            file.write(b"x")
    elif how == "funnel":
        (corpus / "funnel.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unfinished", "not a complete prepared_corpus"),
        ("no part", "not a complete prepared_part"),
        ("ledger", "ledger.parquet has changed"),
        ("quarantine", "quarantine.parquet is missing"),
        ("documents", "documents.parquet is missing or has not"),
        ("funnel", "funnel.json has"),
    ],
)
def test_a_damaged_corpus_is_one_line_and_leaves_nothing(small, tmp_path, capsys, how, message):
    broken(small, how)
    assert main(["data-summary", f"--input={small}", f"--output={tmp_path / 'out'}"]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1 and str(small) in complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"documents": 10}, "9 documents in the ledger where 10 are expected"),
        ({"kept": 9}, "8 documents kept where 9"),
        ({"dropped": 0}, "1 documents dropped where 0"),
        ({"quarantined": 0}, "1 rows in quarantine where 0"),
    ],
)
def test_a_corpus_that_does_not_balance_is_refused(tmp_path, counts, message):
    rows = [row(source) for source in EVERY_CATEGORY] + [row("public", reason="robots")]
    corpus = write_prepared(tmp_path / "odd", rows, quarantined=[("public", "empty_text")], counts=counts)
    with pytest.raises(UserError, match=message):
        data_summary(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"decision": "keep", "reason": "robots"}, {"decision": "drop", "reason": ""}])
def test_a_decision_that_contradicts_its_reason_is_refused(tmp_path, change):
    corpus = write_prepared(tmp_path / "odd", [row(), row() | change])
    with pytest.raises(UserError, match="contradict each other"):
        data_summary(corpus, tmp_path / "out")


def test_a_funnel_that_counts_otherwise_is_refused(tmp_path, monkeypatch):
    write = data_summary_inputs.write_json
    monkeypatch.setattr(
        data_summary_inputs,
        "write_json",
        lambda path, value: write(path, value | ({"bytes_out": 5} if path.name == "funnel.json" else {})),
    )
    corpus = write_prepared(tmp_path / "odd", [row()])
    with pytest.raises(UserError, match=r"the ledger and funnel\.json count differently"):
        data_summary(corpus, tmp_path / "out")


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: {"sources": [described("pubic", "public")]}, "'pubic' is not in the corpus; its sources are public"),
        (lambda: {"sources": [described("public", "public")] * 2}, "'public' has two descriptions"),
        (lambda: {"sources": [described("public", "free")]}, "'free' of source 'public' is unknown"),
        (lambda: {"sources": [described("crawl", "crawl", market_models="one")]}, "must be a list of texts"),
        (lambda: {"declarations": Declarations(last_update="24.11.2026")}, "is not a day; write YYYY-MM-DD"),
        (lambda: {"declarations": Declarations(comments={"9": "x"})}, "has section '9'; sections that take comments"),
        (lambda: {"provider": Provider(name=7)}, "Provider.name = 7 must be text"),
        (lambda: {"large_share": 3.0}, "large_share = 3.0 must be a share"),
        (lambda: {"previous": "nowhere"}, "nowhere does not exist; a data_summary folder is expected"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_one_line(small, tmp_path, declare, message):
    with pytest.raises(UserError) as refused:
        data_summary(small, tmp_path / "out", **declare())
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_something_else_is_refused(small, tmp_path):
    data_summary(small, tmp_path / "summary")
    for wrong, message in ((tmp_path / "summary", "holds a data_summary"), (tmp_path / "absent", "does not exist")):
        with pytest.raises(UserError, match=message):
            data_summary(wrong, tmp_path / "out")


def test_description_of_a_stranger_names_the_template(small, tmp_path):
    with pytest.raises(UserError, match=r"its sources are .*data-summary --template=FILE --input=…` writes") as caught:
        data_summary(small, tmp_path / "out", sources=[described("gflanguages", "public")])
    assert "\n" not in str(caught.value)

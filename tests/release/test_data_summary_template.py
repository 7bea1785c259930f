"""The template of one's own corpus: what it holds, and that it becomes a summary once it is filled in."""

import json

import gin
import pytest

from apertus_jax.cli import main
from apertus_jax.configuration.registry import bindables
from tests.release.data_summary_inputs import row, write_prepared

SOURCES = ["web", "my books", "my_books", "9 o'clock", "été"]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A corpus whose sources have names that gin cannot take for scopes; the folder it is in is the current one."""
    monkeypatch.chdir(tmp_path)
    yield write_prepared(tmp_path / "prepared", [row(source) for source in SOURCES])
    gin.clear_config()


def written(capsys) -> str:
    assert main(["data-summary", "--input=prepared", "--template=mine.gin"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "data-summary: a template for 5 sources written; fill in mine.gin, then give it as --gin_file"
    with open("mine.gin") as file:
        return file.read()


def test_template_that_is_filled_in_makes_a_summary(corpus, tmp_path, capsys):
    text = written(capsys)
    summarize = ["data-summary", "--gin_file=mine.gin", "--input=prepared", "--output=out"]
    assert main(summarize) == 2
    assert "SourceDescription.category = '' of source" in capsys.readouterr().err and not (tmp_path / "out").exists()
    filled = text.replace("SourceDescription.category = ''", "SourceDescription.category = 'licensed'")
    (tmp_path / "mine.gin").write_text(filled.replace("Provider.name = ''", "Provider.name = 'Our Lab'"))
    assert main(summarize) == 0, capsys.readouterr().err
    manifest = json.loads((tmp_path / "out" / "COMMITTED.json").read_text())
    described = {each["source"]: each["category"] for each in manifest["inputs"]["facts"]["sources"]}
    assert described == dict.fromkeys(SOURCES, "licensed")
    assert "Our Lab" in (tmp_path / "out" / "public_summary.md").read_text()


def test_template_has_a_place_for_every_declaration(corpus, capsys):
    text = written(capsys)
    for name in ("Provider", "PublishedModel", "SourceDescription", "Crawler", "Declarations", "DatasheetAnswers"):
        assert all(f"{name}.{field} = " in text for field in bindables[name].parameters)
    assert "quickstart" not in text and max(map(len, text.splitlines())) <= 120


def test_template_replaces_no_file(corpus, tmp_path, capsys):
    (tmp_path / "mine.gin").write_text("mine")
    assert main(["data-summary", "--input=prepared", "--template=mine.gin"]) == 2
    told = capsys.readouterr().err
    assert "mine.gin is there already" in told and told.count("\n") == 1
    assert (tmp_path / "mine.gin").read_text() == "mine"


def test_template_of_what_is_no_corpus_is_one_line(corpus, tmp_path, capsys):
    (corpus / "COMMITTED.json").unlink()
    assert main(["data-summary", "--input=prepared", "--template=mine.gin"]) == 2
    assert "not a complete prepared_corpus" in capsys.readouterr().err and not (tmp_path / "mine.gin").exists()

"""Citations of docs/reference/: page and section exist, and no other form of citation is left."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
# Folders with files that may cite; ".venv", "runs" and the like are nobody's sources.
FOLDERS = ("apertus_jax", "docs", "experiments", "gin_configs", "notebooks", "tests")
SUFFIXES = (".py", ".gin", ".md", ".ipynb", ".json", ".yaml", ".html", "")
SECTIONS = r"§[\d.]*\d(?:[–-]§?[\d.]*\d)?"
CITATION = re.compile(rf"docs/reference/(\w+)\.md(?: ({SECTIONS}(?:(?:, | and ){SECTIONS})*))?")
# "model spec §4.3", "data spec 13", "E§3.8", "MEM-4": what citations once looked like.
OLD_FORM = re.compile(r"\b(?:model|data|evaluation|eval) spec\b|\b[A-Z]§\d|\b(?:MEM|REL)-\d", re.IGNORECASE)


def sources() -> list[pathlib.Path]:
    """Returns the files that may cite, this one apart."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    found += sorted(ROOT.glob("*.md"))
    return [path for path in found if path.is_file() and path != pathlib.Path(__file__)]


def text_of(path: pathlib.Path) -> str:
    """Returns a file's text with line breaks, and the `#` of comments behind them, as one space."""
    try:
        return re.sub(r"\s*\n\s*(?:#+ )?\s*", " ", path.read_text())
    except UnicodeDecodeError:
        return ""


def sections_of(page: pathlib.Path) -> set[str]:
    """Returns the numbers in a page's headings: {"1", "1.1", …}."""
    return set(re.findall(r"^#{2,3} ([\d.]*\d)\.? ", page.read_text(), re.MULTILINE))


def missing_from(text: str, pages: dict[str, set[str]]) -> list[str]:
    """Returns what is cited in a text and is in no page."""
    missing = []
    for page, sections in CITATION.findall(text):
        if page not in pages:
            missing.append(f"docs/reference/{page}.md")
        else:
            numbers = re.findall(r"[\d.]*\d", sections)
            missing += [f"docs/reference/{page}.md §{number}" for number in numbers if number not in pages[page]]
    return missing


PAGES_AND_SECTIONS = {page.stem: sections_of(page) for page in sorted(PAGES.glob("*.md"))}


def test_every_citation_names_a_page_and_a_section_that_exist():
    texts = {path.relative_to(ROOT).as_posix(): text_of(path) for path in sources()}
    missing = {name: found for name, text in texts.items() if (found := missing_from(text, PAGES_AND_SECTIONS))}
    assert missing == {}
    with_section = sum(bool(sections) for text in texts.values() for _, sections in CITATION.findall(text))
    assert with_section >= 140  # so that a search that finds nothing does not pass


def test_citations_have_no_other_form():
    texts = {path: text_of(path) for path in sources() if PAGES not in path.parents}
    left = {path.relative_to(ROOT).as_posix(): OLD_FORM.findall(text) for path, text in texts.items()}
    assert {name: found for name, found in left.items() if found} == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("docs/reference/data.md §8", []),
        ("docs/reference/data.md §8 and §99.1", ["docs/reference/data.md §99.1"]),
        ("docs/reference/model_and_training.md §1, §5-§8, §16.9", ["docs/reference/model_and_training.md §16.9"]),
        ("docs/reference/dates.md §8", ["docs/reference/dates.md"]),
        ("docs/reference/data.md", []),
    ],
)
def test_citation_that_leads_nowhere_is_found(text, missing):
    assert missing_from(text, PAGES_AND_SECTIONS) == missing


def test_references_between_the_pages_resolve():
    text = (PAGES / "after_version_1.md").read_text()
    pages = {"M": "model_and_training", "E": "evaluation_and_release"}
    cited = re.findall(r"\b([ME])§([\d.]*\d)", text)
    assert len(cited) > 5
    assert [f"{page}§{number}" for page, number in cited if number not in PAGES_AND_SECTIONS[pages[page]]] == []


def test_pages_stand_alone():
    """They state facts: no requirements on a reader, no acceptance lists, no folder that is not in this repository."""
    for page in PAGES.glob("*.md"):
        assert re.findall(r"\bMUST\b|\bSHOULD\b|Acceptance|shared/|\bour suite\b", page.read_text()) == [], page.name

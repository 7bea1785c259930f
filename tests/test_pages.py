"""README, CONTRIBUTING and docs/: what they link and name exists, and their example module works."""

import pathlib
import re

import pytest

from tests.documented_blocks import TAGGED, blocks_of, pages

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    if page.name != "CHANGELOG.md"  # it names what is no more
}
# `corpus/scorer.py` and `docs/reference/` are paths; `a.bin`, `RUN/model` and `<command>_command.py` are not.
PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|gin|md|ipynb|json|jsonl|txt|sh))?)`")
MADE_BY_COMMANDS = ("runs/", "my_lab/", "RUN/")


def exists(path: str, page: str) -> bool:
    """Returns whether a path on a page is one of the repository, the package, `gin_configs/`, or beside the page."""
    folders = (ROOT, ROOT / "apertus_jax", ROOT / "apertus_jax" / "data", ROOT / "gin_configs", (ROOT / page).parent)
    return any((folder / path).exists() for folder in folders)


@pytest.mark.parametrize("page", PAGES)
def test_paths_named_on_a_page_exist(page):
    named = [path for path in PATH.findall(PAGES[page]) if not path.startswith(MADE_BY_COMMANDS)]
    sub_packages = {path.name for path in (ROOT / "apertus_jax").rglob("*") if path.is_dir()}
    missing = [path for path in named if not exists(path, page) and path.strip("/") not in sub_packages]
    assert missing == []


def test_pages_name_paths():
    assert sum(len(PATH.findall(text)) for text in PAGES.values()) > 60


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", PAGES[page])
    assert [link for link in links if "://" not in link and not ((ROOT / page).parent / link).exists()] == []


def untagged(blocks):
    """The blocks that readers type or paste and that do not say how they are tested."""
    commands = [block for block in blocks if re.search(r"^(\$ )?(apertus|make|pip) ", block.text, re.MULTILINE)]
    typed = [block for block in blocks if block.language in TAGGED]
    hidden = [block for block in commands if block.language in ("", "console", "sh", "shell")]
    return [block.where for block in typed if block.tag is None] + [block.where for block in hidden]


@pytest.mark.parametrize("page", pages())
def test_blocks_say_how_they_are_tested(page):
    """Put `<!-- run -->` or one of the other two comments of tests/documented_blocks.py above the block."""
    assert untagged(blocks_of(page)) == []


@pytest.mark.parametrize("page", pages())
def test_file_that_runs_a_block_names_its_page(page):
    for block in blocks_of(page):
        if block.tag and block.tag["file"]:
            assert pathlib.Path(page).name in (ROOT / block.tag["file"]).read_text(), block.where


def test_block_without_a_tag_is_found():
    text = "<!-- run -->\n```bash\nls\n```\n\n- a\n  ```python\n  x\n  ```\n```\napertus why\n```\n```text\nhi\n```"
    assert untagged(blocks_of("page.md", text)) == ["page.md block 1", "page.md block 2"]
    assert blocks_of("page.md", text)[1].text == "x\n"
    assert untagged(blocks_of("page.md", "<!-- not run: -->\n```gin\n```\n")) == ["page.md block 0"]

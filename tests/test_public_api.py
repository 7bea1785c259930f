"""docs/public_api.md lists the public names of this version, all of them can be imported, and each has its page."""

import importlib
import re
from pathlib import Path

import pytest

import apertus_jax
from tests.documented_blocks import blocks_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "public_api.md").read_text()
ROWS = re.findall(r"^\| \[(apertus_jax[\w.]*)\]\(api/(\w+)\.md\) \| (.*) \|$", PAGE, re.MULTILINE)
NAMES = {package: re.findall(r"`(\w+)`", names) for package, _, names in ROWS}
# What other projects rely on by the design of this one; more may be added, none may go.
PROMISED = {
    "apertus_jax.corpus.robots": {"RobotsPolicy"},
    "apertus_jax.data": {"segment_ids_and_positions"},
    "apertus_jax.model": {"ModelConfig", "Transformer"},
    "apertus_jax.objectives": {"cross_entropy", "goldfish_mask"},
    "apertus_jax.optimization": {"ademamix", "wsd_schedule"},
    "apertus_jax.release": {"load_huggingface", "save_huggingface"},
}


@pytest.mark.parametrize("package", NAMES)
def test_public_names_are_those_of_the_package(package):
    module = importlib.import_module(package)
    assert NAMES[package] == sorted(module.__all__, key=str.lower), "write the row of docs/public_api.md again"
    assert [name for name in NAMES[package] if not hasattr(module, name)] == []


def test_promised_names_are_imported_as_the_page_says():
    (block,) = blocks_of("docs/public_api.md")
    names = {}
    exec(block.text, names)
    assert names.keys() >= set.union(*PROMISED.values())
    for package, promised in PROMISED.items():
        assert promised <= set(NAMES[package])


def test_page_is_of_this_version():
    major, minor, _ = apertus_jax.__version__.split(".")
    assert PAGE.startswith(f"# What may be imported: version {major}.{minor}\n")
    assert f"within {major}.{minor};" in PAGE


def test_every_public_package_has_a_page_of_docstrings():
    for package, page, _ in ROWS:
        assert f".. automodule:: {package}\n" in (DOCS / "api" / f"{page}.md").read_text()
    listed = (DOCS / "api" / "index.md").read_text().splitlines()
    pages = {path.stem for path in (DOCS / "api").glob("*.md")} - {"index"}
    assert {page for _, page, _ in ROWS} == pages == pages & set(listed)

"""`make docs`: the site builds without a warning, holds every page and every public name, and needs no network."""

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from inspect import isclass
from pathlib import Path

import pytest

from apertus_jax.commands import COMMANDS
from apertus_jax.configuration import CONFIGURABLES
from tests.test_public_api import NAMES, ROWS

pytest.importorskip("sphinx", reason="`make install-dev` brings it (requirements-docs.txt)")

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# `make docs` calls it so.
COMMAND = "-m sphinx --quiet --fail-on-warning --keep-going"


def build(source, output):
    """Builds a site as `make docs` does; returns the process."""
    command = [sys.executable, *COMMAND.split(), str(source), str(output)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    output = tmp_path_factory.mktemp("site")
    done = build(DOCS, output)
    assert done.returncode == 0, done.stderr
    return output


def test_site_has_every_page(site):
    assert f"{COMMAND} docs build/docs\n" in (ROOT / "Makefile").read_text()
    pages = [path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")]
    assert len(pages) > 25 and [page for page in pages if not (site / page).exists()] == []


def test_pages_of_packages_describe_all_that_is_called(site):
    for package, page, _ in ROWS:
        module, text = importlib.import_module(package), (site / "api" / f"{page}.html").read_text()
        called = [
            name for name in NAMES[package] if inspect.isroutine(value := getattr(module, name)) or isclass(value)
        ]
        assert called and [name for name in called if f'<span class="pre">{name}</span>' not in text] == []


def test_reference_has_every_command_and_every_bindable_name(site):
    commands, names = ((site / f"{page}.html").read_text() for page in ("commands", "bindable_names"))
    assert [name for name in COMMANDS if f">apertus {name}<" not in commands] == []
    bound = [name for group in CONFIGURABLES.values() for name in group]
    assert len(bound) > 60 and [name for name in bound if f">{name}<" not in names] == []
    assert "--gin.verify.NAME=VALUE" in commands and "wsd_schedule.peak: float (required)" in names


def test_site_loads_nothing_from_the_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="(?:https?:)?//[^"]*"', page.read_text())
        loaded += re.findall(
            r'<link[^>]*rel="(?:stylesheet|preload|icon|preconnect)"[^>]*href="(?:https?:)?//', page.read_text()
        )
        assert loaded == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text()), style


@pytest.mark.parametrize(
    "fault",
    [
        "[a page](nowhere.md)",
        "[a place](#nowhere)",
        "![a picture](nowhere.png)",
        "{py:func}`apertus_jax.model.nowhere`",
    ],
)
def test_broken_reference_fails_the_build(tmp_path, fault):
    source = tmp_path / "docs"
    source.mkdir()
    conf = (DOCS / "conf.py").read_text()
    (source / "conf.py").write_text(conf.replace("str(Path(__file__).resolve().parent.parent)", repr(str(ROOT))))
    shutil.copy(DOCS / "command_reference.py", source)
    (source / "index.md").write_text(f"# A page\n\nSee {fault}.\n")
    done = build(source, tmp_path / "site")
    assert done.returncode == 1 and "nowhere" in done.stderr
    shutil.rmtree(tmp_path)

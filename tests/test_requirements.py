"""What is installed is what was tested: every version exact, what is built from source by its digest."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("requirements*.txt"), ROOT / "constraints.txt"])


def requirements(path):
    """The requirements of one file, comments, options and included files left out."""
    lines = (line.partition("#")[0].partition(" --hash")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_version_is_exact(path):
    found = requirements(path)
    assert found
    for each in found:
        (only,) = each.specifier
        assert only.operator == "==" and "*" not in only.version and "+" not in only.version, f"{path.name}: {each}"


def test_what_requirements_pull_in_is_pinned_too():
    """The closure of what the dev requirements need on this machine, by the metadata of what is installed."""
    pinned = {canonicalize_name(each.name): each for each in requirements(ROOT / "constraints.txt")}
    named = [each for name in ("", "-dev", "-beam", "-docs") for each in requirements(ROOT / f"requirements{name}.txt")]
    named_ones = {canonicalize_name(each.name) for each in named}
    pending = [(canonicalize_name(each.name), tuple(each.extras)) for each in named]
    seen = set()
    while pending:
        name, extras = pending.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        assert name in pinned or name in named_ones, f"{name} is pulled in and pinned nowhere"
        for need in map(Requirement, needs):
            applies = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if applies and canonicalize_name(need.name) != "pip":
                pending.append((canonicalize_name(need.name), tuple(need.extras)))
    assert len(seen) > 100


def test_no_two_files_pin_different_versions():
    versions = {}
    for path in FILES:
        for each in requirements(path):
            versions.setdefault(canonicalize_name(each.name), set()).add(str(each.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_source_distribution_is_taken_by_its_digest():
    text = (ROOT / "requirements-protego-source.txt").read_text()
    assert re.search(r"^protego==[\d.]+ --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    (source,) = requirements(ROOT / "requirements-protego-source.txt")
    assert importlib.metadata.version("protego") in source.specifier
    makefile = (ROOT / "Makefile").read_text()
    downloads = [line for line in makefile.replace("\\\n", " ").splitlines() if "pip download" in line]
    assert downloads and all("--require-hashes" in line for line in downloads)


def test_the_build_itself_is_pinned():
    (line,) = re.findall(r"^requires = (.*)$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert re.fullmatch(r'\["setuptools==[\d.]+"\]', line)

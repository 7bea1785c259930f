"""Folders of strangers: each file once, nothing hidden, no circles, and what is no file is one line."""

import os
import socket
from pathlib import Path

import pytest
from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage import listing
from apertus_jax.storage.listing import list_files, regular_file


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_files_come_sorted_without_markers_and_hidden_ones(tmp_path):
    write(tmp_path, "b.txt", "a/c.txt", "a/.hidden", ".ipynb_checkpoints/a.jsonl", "a/.git/x", "a-b")
    write(tmp_path, "COMMITTED.json", "a/BUILDING.json", "LEASE.json", "_under")
    expected = sorted(
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(tmp_path).parts)
    )
    markers = ("COMMITTED.json", "a/BUILDING.json", "LEASE.json")
    assert list_files(tmp_path) == [name for name in expected if name not in markers]
    assert list_files(tmp_path, ".txt") == ["a/c.txt", "b.txt"] == list_files(str(tmp_path), (".txt", ".no"))


def test_object_stores_list_a_folder_as_disks_do(tmp_path, monkeypatch):
    write(tmp_path, "b.txt", "a/c.txt", "a/.hidden", ".x/a.jsonl", "a/.git/x", "a-b", "COMMITTED.json", "a/d/e/f.txt")
    on_disk = list_files(tmp_path), list_files(tmp_path, ".txt")
    monkeypatch.setattr(listing, "is_local", lambda path: False)
    monkeypatch.setattr(epath.Path, "is_dir", None)  # a request for each file
    assert (list_files(tmp_path), list_files(tmp_path, ".txt")) == on_disk


LOOPS = {
    "itself": {"again": "."},
    "its parent": {"a/up": ".."},
    "far up": {"a/b/top": "/"},
    "two that lead to each other": {"a/to_b": "../b", "b/to_a": "../a"},
    "a sibling inside": {"twice": "a"},
    "by absolute path": {"a/again": "{root}"},
}


@pytest.mark.parametrize("case", LOOPS)
def test_links_round_in_circles_list_each_file_once(tmp_path, case):
    write(tmp_path, "1", "a/2", "a/b/3", "b/4")
    for name, target in LOOPS[case].items():
        (tmp_path / name).symlink_to(target.format(root=tmp_path))
    assert list_files(tmp_path) == ["1", "a/2", "a/b/3", "b/4"]


def test_links_to_files_and_folders_elsewhere_are_followed_once(tmp_path):
    write(tmp_path, "elsewhere/x.jsonl", "elsewhere/deep/y.jsonl", "corpus/own.jsonl")
    root = tmp_path / "corpus"
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "one.jsonl").symlink_to(tmp_path / "elsewhere" / "x.jsonl")
    (root / "other_name.jsonl").symlink_to("own.jsonl")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    names = list_files(root)
    assert names == ["a/deep/y.jsonl", "a/x.jsonl", "own.jsonl"]
    assert len({(root / name).resolve() for name in names}) == len(names)


def test_file_with_two_names_comes_once_unless_all_are_asked(tmp_path):
    write(tmp_path, "b")
    os.link(tmp_path / "b", tmp_path / "a")
    assert list_files(tmp_path) == ["a"]
    assert list_files(tmp_path, every_name=True) == ["a", "b"]


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NO_FILES = {
    "fifo": (make_fifo, "is a pipe"),
    "socket": (make_socket, "is a socket"),
    "link to a fifo": (lambda path: (os.mkfifo(f"{path}.hidden"), path.symlink_to(f"{path}.hidden")), "pipe"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "is a link to nowhere, which does not exist"),
    "link to itself": (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
    "device": (lambda path: path.symlink_to("/dev/null"), "is a device"),
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_file_is_named_in_one_line(tmp_path, case, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make, what = NO_FILES[case]
    make(Path("x.jsonl"))
    for read in (lambda: list_files("."), lambda: regular_file("x.jsonl"), lambda: list_files(".", ".jsonl")):
        with pytest.raises(UserError, match=what) as raised:
            read()
        assert "x.jsonl" in str(raised.value) and "\n" not in str(raised.value)
    assert list_files(".", ".parquet") == []


PLACES = {
    "missing": ("absent", "does not exist"),
    "a folder": ("folder", "is a folder, not a file"),
    "below a file": ("file/x", "not a directory"),
    "a name too long": ("n" * 300, "name too long"),
    "a null character": ("a\0b", "null character"),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_place_that_is_no_file_is_one_line(tmp_path, case):
    write(tmp_path, "file", "folder/x")
    place, what = PLACES[case]
    with pytest.raises(UserError, match=what):
        regular_file(tmp_path / place)
    assert regular_file(tmp_path / "file").read_text() == "file"


def test_a_folder_that_is_none_is_one_line(tmp_path):
    write(tmp_path, "file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "absent", "dangling", "loop", "n" * 300):
        with pytest.raises(UserError, match=name[:5]):
            list_files(tmp_path / name)

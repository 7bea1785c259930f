"""Small files are replaced whole, whoever else writes them and whenever the disk fills up."""

import concurrent.futures
import errno
import os

import pytest

from apertus_jax.storage.durable_files import sync_all, write_atomically


def test_writers_of_one_file_do_not_meet_in_a_partial_one(tmp_path):
    path = tmp_path / "state.json"
    contents = [bytes([65 + number]) * (1000 + 3000 * number) for number in range(8)]

    def write_and_read(number):
        for _ in range(15):
            write_atomically(path, contents[number])
            assert path.read_bytes() in contents

    with concurrent.futures.ThreadPoolExecutor(len(contents)) as pool:
        for done in [pool.submit(write_and_read, number) for number in range(len(contents))]:
            done.result()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["state.json"]


def test_what_a_killed_writer_left_is_used_again(tmp_path):
    (tmp_path / ".state.json.partial").write_text("half of a much longer text")
    write_atomically(tmp_path / "state.json", "whole")
    assert (tmp_path / "state.json").read_text() == "whole"
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_full_disk_leaves_the_old_content_and_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["state.json"]


def test_a_link_in_the_place_of_a_partial_file_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".state.json.partial").symlink_to("precious")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "state.json", "new")
    assert (tmp_path / "precious").read_text() == "mine"


def test_files_are_synced_and_then_the_folders_that_name_them(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "top").write_text("x")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    sync_all(tmp_path, ["a/b/file", "top"])
    root = str(tmp_path)
    assert synced == [f"{root}/a/b/file", f"{root}/top", f"{root}/a/b", f"{root}/a", root]

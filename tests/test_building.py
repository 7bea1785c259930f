"""One process builds a folder, and its clean-up removes what it wrote and nothing else."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts, building
from apertus_jax.storage.lease import acquire_lease

SCRIPT = Path(__file__).with_name("abandoning_process.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def start(folder, moment):
    command = [sys.executable, str(SCRIPT), str(folder), moment]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def build_folder(path, inputs=None):
    with artifacts.build(path, "thing", inputs or {"a": 1}) as build:
        (build.path / "sub").mkdir()
        (build.path / "sub" / "data.bin").write_bytes(b"0123456789")
        (build.path / "last.txt").write_text("last")
        build.summary["count"] = 10


def content(folder):
    """Returns every file, folder and link below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a build that nothing disturbs leaves."""
    folder = tmp_path_factory.mktemp("whole") / "x"
    build_folder(folder)
    return content(folder)


@pytest.fixture(scope="module", params=["writing", "moving"])
def killed(request, tmp_path_factory):
    """A folder whose build was killed."""
    folder = tmp_path_factory.mktemp("killed") / "x"
    process = start(folder, request.param)
    process.communicate(timeout=60)
    assert process.returncode == 9
    assert (folder / "BUILDING.json").exists() and not artifacts.is_complete(folder)
    return folder


@pytest.fixture
def abandoned(killed, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(killed, tmp_path / "x"))


def test_an_abandoned_build_is_cleared_and_built_again(abandoned, whole):
    assert not artifacts.already_built(abandoned, "thing", {"a": 1})
    build_folder(abandoned)
    assert content(abandoned) == whole
    assert artifacts.already_built(abandoned, "thing", {"a": 1})


@pytest.mark.parametrize("name", ["thesis.txt", "sub/notes.txt", "deep/er/notes.txt", ".hidden", "sub/.hidden"])
def test_files_added_to_an_abandoned_build_stay_and_are_named(abandoned, name):
    (abandoned / name).parent.mkdir(parents=True, exist_ok=True)
    (abandoned / name).write_text("mine")
    before = content(abandoned)
    for attempt in (build_folder, lambda folder: artifacts.already_built(folder, "thing", {"a": 1})):
        with pytest.raises(UserError, match="which the unfinished build in it did not write") as raised:
            attempt(abandoned)
        assert name.partition("/")[0] in str(raised.value) and "\n" not in str(raised.value)
    assert content(abandoned) == before


def test_unfinished_build_of_another_kind_is_left_to_its_command(abandoned):
    before = content(abandoned)
    with (
        pytest.raises(UserError, match="unfinished thing, not a store"),
        artifacts.build(abandoned, "store", {}),
    ):
        pass
    assert content(abandoned) == before


FOREIGN_MARKERS = {
    "empty object": b"{}",
    "another tool's": b'{"project": "thesis", "kind": "thing"}',
    "an older version's": b'{"kind": "thing"}',
    "not JSON": b"building since Monday",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "digits": b'{"kind": ' + b"9" * 5_000 + b"}",
    "no site": json.dumps({"program": "apertus_jax", "kind": "thing", "site": "sub", "published": []}).encode(),
    "site above": json.dumps({"program": "apertus_jax", "kind": "thing", "site": "..", "published": []}).encode(),
    "published elsewhere": json.dumps(
        {"program": "apertus_jax", "kind": "thing", "site": ".building-01234567", "published": ["../thesis.txt"]}
    ).encode(),
    "published by absolute path": json.dumps(
        {"program": "apertus_jax", "kind": "thing", "site": ".building-01234567", "published": ["/etc/hostname"]}
    ).encode(),
}


@pytest.mark.parametrize("case", FOREIGN_MARKERS)
def test_a_folder_with_a_foreign_marker_is_refused_untouched(tmp_path, case):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    (folder / "BUILDING.json").write_bytes(FOREIGN_MARKERS[case])
    (tmp_path / "thesis.txt").write_text("more")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"BUILDING\.json") as raised:
        build_folder(folder)
    assert "\n" not in str(raised.value)
    assert content(tmp_path) == before


def place_marker(kind, path):
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling link", "loop"])
@pytest.mark.parametrize("name", ["BUILDING.json", "COMMITTED.json", "LEASE.json"])
def test_markers_that_are_no_files_are_refused_untouched(tmp_path, name, kind):
    folder = tmp_path / "x"
    folder.mkdir()
    place_marker(kind, folder / name)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UserError) as raised:
        build_folder(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)
    assert sorted(os.listdir(folder)) == sorted([name, "thesis.txt"])


def test_what_someone_adds_while_a_failing_build_writes_stays(tmp_path):
    folder = tmp_path / "x"
    with pytest.raises(ValueError, match="boom"), artifacts.build(folder, "thing", {}) as build:
        (build.path / "half").write_text("half")
        (folder / "notes.txt").write_text("mine")
        raise ValueError("boom")
    assert content(folder) == {"notes.txt": b"mine"}


def test_build_overwrites_no_name_that_someone_added(tmp_path):
    folder = tmp_path / "x"
    with pytest.raises(UserError, match=r"data\.bin appeared"), artifacts.build(folder, "thing", {}) as build:
        (build.path / "data.bin").write_text("ours")
        (folder / "data.bin").write_text("mine")
    assert content(folder) == {"data.bin": b"mine"}


def test_a_failing_build_leaves_folders_as_they_were(tmp_path):
    (tmp_path / "there").mkdir()
    for place in ("new/deep/x", "there"):
        with pytest.raises(ValueError), artifacts.build(tmp_path / place, "thing", {}) as build:
            (build.path / "half").write_text("half")
            raise ValueError
        assert content(tmp_path) == {"there": None}


def test_second_build_is_told_who_holds_the_folder(tmp_path, whole):
    folder = tmp_path / "x"
    first = start(folder, "holding")
    try:
        assert first.stdout.readline() == "held\n"
        who = f"in use by process {first.pid} on {socket.gethostname()}"
        for attempt in (build_folder, lambda path: artifacts.already_built(path, "thing", {"a": 1})):
            with pytest.raises(UserError, match=who):
                attempt(folder)
        second = start(folder, "-")
        assert who in second.communicate(timeout=60)[1] and second.returncode == 2
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    build_folder(folder)
    assert content(folder) == whole


@pytest.mark.parametrize("count", [2, 6])
def test_processes_started_together_have_one_winner(tmp_path, whole, count):
    folder = tmp_path / "x"
    processes = [start(folder, "-") for _ in range(count)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert [status for _, status in ended].count(0) == 1
    for said, status in ended:
        assert status in (0, 2) and said.count("\n") == (status == 2), said
        assert status == 0 or "in use by process" in said or "already complete" in said, said
    assert content(folder) == whole
    artifacts.verify(folder, "thing")


def test_a_folder_is_held_while_its_command_computes(tmp_path, whole):
    folder = tmp_path / "new" / "x"
    with building.held(folder):
        second = start(folder, "-")
        assert f"in use by process {os.getpid()} on" in second.communicate(timeout=60)[1] and second.returncode == 2
        assert not artifacts.already_built(folder, "thing", {"a": 1})
        build_folder(folder)
    assert content(folder) == whole
    with building.held(folder):  # complete: nothing to hold, nothing touched
        assert content(folder) == whole
    with pytest.raises(ValueError), building.held(tmp_path / "other" / "y"):
        raise ValueError
    assert os.listdir(tmp_path) == ["new"]


def test_folder_of_others_is_not_touched_while_computing(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with building.held(tmp_path):
        assert os.listdir(tmp_path) == ["thesis.txt"]


def test_the_folder_of_a_run_under_way_is_not_built_in(tmp_path):
    (tmp_path / "x").mkdir()
    with acquire_lease(tmp_path / "x"), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        build_folder(tmp_path / "x")


def test_what_is_written_last_appears_last(tmp_path, monkeypatch):
    moved = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda source, target: (moved.append(Path(target).name), rename(source, target)))
    with artifacts.build(tmp_path / "x", "thing", {}) as build:
        for at, name in enumerate(["model.bin", "config.json", "a"]):
            (build.path / name).write_text(name)
            os.utime(build.path / name, ns=(at, at))
    assert moved == ["model.bin", "config.json", "a"]


def test_files_and_folders_are_on_the_disk_before_the_marker(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda source, target: (done.append(Path(target).name), replace(source, target)))
    build_folder(tmp_path / "x")
    before = [Path(each).name for each in done[: done.index("COMMITTED.json")]]
    assert {"data.bin", "last.txt", "sub", "x"} <= set(before)
    assert ".COMMITTED.json.partial" in before and before[-1] == ".COMMITTED.json.partial"
    assert Path(done[-1]).name == "x"

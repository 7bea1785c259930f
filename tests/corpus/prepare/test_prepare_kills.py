"""`prepare` stopped in whatever way, at whatever moment: what comes of it in the end has the same bytes."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apertus_jax.corpus.duplicates import DuplicateRule, DuplicateScoring
from apertus_jax.corpus.prepare import prepare
from apertus_jax.storage import artifacts
from tests.checkpoints.crash_points import read_log
from tests.corpus.prepare.prepare_inputs import AS_OF, SMALL_POLICY, sentence, small_policy

ROOT = Path(__file__).parents[3]
UNIT_BYTES = 1_500  # one file of `write_files`
GIN = SMALL_POLICY + f"prepare.unit_bytes = {UNIT_BYTES}\n"
ONCE = ("plan-", "copies-", "statistics-", "select-")
KILLS = 50


def write_files(folder: Path, count: int) -> Path:
    """Writes files of four documents, one of which they all have; each is a unit."""
    folder.mkdir()
    for file in range(count):
        rows = [
            {
                "id": f"{file}-{row}",
                "url": f"https://h{row}.example/{file}",
                "text": sentence(random.Random(1 if row == 1 else 10 * file + row)),
            }
            for row in range(4)
        ]
        (folder / f"{file:02}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(output: Path, documents: Path, **options):
    """Prepares in this process as the gin file says."""
    policy = small_policy(content_scoring=(DuplicateScoring(),), content_rules=(DuplicateRule(),))
    defaults = {"launcher": "inline", "unit_bytes": UNIT_BYTES, "as_of": AS_OF, "progress": False}
    return prepare(str(output), policy, str(documents), **(defaults | options))


def command(gin_file: Path, documents: Path, output: Path, *extra: str) -> list[str]:
    """Returns the command line of the same run."""
    flags = [f"--gin_file={gin_file}", f"--input={documents}", *extra, f"--output={output}"]
    return [sys.executable, "-m", "apertus_jax", "prepare", *flags]


def start(gin_file: Path, documents: Path, output: Path, *extra: str) -> subprocess.Popen[str]:
    """Starts the command line as the leader of a process group of its own."""
    return subprocess.Popen(
        command(gin_file, documents, output, *extra),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def results(folder: Path) -> dict[str, bytes]:
    """Returns relative name → bytes of all results and intermediate stages below a folder.

    Leases name processes; a build marker beside a commit marker says nothing any more.
    """
    files = {path for path in folder.rglob("*") if path.is_file() and path.name != "LEASE.json"}
    stale = {path for path in files if path.name == "BUILDING.json" and path.with_name("COMMITTED.json") in files}
    return {str(path.relative_to(folder)): path.read_bytes() for path in files - stale}


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 120):
    """Returns what `condition` gives as soon as it gives something, while the process lives."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError("waited in vain")


def wait_until_gone(processes, seconds: float = 30):
    end = time.monotonic() + seconds
    while left := processes():
        assert time.monotonic() < end, left
        time.sleep(0.01)


def group_of(process: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Returns (process, command line) of those that live in the process group of a command."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getpgid(int(folder.name)) == process.pid:
                state = (folder / "stat").read_text().rpartition(") ")[2][0]
                if state != "Z":
                    found.append((int(folder.name), (folder / "cmdline").read_text()))
        except OSError:
            continue  # it ended while we looked
    return found


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    return [number for number, arguments in group_of(process) if "spawn_main" in arguments]


def committed_units(output: Path) -> list[Path]:
    return list(output.with_name(f"{output.name}.work").glob("score-*/0*/COMMITTED.json"))


@pytest.fixture(scope="module")
def gin_file(module_memory_path):
    (module_memory_path / "small.gin").write_text(GIN)
    return module_memory_path / "small.gin"


@pytest.fixture(scope="module")
def three_units(module_memory_path):
    return write_files(module_memory_path / "three", 3)


@pytest.fixture(scope="module")
def many_units(module_memory_path):
    return write_files(module_memory_path / "many", 16)


@pytest.fixture(scope="module")
def prepared_many(module_memory_path, many_units):
    """The uninterrupted run."""
    (module_memory_path / "reference").mkdir()
    run(module_memory_path / "reference" / "out", many_units)
    return results(module_memory_path / "reference")


@pytest.fixture(scope="module")
def crash_states(crash_points, module_memory_path, gin_file, three_units):
    """Every state of output and work folder that a kill of one run can leave; the last is the finished run."""
    watched = module_memory_path / "watched"
    line = command(gin_file, three_units, watched / "out", "--gin.prepare.launcher='inline'")
    return crash_points.record(line, watched, module_memory_path / "states", {"PYTHONPATH": str(ROOT)})


def chosen(states, unit: str):
    """Returns the states of the stages that see the whole corpus and of one unit of the others.

    Of the many pieces in which a file is written the first, whole and half, and the last are taken: what lies between
    differs in length.
    """
    some = []
    for key, group in itertools.groupby(states, key=lambda state: (state.operation.path, _is_write(state))):
        same = list(group)
        inner = key[0].partition("/watched/")[2].split("/")
        per_unit = "parts" in inner or inner[1].startswith(("score-", "decide-")) if len(inner) > 2 else False
        if not per_unit or unit in inner:
            some += [*same[:2], *same[2:][-1:]] if key[1] else same
    return some


def _is_write(state) -> bool:
    return state.operation.call.startswith("write")


def check_resumes(states, documents: Path, expected: dict[str, bytes]):
    for state in states:
        run(state.folder / "out", documents)
        found = results(state.folder)
        assert found.keys() == expected.keys(), state
        assert [name for name in found if found[name] != expected[name]] == [], state


def test_crash_states_cover_every_stage_and_every_kind_of_change(crash_states, module_memory_path):
    operations = read_log(module_memory_path / "states.log")
    places = [operation.path.partition("/watched/")[2] for operation in operations]
    for stage in (*ONCE, "score-", "decide-"):
        assert any(place.startswith(f"out.work/{stage}") for place in places), stage
    for name in ("parts/000002/ledger.parquet", ".funnel.json.partial", ".report.html.partial"):
        assert f"out/{name}" in places
    assert {operation.call for operation in operations} >= {"mkdir", "open", "write", "rename", "unlink", "rmdir"}
    assert len(crash_states) > 300


def test_a_kill_at_any_change_ends_with_the_same_bytes(crash_states, module_memory_path, three_units):
    states = chosen([state for state in crash_states if state.operation], "000001")
    assert len(states) > 100
    check_resumes(states, three_units, results(module_memory_path / "watched"))


def test_kill_while_clearing_a_build_ends_with_the_same_bytes(
    crash_states, module_memory_path, three_units, tmp_path, monkeypatch
):
    # Of a unit whose states the test above leaves as they are.
    abandoned = next(
        state
        for state in reversed(crash_states)
        if state.operation
        and "/score-" in state.operation.path
        and state.operation.path.endswith("000002/.COMMITTED.json.partial")
    )
    assert list(abandoned.folder.glob("out.work/score-*/000002/BUILDING.json"))
    shutil.copytree(abandoned.folder, tmp_path / "first")
    copies = []
    scandir, unlink = os.scandir, os.unlink

    def copy_before_unlink(path, **options):
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            patch.setattr(os, "scandir", scandir)
            copies.append(shutil.copytree(tmp_path / "first", tmp_path / f"killed_{len(copies)}"))
        unlink(path, **options)

    def marker_first(place):
        return sorted(scandir(place), key=lambda entry: entry.name != "BUILDING.json")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", copy_before_unlink)
        patch.setattr(os, "scandir", _context_of(marker_first))
        run(tmp_path / "first" / "out", three_units)
    assert len(copies) > 4
    for copy in copies:
        run(copy / "out", three_units)
        assert results(copy) == results(module_memory_path / "watched")


def _context_of(listing):
    """Returns a stand-in of os.scandir, which is used in `with` blocks, for a function that returns entries."""
    return lambda place=".": contextlib.nullcontext(listing(place))


@pytest.mark.slow
def test_a_kill_at_every_single_change_ends_with_the_same_bytes(
    crash_points, module_memory_path, gin_file, three_units
):
    watched = module_memory_path / "every" / "watched"
    line = command(gin_file, three_units, watched / "out", "--gin.prepare.launcher='inline'")
    states = crash_points.record(line, watched, module_memory_path / "every" / "states", {"PYTHONPATH": str(ROOT)})
    check_resumes([state for state in states if state.operation], three_units, results(watched))


def test_a_full_disk_is_one_line_and_the_run_goes_on_with_space(
    crash_points, module_memory_path, gin_file, three_units
):
    place = module_memory_path / "filled"
    script = [sys.executable, str(Path(__file__).with_name("filling_prepare.py")), "41"]
    flags = command(gin_file, three_units, place / "out", "--gin.prepare.launcher='inline'")[4:]
    ended = crash_points.run([*script, *flags], place, environment={"PYTHONPATH": str(ROOT)})
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    attempts = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(attempts) > 7 and attempts[-1]["committed"]
    for attempt in attempts[:-1]:
        assert attempt["status"] == 2, attempt
        lines = [line for line in attempt["said"].splitlines() if not line.startswith("prepare: ")]
        assert len(lines) == 1 and lines[0].startswith("apertus: ") and "the disk is full" in lines[0], attempt
        assert not attempt["committed"], attempt


def stopped_midway(gin_file, source, output):
    """Starts a command with two workers and returns it once it has done some units and stands still, not yet finished.

    On a busy machine it can have ended before it is looked at; then it is started again.
    """
    for _ in range(5):
        process = start(gin_file, source, output, "--gin.prepare.workers=2")
        wait_for(lambda: committed_units(output), process)
        os.killpg(process.pid, signal.SIGSTOP)
        if not artifacts.is_complete(output):
            return process
        os.killpg(process.pid, signal.SIGCONT)
        process.communicate(timeout=60)
        for folder in (output, output.with_name(f"{output.name}.work")):
            shutil.rmtree(folder)
    raise AssertionError("the command ended before it could be stopped, five times")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_is_one_line_and_leaves_no_process(gin_file, many_units, prepared_many, tmp_path, number):
    output = tmp_path / "out"
    process = stopped_midway(gin_file, many_units, output)
    # A terminal sends its interrupt to the whole group, a scheduler ends the command.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    os.killpg(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    what = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM; run the same command again to go on"}
    assert (process.returncode, said) == (128 + number, f"apertus: {what[number]}\n")
    wait_until_gone(lambda: group_of(process))
    run(output, many_units)
    assert results(tmp_path) == prepared_many


def test_worker_killed_alone_is_one_line_and_next_run_completes(gin_file, many_units, prepared_many, tmp_path):
    output = tmp_path / "out"
    process = stopped_midway(gin_file, many_units, output)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    os.killpg(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and said.count("\n") == 1, said
    assert "a worker process died" in said and "run the command again" in said
    run(output, many_units)
    assert results(tmp_path) == prepared_many


@pytest.mark.slow
def test_workers_end_when_their_command_is_killed(gin_file, many_units, prepared_many, tmp_path):
    output = tmp_path / "out"
    process = stopped_midway(gin_file, many_units, output)
    process.kill()
    process.wait()
    os.killpg(process.pid, signal.SIGCONT)
    wait_until_gone(lambda: workers_of(process))
    process.communicate(timeout=60)
    run(output, many_units)
    assert results(tmp_path) == prepared_many


def test_two_commands_on_one_output_do_not_harm_each_other(gin_file, many_units, prepared_many, tmp_path):
    output = tmp_path / "out"
    processes = [start(gin_file, many_units, output, "--gin.prepare.launcher='inline'") for _ in range(2)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    for said, status in ended:
        assert status in (0, 2), said
        *before, last = said.splitlines()
        assert ("documents kept" if status == 0 else "is in use by process") in last, said
        assert len(before) == (status == 0) and all("out.work keeps the scores" in line for line in before), said
    assert 0 in [status for _, status in ended]
    assert results(tmp_path) == prepared_many


@pytest.mark.slow
def test_many_random_kills_end_with_the_same_bytes(gin_file, many_units, prepared_many, tmp_path):
    generator = random.Random(50)
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        output = tmp_path / str(rounds) / "out"
        output.parent.mkdir()
        work = output.with_name("out.work")
        while True:
            process = start(gin_file, many_units, output, "--gin.prepare.workers=2")
            wait_for(work.exists, process)
            try:
                process.communicate(timeout=generator.uniform(0.0, 8.0))
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
        assert process.returncode == 0
        assert results(output.parent) == prepared_many
        shutil.rmtree(output.parent)
    assert rounds > 2

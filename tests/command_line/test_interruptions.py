"""A command that is asked to end says one line, cleans up, and ends with the same bytes when it is started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apertus_jax.process.interruptions import Interruption, exit_status, signals_interrupt, told
from tests.tiny_experiment import WORDS

ROOT = Path(__file__).parents[2]


def tokenizing(documents, output):
    command = [sys.executable, "-m", "apertus_jax", "tokenize", f"--input={documents}", f"--output={output}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "--gin.tokenize.vocab_size=2048"], env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def content(folder):
    """Returns what the command wrote, but for the record of its configuration, which names the folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "operative_config.gin"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Enough to be at work on for seconds."""
    generator = random.Random(3)
    path = tmp_path_factory.mktemp("documents") / "texts.jsonl"
    with path.open("w") as file:
        for _ in range(1500):
            text = " ".join(f"{word}{generator.randrange(9000)}" for word in generator.choices(WORDS, k=120))
            file.write(json.dumps({"text": text}) + "\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(documents, tmp_path_factory):
    """What tokenize writes when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    process = tokenizing(documents, folder)
    process.communicate(timeout=240)
    assert process.returncode == 0
    return content(folder)


def interrupted(documents, output, number):
    """Sends a signal to a command as soon as it builds; returns how it ended."""
    process = tokenizing(documents, output)
    while not (output / "BUILDING.json").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=240)
    return process.returncode, said


def test_command_asked_to_end_leaves_nothing_and_ends_the_same(documents, undisturbed, tmp_path):
    expected = {
        signal.SIGINT: (130, "apertus: interrupted\n"),
        signal.SIGTERM: (143, "apertus: ended by SIGTERM; run the same command again to go on\n"),
    }
    output = tmp_path / "store"
    for number, ended in expected.items():
        assert interrupted(documents, output, number) == ended
        assert list(tmp_path.iterdir()) == []
    assert interrupted(documents, output, signal.SIGKILL)[0] == -signal.SIGKILL
    assert (output / "BUILDING.json").exists()
    process = tokenizing(documents, output)
    process.communicate(timeout=240)
    assert process.returncode == 0
    assert content(output) == undisturbed


def test_interruption_within_exec_has_the_same_status(tmp_path):
    (tmp_path / "interrupted_command.py").write_text(
        "import sys\n"
        "from apertus_jax import cli\n"
        "cli._run = lambda arguments: exec('raise KeyboardInterrupt')\n"
        "sys.exit(cli.main(['doctor']))\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "interrupted_command"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "apertus: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_raises_in_the_block_and_old_handling_returns(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as raised, signals_interrupt():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert isinstance(raised.value, Interruption)
    assert exit_status(raised.value) == 128 + number and number.name in told(raised.value)
    assert exit_status(KeyboardInterrupt()) == 130 and told(KeyboardInterrupt()) == "interrupted"
    assert signal.getsignal(number) == before


def test_signals_that_are_ignored_or_handled_stay_so():
    heard = []
    before = [signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda *_: heard.append(1))]
    try:
        with signals_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])


def test_a_forked_worker_ends_at_once_and_without_a_word():
    code = (
        "import os, signal, time\n"
        "from apertus_jax.process.interruptions import signals_interrupt\n"
        "with signals_interrupt():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        time.sleep(30)\n"
        "    time.sleep(0.3)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("-15\n", "")

"""Freed memory: what a long-lived process has freed goes back to the system, and Arrow's share of it does too."""

import json
import os
import platform
import subprocess
import sys

import pytest

from apertus_jax import cli
from apertus_jax.process import malloc_trim
from apertus_jax.process.malloc_trim import ARROW_ALLOCATOR, return_freed_memory

# Small buffers between large ones that stay, so that nothing is freed at the end of the heap by itself.
PROGRAM = """
import json, sys
import pyarrow
from apertus_jax.process.malloc_trim import return_freed_memory

def anonymous():
    [line] = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1000

pyarrow.array(range(10))
before = anonymous()
arrays = [pyarrow.array([str(number) * 20] * 100) for number in range(20_000)]
full = anonymous()
del arrays[1::2], arrays[1:]
returned = return_freed_memory()
print(json.dumps([pyarrow.default_memory_pool().backend_name, returned, before, full, anonymous()]))
"""


def run(**variables):
    """Returns (allocator, whether memory was returned, megabytes before, at most and after) of a program."""
    environment = {name: value for name, value in os.environ.items() if name not in ARROW_ALLOCATOR} | variables
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns memory when asked")
def test_a_process_shrinks_to_what_it_holds():
    allocator, returned, before, full, after = run(**ARROW_ALLOCATOR)
    assert (allocator, returned) == ("system", True)
    assert full - before > 100
    assert after - before < 0.1 * (full - before)


def test_command_line_chooses_the_allocator_if_nobody_did(monkeypatch):
    [(name, value)] = ARROW_ALLOCATOR.items()
    monkeypatch.delenv(name, raising=False)
    cli.prepare_arrow()
    assert os.environ[name] == value
    monkeypatch.setenv(name, "mimalloc")
    cli.prepare_arrow()
    assert os.environ[name] == "mimalloc"


def test_freed_memory_is_asked_back_now_and_then(monkeypatch):
    monkeypatch.setattr(malloc_trim, "_next_time", 0.0)
    assert return_freed_memory() is (platform.libc_ver()[0] == "glibc")
    assert return_freed_memory() is False  # just done

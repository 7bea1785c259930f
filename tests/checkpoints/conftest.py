"""Where the tests that save hundreds of times write: in memory, because every save waits for the disk."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.checkpoints.crash_points import CrashPoints

IN_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def crash_points(tmp_path_factory):
    """The compiled interposer; skips where it cannot be built."""
    return CrashPoints.build(tmp_path_factory.mktemp("crash_points"))


@pytest.fixture(scope="module")
def module_memory_path():
    """A folder for the tests of one module, in memory where the system offers that."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="apertus_crash_", dir=place) as folder:
        yield Path(folder)


@pytest.fixture
def memory_path(module_memory_path):
    """A fresh folder for one test, in memory where the system offers that."""
    return Path(tempfile.mkdtemp(dir=module_memory_path))

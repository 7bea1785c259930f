"""Where the tests that save hundreds of times write: in memory, because every save waits for the disk."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def memory_path(module_memory_path):
    """A fresh folder for one test, in memory where the system offers that."""
    return Path(tempfile.mkdtemp(dir=module_memory_path))

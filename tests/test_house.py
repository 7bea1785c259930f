"""The house: which room may import which, and what must never be imported to train."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "apertus_jax"
EVERYWHERE = {"errors", "artifacts", "model_folder", "tensor_files", "reporting", "run_folder"}
EVERYWHERE |= {"freed_memory", "lazy_names", "printable"}
MAY_IMPORT = {
    "corpus": set(),
    "data": {"corpus"},
    "model": set(),
    "objectives": set(),
    "optimization": set(),
    "sharding": set(),
    "checkpoints": {"sharding"},
    "training": {"data", "model", "objectives", "optimization", "sharding", "checkpoints"},
    "inference": {"model", "sharding"},
    "evaluation": {"model", "inference", "data", "objectives", "sharding", "checkpoints"},
    "release": {"model", "sharding", "checkpoints"},
    "pipeline": set(),
}


def imported_rooms(path: Path) -> set[str]:
    """Returns the names right below `apertus_jax` that a module imports anywhere in its text."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "apertus_jax":
            parts = node.module.split(".")
            rooms.update(parts[1:2] or [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            rooms.update(a.name.split(".")[1] for a in node.names if a.name.startswith("apertus_jax."))
    return rooms - {"__version__"}


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_room_imports_only_what_the_house_allows(room):
    allowed = MAY_IMPORT[room] | EVERYWHERE | {room}
    for path in (PACKAGE / room).rglob("*.py"):
        foreign = imported_rooms(path) - allowed
        assert not foreign, f"{path.relative_to(PACKAGE)} imports {sorted(foreign)}"


@pytest.mark.parametrize("room", ["corpus"])
def test_corpus_does_not_know_jax(room):
    for path in (PACKAGE / room).rglob("*.py"):
        names = {a.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for a in n.names}
        assert not any(name.split(".")[0] == "jax" for name in names), path


def test_every_room_is_in_the_table():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize(
    "statement",
    [
        "import apertus_jax",
        "import apertus_jax.training, apertus_jax.evaluation, apertus_jax.release, apertus_jax.inference",
        "from apertus_jax import cli, configuration\nconfiguration.register(cli.locations())",
    ],
)
def test_training_path_imports_neither_tensorflow_nor_seqio_nor_torch(statement):
    unwanted = ("tensorflow", "seqio", "torch", "tensorflow_datasets")
    code = f"{statement}\nimport sys\nprint([m for m in {unwanted} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

"""Layering: which package may import which, no circles, small packages, no TensorFlow or torch to train."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "apertus_jax"
# Below every other package: they know nothing of documents, models or runs.
TOP_MODULES = {"errors", "clock", "validation", "lazy_imports", "mix64", "source_keys", "unspaced_scripts"}
FOUNDATION = TOP_MODULES | {"storage", "terminal", "reports", "process"}
MAX_MODULES = 15
FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")})
MAY_IMPORT = {
    "storage": set(),
    "terminal": set(),
    "reports": set(),
    "process": set(),
    "corpus": {"chat"},
    "chat": set(),
    "data": {"corpus", "chat"},
    "model": set(),
    "objectives": set(),
    "optimization": set(),
    "sharding": set(),
    "checkpoints": {"sharding", "model"},
    "training": {"data", "model", "objectives", "optimization", "sharding", "checkpoints"},
    "inference": {"model", "sharding", "checkpoints"},
    "evaluation": {"model", "inference", "data", "objectives", "sharding", "checkpoints"},
    "release": {"chat", "model", "sharding", "checkpoints"},
    "pipeline": {"configuration", "model", "training", "sweeps"},
    "sweeps": {"configuration", "data", "training", "evaluation"},
    "configuration": set(),
    "command_line": {"commands", "configuration"},
}
# The foundation has layers of its own.
BELOW = {
    "storage": {"errors", "clock", "validation"},
    "terminal": {"errors", "storage"},
    "reports": {"errors", "storage"},
    "process": {"errors", "storage"},
}


def imported_packages(path: Path) -> set[str]:
    """Returns the names right below `apertus_jax` that a module imports anywhere in its text."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "apertus_jax":
            parts = node.module.split(".")
            packages.update(parts[1:2] or [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            packages.update(a.name.split(".")[1] for a in node.names if a.name.startswith("apertus_jax."))
    return packages - {"__version__"}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_package_imports_only_what_the_table_allows(package):
    allowed = MAY_IMPORT[package] | BELOW.get(package, FOUNDATION) | {package}
    for path in (PACKAGE / package).rglob("*.py"):
        foreign = imported_packages(path) - allowed
        assert not foreign, f"{path.relative_to(PACKAGE)} imports {sorted(foreign)}"


def test_corpus_does_not_import_jax():
    for path in (PACKAGE / "corpus").rglob("*.py"):
        names = {a.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for a in n.names}
        assert not any(name.split(".")[0] == "jax" for name in names), path


def test_every_package_is_in_the_table():
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == set(MAY_IMPORT)


@pytest.mark.parametrize(
    "statement",
    [
        "import apertus_jax",
        "import apertus_jax.training, apertus_jax.evaluation, apertus_jax.release, apertus_jax.inference",
        "from apertus_jax import cli, configuration\nconfiguration.register(cli.locations())",
    ],
)
def test_training_path_imports_no_tensorflow_seqio_or_torch(statement):
    unwanted = ("tensorflow", "seqio", "torch", "tensorflow_datasets")
    code = f"{statement}\nimport sys\nprint([m for m in {unwanted} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def module_graph() -> dict[str, set[str]]:
    """Returns module → modules of this package that it imports when it is imported itself, or for type checkers."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {}
    for name, path in names.items():
        found = set()
        statements = ast.parse(path.read_text()).body
        statements += [inner for outer in statements if isinstance(outer, ast.If) for inner in outer.body]
        for node in statements:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    found.add(full if full in names else node.module)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
        graph[name] = (found & set(names)) - {name}
    return graph


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter(module_graph()).prepare()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_package_has_at_most_fifteen_modules(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MAX_MODULES

"""The installed package: what the core imports, what doctor needs, what a missing extra says, what the wheel holds."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from apertus_jax.process.failures import as_user_error
from apertus_jax.process.missing_packages import as_missing_package
from tests.test_requirements import requirements

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CPU_EXTRAS = ("train", "corpus", "evaluate", "seqio", "plots")
ALONE = [
    "--gin.Policy.not_asked=['removal','robots','signals','toxicity','contamination']",
    "--gin.prepare.launcher='inline'",  # a process of its own would not hide what this one hides
]
# As in an environment where only what is named is installed.
WITHOUT = """
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


def names_of(extras):
    """The packages of the core and of some extras, extras of our own resolved."""
    pending, found = [*PROJECT["dependencies"]], set()
    for extra in extras:
        pending += PROJECT["optional-dependencies"][extra]
    while pending:
        each = Requirement(pending.pop())
        if canonicalize_name(each.name) == "apertus-jax":
            pending += [line for extra in each.extras for line in PROJECT["optional-dependencies"][extra]]
        else:
            found.add(canonicalize_name(each.name))
    return found


def test_requirements_are_the_cpu_extras_and_pytest():
    listed = {canonicalize_name(each.name) for each in requirements(ROOT / "requirements.txt")}
    assert listed == names_of(CPU_EXTRAS) | {"pytest"}


def test_extras_have_lower_bounds_and_no_pins():
    lines = [line for extra in PROJECT["optional-dependencies"].values() for line in extra] + PROJECT["dependencies"]
    for each in map(Requirement, lines):
        if canonicalize_name(each.name) != "apertus-jax":
            assert [only.operator for only in each.specifier] == [">="], each


def test_pins_satisfy_the_lower_bounds():
    pins = {canonicalize_name(each.name): each for each in requirements(ROOT / "requirements.txt")}
    for line in PROJECT["dependencies"] + [x for extra in CPU_EXTRAS for x in PROJECT["optional-dependencies"][extra]]:
        each = Requirement(line)
        if canonicalize_name(each.name) in pins:
            (pin,) = pins[canonicalize_name(each.name)].specifier
            assert each.specifier.contains(pin.version), line


def test_core_imports_no_package_of_an_extra():
    unwanted = ("tensorflow", "gin", "pyarrow", "orbax", "grain", "tokenizers", "safetensors", "torch", "tensorboard")
    code = (
        "import sys, apertus_jax.objectives, apertus_jax.optimization, apertus_jax.sharding\n"
        "from apertus_jax.model import ModelConfig, Transformer\n"
        "from apertus_jax.objectives import cross_entropy, goldfish_mask\n"
        "from apertus_jax.optimization import ademamix, wsd_schedule\n"
        f"print([name for name in {unwanted} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run_without(hidden, arguments, folder):
    """Runs a command in an environment that lacks some packages."""
    code = WITHOUT.format(hidden=set(hidden)) + f"from apertus_jax.cli import main\nsys.exit(main({arguments!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)


def test_doctor_runs_on_the_standard_library_alone(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom apertus_jax.cli import main\nsys.exit(main(['doctor']))"
    )
    command = [sys.executable, "-S", "-c", code]  # -S: without the packages of the environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "devices: unknown without jax" in done.stdout and "grain: missing" in done.stdout


@pytest.mark.parametrize(
    ("hidden", "arguments", "extra"),
    [
        ("gin", ["pretrain", "--output=run"], "train"),
        ("tokenizers", ["tokenize", "--input=my.jsonl", "--output=out"], "train"),
        (
            "fasttext",
            ["prepare", "--gin_file=policies/quickstart.gin", "--input=my.jsonl", "--output=out", *ALONE],
            "corpus",
        ),
    ],
)
def test_missing_extra_is_one_line_that_names_it(tmp_path, hidden, arguments, extra):
    (tmp_path / "my.jsonl").write_text('{"text": "A text.", "licence": "CC0-1.0"}\n')
    done = run_without([hidden], arguments, tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("apertus: ")]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert f"pip install 'apertus_jax[{extra}]'" in lines[0]
    assert not any((tmp_path / name).exists() for name in ("out", "run"))


def test_a_module_of_ours_that_is_missing_stays_a_bug():
    error = ModuleNotFoundError("No module named 'apertus_jax.nowhere'", name="apertus_jax.nowhere")
    assert as_missing_package(error) is None and as_user_error(error, "run") is None


def test_wheel_would_hold_every_gin_file():
    """What setup.py takes into the package `apertus_jax.gin_configs`, against what lies there."""
    patterns = ("*.gin", "*.jsonl")
    taken = {path for pattern in patterns for path in (ROOT / "gin_configs").rglob(pattern)}
    assert taken == {path for path in (ROOT / "gin_configs").rglob("*") if path.is_file()}
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"**/{pattern}"' in setup for pattern in patterns)

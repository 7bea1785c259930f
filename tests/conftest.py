"""Every test sees eight fake CPU devices, so that one process can stand in for a mesh."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    # With several mesh axes XLA:CPU's default scheduler starts collectives in another order on each fake device, and
    # they wait for each other for ever; in program order they do not.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_force_host_platform_device_count=8 --xla_cpu_enable_concurrency_optimized_scheduler=false"
    )
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Shells ignore these for what they start in the background; commands under test would inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
# Programs compiled once serve every test process, of this run and the next.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

HERE = Path(__file__).parent
QUICK_COMPILATION = "JAX_DISABLE_MOST_OPTIMIZATIONS"
# Folders and files that ask what commands and runs do, not what numbers they compute: there LLVM's optimizations, half
# of a compilation, are left out, while XLA's own passes are the same. All other programs are compiled as users' are,
# and `make test-slow` compiles all so. Files that share runs are all here or none of them.
QUICKLY_COMPILED = {
    "evaluation",
    "model/test_context_parallelism.py",
    "sweeps",
    "test_goldfish_ablation.py",
    "training/survival/test_step_guard.py",
    "training/test_plan.py",
    "training/test_training_with_kernels.py",
}
CHOSEN_BY_HAND = QUICK_COMPILATION in os.environ
IN_MEMORY = Path("/dev/shm")
# Minutes each. Workers take files in this order, so that none is left with a long one at the end.
LONGEST_FILES = (
    "test_documented_commands.py",
    "test_notebooks.py",
    "test_resume.py",
    "test_meshes.py",
    "test_memorization_audit.py",
    "test_train_step.py",
    "test_documented_help.py",
    "test_extending_the_model.py",
    "test_processes.py",
)


def pytest_collection_modifyitems(items):
    """Puts the longest files first; `make test` tells the workers to keep the order."""
    rank = {name: number for number, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Chooses how programs are compiled, in this process and in those that it starts, before any fixture does."""
    path = item.path.relative_to(HERE)
    quick = path.parts[0] in QUICKLY_COMPILED or path.as_posix() in QUICKLY_COMPILED
    if not CHOSEN_BY_HAND and os.environ.get(QUICK_COMPILATION) != str(int(quick)):
        os.environ[QUICK_COMPILATION] = str(int(quick))
        if "jax" in sys.modules:
            import jax

            jax.config.update(QUICK_COMPILATION.lower(), quick)
            jax.clear_caches()  # of the other kind


@pytest.fixture
def one_torch_thread():
    """Torch's threads wait for each other on processors that are busy: one is soonest at the sizes of tests."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def crash_points(tmp_path_factory):
    """The compiled interposer; skips where it cannot be built."""
    from tests.checkpoints.crash_points import CrashPoints

    return CrashPoints.build(tmp_path_factory.mktemp("crash_points"))


@pytest.fixture(scope="module")
def module_memory_path():
    """A folder for a module that saves hundreds of times: in memory where there is one, for saves wait for the disk."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="apertus_tests_", dir=place) as folder:
        yield Path(folder)

"""What the system, memory, XLA and file formats raise is one line that names what to do; bugs keep their traceback."""

import errno
import gzip
import io
import json
import lzma
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import pyarrow
import pyarrow.parquet
import pytest
import safetensors
import safetensors.numpy

from apertus_jax.errors import UserError
from apertus_jax.process import failures

ROOT = Path(__file__).parents[1]


def raised_by(action):
    """Returns what a call raises."""
    with pytest.raises(BaseException) as caught:
        action()
    return caught.value


def line_of(error, doing="export"):
    told = failures.as_user_error(error, doing)
    assert isinstance(told, UserError), repr(error)
    assert "\n" not in str(told) and len(str(told)) < 800
    return str(told)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_system_errors_are_one_line_that_names_the_place(number):
    line = line_of(OSError(number, os.strerror(number), "/data/out"))
    assert line.startswith("/data/out: ") and len(line) > len("/data/out: ")


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda: os.stat("n" * 300), "longer than the file system allows"),
        (lambda: os.stat("/proc/version/x"), "is a file, not a folder"),
        (lambda: os.open("/dev", os.O_WRONLY), "is a folder"),
        (lambda: os.stat("/no/such"), "does not exist"),
        (lambda: os.mkdir("/proc/x"), "/proc/x: "),
        (lambda: os.mkdir("/dev/null/x"), "/dev/null/x: "),
    ],
)
def test_places_that_cannot_be_used_are_named(action, said):
    assert said in line_of(raised_by(action))


def fill():
    """Writes more than the device takes."""
    with open("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)


def test_a_full_disk_is_told_however_a_library_spells_it():
    spelled = [
        OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError('Error writing local file "/data/x": No space left on device [tensorstore_spec=…]'),
        ValueError("RESOURCE_EXHAUSTED: No space left on device"),
        # As the library raises it; a device in place of the disk would not do, because it renames over its target.
        safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        raised_by(fill),
        ExceptionGroup("several", [OSError(errno.ENOSPC, "No space left on device")]),
    ]
    for error in spelled:
        assert "the disk is full" in line_of(error) or "quota is used up" in line_of(error), error
        assert failures.is_full_disk(error)
    assert not failures.is_full_disk(ValueError("no space in this name"))


def test_device_memory_error_names_plan_and_helpful_settings():
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore")
    line = line_of(error, "pretrain")
    for word in ("pretrain: ", "apertus plan", "BatchSchedule", "accumulation", "remat", "sequence_length", "9 bytes"):
        assert word in line
    other = line_of(jax.errors.JaxRuntimeError("INTERNAL: something\nelse"))
    assert "INTERNAL: something" in other and "apertus doctor" in other


def test_a_real_allocation_that_fails_names_the_settings():
    script = (
        "import resource, jax, jax.numpy as jnp\n"
        "from apertus_jax.process.failures import as_user_error\n"
        "jnp.zeros(8).block_until_ready()\n"
        "try:\n    jnp.ones((1 << 41,), jnp.float32).block_until_ready()\n"
        "except Exception as error:\n    print(as_user_error(error, 'pretrain'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("pretrain: ") and "apertus plan" in done.stdout, done


def test_memory_of_the_machine_is_told():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26), limits[1]))
    try:
        error = raised_by(lambda: bytearray(1 << 34))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert "ran out of memory" in line_of(error)
    assert "ran out of memory" in line_of(pyarrow.ArrowMemoryError("malloc of size 9 failed"))


def damaged_parquet():
    return pyarrow.parquet.read_table(io.BytesIO(b"PAR1" + b"\0" * 40 + b"PAR1"))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (damaged_parquet, "generate: "),
        (lambda: pyarrow.array(["\ud800"]), "U+D800 cannot be written"),
        (lambda: safetensors.numpy.load(b"\xff" * 20), "truncated or damaged"),
        (lambda: json.loads("{"), "JSON that is damaged"),
        (lambda: zlib.decompress(b"no"), "compressed content"),
        (lambda: lzma.decompress(b"no"), "compressed content"),
        (lambda: gzip.decompress(b"no gzip"), "compressed content"),
        (lambda: gzip.decompress(gzip.compress(b"x" * 100)[:20]), "truncated"),
        (lambda: b"\xff".decode(), "not utf-8 (byte 0xff at 0)"),
        (lambda: "é".encode("ascii"), "U+00E9 cannot be written as ascii"),
        (lambda: json.loads("[" * 100_000), "nested too deeply"),
    ],
)
def test_content_that_cannot_be_read_is_one_line(action, said):
    assert said in line_of(raised_by(action), "generate")


@pytest.mark.parametrize("place", ["s3://bucket/x", "https://host/x", "foo://x"])
def test_places_that_no_backend_reaches_are_one_line(place):
    from etils import epath

    assert place.partition("//")[0] in line_of(raised_by(lambda: epath.Path(place).exists()))


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), ValueError("x"), AssertionError(), RuntimeError("x")])
def test_a_bug_of_ours_keeps_its_traceback(error):
    error.__context__ = OSError(errno.ENOENT, "was only being handled")
    assert failures.as_user_error(error, "export") is None


def test_what_a_library_wraps_is_looked_into():
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert line_of(wrapped).startswith("/data/x: the disk is full")
    ours = UserError("already said")
    assert failures.as_user_error(ours, "export") is ours


def test_nothing_heavy_is_imported_to_say_that_something_failed():
    heavy = ("jax", "pyarrow", "numpy", "orbax", "tensorstore", "safetensors")
    code = f"import apertus_jax.process.failures, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done

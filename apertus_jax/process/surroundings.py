"""Environment settings of jax, XLA and Arrow that must be right before a command starts."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

from apertus_jax.errors import UserError
from apertus_jax.process.malloc_trim import ARROW_ALLOCATOR

FAKE_DEVICES_FLAG = "--xla_force_host_platform_device_count"
PROGRAM_ORDER_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
COMPILATION_CACHE = os.path.join(os.path.expanduser("~"), ".cache", "apertus_jax", "compiled")
# These need no other process to be told whether XLA takes them.
KNOWN_FLAGS = re.compile(rf"{FAKE_DEVICES_FLAG}=[1-9][0-9]{{0,3}}|{PROGRAM_ORDER_FLAG}=(true|false)")
FATAL_LINE = re.compile(r"^[EF]\d{4} [^\]]*\] (.*)$", re.MULTILINE)
LONGEST_REASON = 200
PROBE_SECONDS = 60
# Address space that a command takes at least beyond its imports: stacks and arenas of the threads of XLA or Arrow. They
# end the process, or wait for ever, when a thread cannot be made.
JAX_ADDRESS_SPACE, ADDRESS_SPACE = 2**30, 2**28
PLATFORMS = ("cpu", "gpu", "tpu")


def prepare_jax() -> None:
    """Keeps compiled programs between runs, unless the environment chose a place already.

    Fake CPU devices also get the scheduler that runs collectives in program order: with XLA:CPU's default one, meshes
    of several axes can wait for each other for ever.

    Raises:
      UserError: XLA would not take its flags.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", COMPILATION_CACHE)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    # Where in jax something failed says what failed: a platform that cannot start may raise an error without text.
    os.environ.setdefault("JAX_TRACEBACK_FILTERING", "off")
    flags = os.environ.get("XLA_FLAGS", "")
    if flags and not flags.strip():  # XLA would take blanks for the name of a file, and end the process
        flags = os.environ["XLA_FLAGS"] = ""
    if FAKE_DEVICES_FLAG in flags and PROGRAM_ORDER_FLAG not in flags:
        flags = os.environ["XLA_FLAGS"] = f"{flags} {PROGRAM_ORDER_FLAG}=false"
    check_xla_flags(flags)


def choose_devices(platform: str, count: int) -> None:
    """Lets jax, which must not have started yet, compute on one platform, or on so many devices.

    CPUs are simulated (XLA calls them fake devices of the host); of GPUs the first ones are taken. `check_devices` says
    afterwards whether it came so.

    Args:
      platform: cpu, gpu or tpu; "" leaves the choice to jax.
      count: how many devices; 0 for all that there are, one where there are only CPUs.

    Raises:
      UserError: XLA_FLAGS names another number.
    """
    if platform:
        # CPUs stay known beside another platform; what comes first computes.
        os.environ["JAX_PLATFORMS"] = "cpu" if platform == "cpu" else f"{platform},cpu"
    if not count:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    named = re.search(rf"{FAKE_DEVICES_FLAG}=(\S+)", flags)
    if named and named[1] != str(count):
        raise UserError(f"--devices={count}, and XLA_FLAGS has {named[0]}; give one of them")
    if not named:
        os.environ["XLA_FLAGS"] = f"{flags} {FAKE_DEVICES_FLAG}={count}".strip()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible is not None else [str(number) for number in range(count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[:count])


def check_devices(platform: str, count: int) -> None:
    """Checks that jax has started with the devices that were chosen; starts it.

    Raises:
      UserError: there is no such platform here, or another number of devices.
    """
    if not platform and not count:
        return
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        if not platform:
            raise
        raise UserError(
            f"--device={platform}: jax finds none here; leave the flag out, or let `apertus doctor` say what this "
            "machine has"
        ) from error
    found = jax.default_backend()
    if platform and found != platform:
        raise UserError(f"--device={platform}: jax computes on {found} here; leave the flag out")
    if count and len(devices) != count:
        raise UserError(f"--devices={count}: jax has {len(devices)} devices of {found} here; give that, or no number")


def prepare_arrow() -> None:
    """Lets Arrow take memory from the C library, which gives it back, unless the environment chose otherwise."""
    for name, value in ARROW_ALLOCATOR.items():
        os.environ.setdefault(name, value)


def check_address_space(uses_jax: bool) -> None:
    """Checks that a limit on the address space (`ulimit -v`) leaves room for the threads of a command.

    Raises:
      UserError: it leaves too little.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    needed = JAX_ADDRESS_SPACE if uses_jax else ADDRESS_SPACE
    if limit == resource.RLIM_INFINITY:
        return
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: what the command meets is told when it meets it
        return
    if limit - taken < needed:
        left, whole = max(limit - taken, 0) >> 20, (taken + needed) >> 20
        raise UserError(
            f"the memory limit (ulimit -v) leaves {left:,} MiB of address space and {needed >> 20:,} MiB are needed; "
            f"raise it to at least {whole:,} MiB, or lift it with ulimit -v unlimited"
        )


def check_xla_flags(flags: str) -> None:
    """Raises UserError when XLA does not take these flags; it would end the whole process for it.

    Only XLA knows its flags, hundreds of them, so another process tries them, on the CPU: no device is taken.
    """
    if all(KNOWN_FLAGS.fullmatch(flag) for flag in flags.split()):
        return
    try:
        probe = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # then the command itself will tell
        return
    told = probe.stderr.decode(errors="replace")
    reasons = FATAL_LINE.findall(told) or told.split("\n")[-2:-1]
    if probe.returncode and reasons:
        raise UserError(f"XLA_FLAGS={flags.strip()!r}: {reasons[0][:LONGEST_REASON]}; correct XLA_FLAGS or unset it")

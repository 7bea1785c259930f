"""Two processes cannot use one run folder, and a killed one leaves it free."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apertus_jax.errors import UserError
from apertus_jax.storage.lease import HeartbeatLease, LocalLease, acquire_lease

ROOT = {"PYTHONPATH": str(Path(__file__).parents[2])}
HOLDER = r"""
import os, sys, time
from apertus_jax.errors import UserError
from apertus_jax.storage.lease import acquire_lease
try:
    lease = acquire_lease(sys.argv[1])
except UserError as error:
    print(error)
    sys.exit(2)
if "fork" in sys.argv and os.fork() == 0:
    os.write(1, b"forked\n")
    time.sleep(60)
os.write(1, b"held\n")
time.sleep(60)
"""


def holding_process(folder, *arguments):
    command = [sys.executable, "-c", HOLDER, str(folder), *arguments]
    process = subprocess.Popen(
        command, env=os.environ | ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    lines = [process.stdout.readline().strip() for _ in range(1 + len(arguments))]
    return process, " ".join(sorted(lines))


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_second_process_is_told_host_and_pid_of_the_living_first(tmp_path):
    first, said = holding_process(tmp_path)
    try:
        assert said == "held"
        second, line = holding_process(tmp_path)
        assert second.wait() == 2
        assert str(tmp_path) in line and f"process {first.pid} on {socket.gethostname()}" in line
        with pytest.raises(UserError, match=f"process {first.pid} on"):
            acquire_lease(tmp_path)
    finally:
        kill(first)
    with acquire_lease(tmp_path) as lease:
        assert isinstance(lease, LocalLease)


def test_worker_that_outlives_its_parent_keeps_no_lease(tmp_path):
    first, said = holding_process(tmp_path, "fork")
    try:
        assert said == "forked held"
        with pytest.raises(UserError):
            acquire_lease(tmp_path)
        kill(first)
        acquire_lease(tmp_path).release()
    finally:
        os.killpg(first.pid, signal.SIGKILL)


def test_lease_holds_within_one_process_and_ends_with_release(tmp_path):
    with acquire_lease(tmp_path / "new") as lease:
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            acquire_lease(tmp_path / "new")
        lease.check()
    lease.release()
    acquire_lease(tmp_path / "new").release()


def test_heartbeat_lease_refuses_a_second_holder_until_release(tmp_path):
    with HeartbeatLease(tmp_path, heartbeat_seconds=0.3) as lease:
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"):
            HeartbeatLease(tmp_path, heartbeat_seconds=0.3)
        time.sleep(1.5)
        with pytest.raises(UserError):
            HeartbeatLease(tmp_path, heartbeat_seconds=0.3)
        lease.check()
    HeartbeatLease(tmp_path, heartbeat_seconds=0.3).release()


def test_stopped_heartbeat_lease_is_taken_over_and_loss_reported(tmp_path):
    long_ago = time.time() - 1000
    # A clock that stands still: to everyone else, this holder died long ago.
    first = HeartbeatLease(tmp_path, heartbeat_seconds=0.3, clock=lambda: long_ago)
    second = HeartbeatLease(tmp_path, heartbeat_seconds=0.3)
    with pytest.raises(UserError, match="took over the lease"):
        for _ in range(100):
            first.check()
            time.sleep(0.05)
    first.release()
    second.check()
    with pytest.raises(UserError, match="in use"):
        HeartbeatLease(tmp_path, heartbeat_seconds=0.3)
    second.release()
    assert not (tmp_path / "LEASE.json").exists()

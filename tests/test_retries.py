"""Storage that fails for a moment is asked again; storage that fails for good is not."""

import errno

import pytest

from apertus_jax.process.retries import is_transient, retried


class ServiceUnavailable(Exception):
    """As a library of an object store calls it."""


def failing(errors):
    """Returns a function that raises these errors, one a call, and then returns its number of calls."""
    calls = []

    def function():
        calls.append(None)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return len(calls)

    return function


def test_a_transient_error_is_tried_again_and_told(caplog):
    pauses = []
    errors = [OSError(errno.EIO, "Input/output error"), TimeoutError("slow")]
    assert retried(failing(errors), "reading the store", pause=pauses.append) == 3
    assert pauses == [1.0, 2.0]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and told[0].startswith("reading the store failed (OSError") and "attempt 2 of 5" in told[0]


def test_retries_are_bounded():
    pauses = []
    with pytest.raises(OSError, match="stale"):
        retried(failing([OSError(errno.ESTALE, "stale")] * 9), "reading", attempts=3, pause=pauses.append)
    assert pauses == [1.0, 2.0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT])
def test_an_error_that_stays_is_raised_at_once(number):
    def refuse(seconds):
        raise AssertionError("nothing to wait for")

    with pytest.raises(OSError):
        retried(failing([OSError(number, "no")]), "writing", pause=refuse)


def test_errors_of_libraries_are_known_by_name_and_text():
    assert is_transient(ServiceUnavailable()) and is_transient(ConnectionResetError())
    assert is_transient(ValueError("UNAVAILABLE: Error writing gs://bucket/x"))
    assert not is_transient(ValueError("NOT_FOUND")) and not is_transient(OSError(errno.ENOSPC, "UNAVAILABLE"))
    try:
        try:
            raise OSError(errno.EIO, "x")
        except OSError as error:
            raise RuntimeError("saving failed") from error
    except RuntimeError as outer:
        assert is_transient(outer)

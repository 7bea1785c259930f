"""A limit on the address space: told before a command starts, because threads that cannot be made end the process."""

import resource

import pytest

from apertus_jax.errors import UserError
from apertus_jax.process import surroundings


@pytest.mark.parametrize(
    ("uses_jax", "needed"), [(True, surroundings.JAX_ADDRESS_SPACE), (False, surroundings.ADDRESS_SPACE)]
)
def test_too_little_address_space_is_told_with_what_is_needed(monkeypatch, uses_jax, needed):
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    for room, refused in ((needed // 2, True), (needed * 2, False)):
        monkeypatch.setattr(surroundings.resource, "getrlimit", lambda _, room=room: (taken + room, taken + room))
        if refused:
            with pytest.raises(UserError, match=rf"memory limit .* {needed >> 20:,} MiB are needed; raise it"):
                surroundings.check_address_space(uses_jax)
        else:
            surroundings.check_address_space(uses_jax)


def test_no_limit_on_the_address_space_asks_for_nothing(monkeypatch):
    monkeypatch.setattr(surroundings.resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    surroundings.check_address_space(True)

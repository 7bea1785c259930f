"""The 64-bit mixer is splitmix64: the numbers of its authors, one to one, and the same for one number as for many."""

import numpy as np

from apertus_jax.mix64 import GOLDEN_RATIO_64, mix64

# The first outputs of splitmix64 from the state 1234567 (the test of its authors' C code).
PUBLISHED = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
INVERSES = [pow(factor, -1, 1 << 64) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]


def unmixed(value: int) -> int:
    """Undoes the mixer, step by step, in plain integers."""
    mask = (1 << 64) - 1
    for shift, inverse in ((31, INVERSES[1]), (27, INVERSES[0]), (30, 1)):
        undone = value
        for _ in range(3):
            undone = value ^ (undone >> shift)
        value = undone * inverse & mask
    return value


def test_mixer_gives_the_published_numbers_of_splitmix64():
    states = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * GOLDEN_RATIO_64
    assert mix64(states).tolist() == PUBLISHED
    assert [int(mix64(state)) for state in states] == PUBLISHED


def test_mixer_is_one_to_one_and_leaves_its_input_alone():
    values = np.random.default_rng(0).integers(0, 1 << 64, 200, dtype=np.uint64)
    before = values.copy()
    assert [unmixed(int(each)) for each in mix64(values)] == before.tolist()
    assert (values == before).all()

"""Sample order: mixtures, shuffling, packing indices, batch schedules; a pure function of (seed, step)."""

"""Start of a run: where its first state comes from, its own checkpoint, weights of before, or random numbers."""

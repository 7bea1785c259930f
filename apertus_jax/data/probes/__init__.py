"""Memorization probes: planted texts and the files that name them."""

"""Survival of a run: lost and stuck processes, bad steps, wrong bits, and what is said when one of them ends it."""

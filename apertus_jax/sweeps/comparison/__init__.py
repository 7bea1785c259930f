"""Comparison of runs: curves over each other, differences of configuration, figures with intervals over seeds."""

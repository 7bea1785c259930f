"""Benchmark decontamination: finds documents that repeat benchmark items or protected texts."""

from apertus_jax.corpus.contamination.benchmark_index import BenchmarkIndex, BenchmarkItem, read_benchmarks
from apertus_jax.corpus.contamination.rule import ContaminationRule
from apertus_jax.corpus.contamination.scoring import ContaminationScorer, ContaminationScoring

__all__ = [
    "BenchmarkIndex",
    "BenchmarkItem",
    "ContaminationRule",
    "ContaminationScorer",
    "ContaminationScoring",
    "read_benchmarks",
]

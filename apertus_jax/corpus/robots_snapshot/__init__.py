"""Dated snapshots of robots.txt files: the table, its builders, and the verdicts that it gives."""

from apertus_jax.corpus.robots_snapshot.reader import RobotsSnapshot
from apertus_jax.corpus.robots_snapshot.responses import RobotsRecord
from apertus_jax.corpus.robots_snapshot.robots_snapshot_command import build_robots_snapshot
from apertus_jax.corpus.robots_snapshot.scoring import RobotsRule, RobotsScoring
from apertus_jax.corpus.robots_snapshot.states import robots_state

__all__ = [
    "RobotsRecord",
    "RobotsRule",
    "RobotsScoring",
    "RobotsSnapshot",
    "build_robots_snapshot",
    "robots_state",
]

"""Opt-out signals beside robots.txt's allow and disallow, each read by its own plugin with its evidence."""

from apertus_jax.corpus.signals.scoring import KINDS, SignalRule, SignalScoring
from apertus_jax.corpus.signals.signal import Signal

__all__ = ["KINDS", "Signal", "SignalRule", "SignalScoring"]

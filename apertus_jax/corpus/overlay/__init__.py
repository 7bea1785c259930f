"""Synthetic crawl: a made-up web corpus with known answers, planted to test every rule."""

from apertus_jax.corpus.overlay.write_overlay import write_overlay

__all__ = ["write_overlay"]

"""Overlay: a crawl-like corpus of our own invention, in which everything planted is known."""

from apertus_jax.corpus.overlay.write_overlay import write_overlay

__all__ = ["write_overlay"]

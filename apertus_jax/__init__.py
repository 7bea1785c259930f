"""apertus_jax: pretrain language models that respect the people whose text they learn from."""

__version__ = "0.1.0"

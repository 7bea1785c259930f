"""Hugging Face import and export."""

from apertus_jax.release.huggingface import export, import_huggingface, load_huggingface, save_huggingface

__all__ = ["export", "import_huggingface", "load_huggingface", "save_huggingface"]

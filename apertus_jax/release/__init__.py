"""Hugging Face import and export."""

from apertus_jax.release.huggingface import export_huggingface, import_huggingface, load_huggingface, save_huggingface

__all__ = ["export_huggingface", "import_huggingface", "load_huggingface", "save_huggingface"]

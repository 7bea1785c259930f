"""Hugging Face import and export."""

from apertus_jax.checkpoints.huggingface_repository import load_huggingface
from apertus_jax.release.export_command import export
from apertus_jax.release.huggingface import save_huggingface
from apertus_jax.release.import_command import import_huggingface

__all__ = ["export", "import_huggingface", "load_huggingface", "save_huggingface"]

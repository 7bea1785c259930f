"""Decoding with a key/value cache."""

from apertus_jax.inference.cache import init_cache
from apertus_jax.inference.decoding import decoding_parameters, generate_tokens
from apertus_jax.inference.generate_command import generate
from apertus_jax.inference.sampling import Sampling
from apertus_jax.inference.stop_strings import GeneratedText, generate_texts

__all__ = [
    "GeneratedText",
    "Sampling",
    "decoding_parameters",
    "generate",
    "generate_texts",
    "generate_tokens",
    "init_cache",
]

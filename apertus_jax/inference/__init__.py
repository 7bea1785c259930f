"""Decoding with a key/value cache."""

from apertus_jax.inference.cache import init_cache
from apertus_jax.inference.decoding import decoding_parameters, generate_tokens
from apertus_jax.inference.generation import generate
from apertus_jax.inference.sampling import Sampling

__all__ = ["Sampling", "decoding_parameters", "generate", "generate_tokens", "init_cache"]

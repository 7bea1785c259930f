"""Random parameters of any architecture, well away from their initial values, so that every tensor matters."""

import numpy as np
from flax.traverse_util import unflatten_dict

from apertus_jax.model import ModelConfig
from apertus_jax.model.parameters import parameter_shapes

CENTRE_AND_SPREAD = {"scale": (1.0, 0.1), "alpha_p": (0.2, 0.2), "alpha_n": (-1.0, 0.2)}


def random_parameters(config: ModelConfig, seed: int = 0, spread: float = 0.08) -> dict:
    """Returns float32 parameters; `spread` is the deviation of the matrices."""
    random = np.random.default_rng(seed)
    flat = {}
    for path, shape in parameter_shapes(config).items():
        noise = random.standard_normal(shape).astype(np.float32)
        centre, width = CENTRE_AND_SPREAD.get(path.rsplit("/", 1)[1], (0.0, spread))
        flat[path] = (centre + width * noise).astype(np.float32)
    return unflatten_dict(flat, sep="/")

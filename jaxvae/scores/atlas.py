"""Atlas z: the z-score of each pixel over healthy images.

    |x - mean| / (deviation + eps)

The mean and the standard deviation are of one pixel and channel over the healthy images. eps is a tenth of the root
mean square of all deviations, so that a pixel that never changes, such as the background, is not divided by zero.
Without any deviation, eps is 1. No network is used; images need a common position and scale.

Source: the z-score map of voxelwise statistics, e.g. Friston et al. 1994, Statistical parametric maps in functional
imaging. They test for an effect; this is the score of one image.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.models.model import Model
from jaxvae.objectives.elbo import Likelihood
from jaxvae.ops.filters import unit_range
from jaxvae.types import Array, Params

BLOCK = 256  # images that are read at a time


def fit(
    model: Model,
    params: Params,
    images: np.ndarray,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
    eps: float = 0.1,
) -> dict[str, np.ndarray]:
    """The mean and the deviation of each pixel.

    Args:
      model, params, log_scale, likelihood: unused.
      images: healthy images [N, H, W, C], uint8 or float; N of at least 1. They are read once, block by block.
      eps: what is added to each deviation, as a share of the root mean square of all deviations.

    Returns:
      mean and deviation (eps added), [H, W, C] float32 each.
    """
    count, mean, squares = 0, np.zeros(images.shape[1:]), np.zeros(images.shape[1:])
    for start in range(0, len(images), BLOCK):
        block = np.asarray(unit_range(images[start : start + BLOCK]), np.float64)
        # Chan et al. 1983: the sum of squares about the mean of two sets. A sum of x^2 would lose digits.
        step = block.mean(axis=0) - mean
        total = count + len(block)
        squares += len(block) * block.var(axis=0) + np.square(step) * count * len(block) / total
        mean += step * len(block) / total
        count = total
    floor = eps * np.sqrt(squares.mean() / count)
    deviation = np.sqrt(squares / count) + (floor if floor > 0 else 1.0)
    return {"mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}


@jax.jit(static_argnames=("model", "likelihood"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
    state: dict[str, Array],
) -> dict[str, Array]:
    """`atlas`, [B, H, W, C].

    Args:
      model, params, log_scale, likelihood: unused.
      images: [B, H, W, C], uint8 or float.
      state: from `fit`.
    """
    return {"atlas": jnp.abs(unit_range(images) - state["mean"][None]) / state["deviation"][None]}

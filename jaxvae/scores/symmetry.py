"""Asymmetry: the least difference of a patch from those at its mirrored place.

    s(p) = least over shifts d of the mean over a patch, u, of |x(p + u) - y(p + d + u)|,  y the mirrored image

The mirror axis is the vertical midline of the image, and shifts reach `reach` pixels in both directions. So an axis off
the middle by half of that, or a small tilt, changes little. An image that equals its mirror image has a score of 0.
Both sides of an asymmetric place score alike. Beyond the border, pixels repeat the border.

Source: the general idea of Erihov et al. 2015, A cross saliency approach to asymmetry-based tumor detection. Theirs
aligns the axis first and compares patches by more than their distance; there is no public code.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.models.model import Model
from jaxvae.objectives.elbo import Likelihood
from jaxvae.ops.filters import unit_range
from jaxvae.scores.gradients import in_blocks
from jaxvae.types import Array, Params


@jax.jit(static_argnames=("model", "likelihood", "patch", "reach"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
    state: None = None,
    patch: int = 5,
    reach: int = 3,
) -> dict[str, Array]:
    """`asymmetry`, [B, H, W, C], each channel on its own.

    Args:
      model, params, log_scale, likelihood, state: unused.
      images: [B, H, W, C], uint8 or float.
      patch: odd size of the patches.
      reach: the largest shift along each axis.
    """
    half = patch // 2
    height, width = images.shape[1:3]

    def block(images: Array) -> Array:
        padded = _padded(images, half)
        mirrored = _padded(images[:, :, ::-1], half + reach)

        def nearer(shift: Array, least: Array) -> Array:
            down, across = shift // (2 * reach + 1), shift % (2 * reach + 1)
            start = (0, down, across, 0)
            difference = jnp.abs(padded - lax.dynamic_slice(mirrored, start, padded.shape))
            rows: Any = sum(difference[:, i : i + height] for i in range(patch))
            means = sum(rows[:, :, i : i + width] for i in range(patch)) / patch**2
            return jnp.minimum(least, means)

        return lax.fori_loop(0, (2 * reach + 1) ** 2, nearer, jnp.full_like(images, jnp.inf))

    return {"asymmetry": in_blocks(block, unit_range(images))}


def _padded(images: Array, size: int) -> Array:
    return jnp.pad(images, ((0, 0), (size, size), (size, size), (0, 0)), mode="edge")

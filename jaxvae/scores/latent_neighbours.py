"""The distance of an image to the k-th nearest healthy posterior mean.

    knn_latent(x) = |m(x) - m(x_(k))|,    x_(k) the k-th nearest of the healthy images in the latent space

m(x) is the mean of q(z|x); means with a place [h, w, Z] are compared as one long vector.

Source: Ramaswamy, Rastogi & Shim 2000. Goldstein & Uchida 2016 compare it with other detectors. Of many healthy images,
10,000 evenly spaced ones are kept.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.errors import InputError
from jaxvae.models.model import Model, encode
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.scores.gradients import in_blocks
from jaxvae.types import Array, Params

State = dict[str, Array | np.ndarray]
BATCH = 64  # healthy images that are encoded at a time


def fit(
    model: Model,
    params: Params,
    images: np.ndarray,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    most: int = 10_000,
) -> State:
    """The posterior means of healthy images.

    Args:
      images: [N, H, W, C], uint8 or float.
      log_scale, likelihood: not used.
      most: images to keep; of more images, evenly spaced ones are taken.

    Returns:
      {"means": [n, Z]}, or [n, h w Z] for latents with a place.
    """
    chosen = np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)
    means = []
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        filled = np.pad(batch, (0, BATCH - len(batch)), mode="edge")  # One size is one program.
        means.append(np.asarray(_means(model, params, images[filled]))[: len(batch)])
    return {"means": np.concatenate(means)}


@jax.jit(static_argnames="model")
def _means(model: Model, params: Params, images: Array) -> Array:
    mean = encode(model, params, images).mean
    return mean.reshape(len(mean), -1)


@jax.jit(static_argnames=("model", "likelihood", "neighbours"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: State | None = None,
    neighbours: int = 5,
) -> dict[str, Array]:
    """The distance of each image to its k-th nearest healthy one in latent space.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale, likelihood: not used.
      state: from `fit`.
      neighbours: k; of fewer healthy images, the farthest counts.

    Returns:
      {"knn_latent": [B]}, at least 0.

    Raises:
      InputError: there is no state.
    """
    if state is None:
        raise InputError("knn_latent: needs the posterior means of healthy images; call fit, and pass its state")
    healthy = jnp.asarray(state["means"])
    # Around their centre, few digits cancel.
    centre = jnp.mean(healthy, axis=0, keepdims=True)
    centred = healthy - centre
    squares = jnp.sum(jnp.square(centred), axis=1)[None]

    def distance(images: Array) -> Array:
        means = _means(model, params, images)
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, and |a|^2 is the same for all neighbours b.
        products = jnp.matmul(means - centre, centred.T, precision=lax.Precision.HIGHEST)
        _, nearest = lax.top_k(2 * products - squares, min(neighbours, len(healthy)))
        # This only finds the neighbours. Their distances are computed from differences, which keep all digits.
        return jnp.max(jnp.linalg.norm(means[:, None] - healthy[nearest], axis=-1), axis=1)

    return {"knn_latent": in_blocks(distance, images)}

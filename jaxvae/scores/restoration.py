"""MAP restoration: the distance to a likely image nearby.

The restored image y is found by gradient ascent of ELBO(y) - w TV(x - y) from y = x, in 500 steps

    y += a clip(2 s^2 dELBO(y)/dy - w dTV(x - y)/dy, -50, 50),

with a = 0.005 in the first 100 steps and 0.002 after them. TV is the total variation, the sum of the absolute
differences between vertical and horizontal neighbours, and s the standard deviation of the decoder. The score is
|x - y|.

With one s, 2 s^2 ELBO(y) is -|y - x̂|^2 - 2 s^2 KL and a constant, so the paper's steps and weights fit a decoder of
any scale. With a scale per pixel, the slope of each pixel is multiplied by its own s^2.

The weight w is the one of 0, 0.2, ..., 3.8 with the smallest mean |x - y| on healthy images, which need no restoration.
It is not simply the largest: TV has a kink at y = x, and steps of fixed size oscillate about it by up to 4 a w.
Rounding decides the sign of differences near 0. So on another machine, or in a batch of another size, a score can
differ by as much.

Reference: You et al. 2019, "Unsupervised Lesion Detection via Image Restoration with a Normative Prior"; Chen et al.
2020 (arXiv 2005.00031), which maximizes the ELBO. The published code differs from it and from this module: its data
term is |y - x̂|^2 + KL whatever s is (here that of s^2 = 1/2), it draws z again in each step, and it changes only
pixels in a mask of the brain. Here z is the mean, so a score repeats.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.models.model import Model, decoded, encode
from jaxvae.objectives.elbo import Likelihood, gaussian_nll, kl_divergence, nll_of
from jaxvae.ops.filters import unit_range
from jaxvae.scores.gradients import in_blocks
from jaxvae.types import Array, Params

WEIGHTS = tuple(round(0.2 * number, 1) for number in range(20))
PAPER_WEIGHT = 2.2  # of the paper's VAE
STEPS, LONG_STEPS = 500, 100
LONG, SHORT = 5e-3, 2e-3  # the sizes of the first steps and of the others
BOUND = 50.0  # of the gradient of a pixel


@jax.jit(static_argnames=("model", "likelihood", "steps"))
def restore(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    weight: float | Array = PAPER_WEIGHT,
    steps: int = STEPS,
) -> Array:
    """The restored images y of this module's notes, as one program.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale: natural logarithm of s, if the model has not learned it.
      likelihood: the one the model was trained with; static.
      weight: w.
      steps: of the ascent; 0 returns the images.

    Returns:
      [B, H, W, C].
    """

    def loss(restored: Array) -> tuple[Array, Array]:
        posterior = encode(model, params, restored)
        output = decoded(model, params, posterior.mean)
        nll = nll_of(likelihood, restored, output, log_scale)
        scale = jnp.asarray(log_scale if output.log_scale is None else output.log_scale)
        return jnp.sum(kl_divergence(model, params, posterior, posterior.mean)) + jnp.sum(nll), scale

    def block(images: Array) -> Array:
        def step(restored: Array, size: Array) -> tuple[Array, None]:
            slope, scale = jax.grad(loss, has_aux=True)(restored)
            slope = 2 * jnp.exp(2 * scale) * slope + weight * variation_slope(restored - images)
            return restored - size * jnp.clip(slope, -BOUND, BOUND), None

        sizes = jnp.where(jnp.arange(steps) < LONG_STEPS, LONG, SHORT)
        return lax.scan(step, images, sizes)[0]

    return in_blocks(block, unit_range(images))


@jax.jit(static_argnames=("model", "likelihood", "steps"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: dict[str, Any] | None = None,
    steps: int = STEPS,
) -> dict[str, Array]:
    """|x - y|, with the restored image y.

    Args:
      state: from `fit`; None: the weight of the paper's VAE.
      model, params, images, log_scale, likelihood, steps: see `restore`.

    Returns:
      restoration, [B, H, W, C].

    >>> import jax, jaxvae
    >>> model = jaxvae.DenseVAE(image_shape=(8, 8, 1), latent_size=2, hidden_size=16)
    >>> images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    >>> state = fit(model, params, images, weights=(0.0, 2.0), steps=20)
    >>> score(model, params, images, state=state, steps=20)["restoration"].shape
    (3, 8, 8, 1)
    """
    weight = PAPER_WEIGHT if state is None else state["weight"]
    restored = restore(model, params, images, log_scale=log_scale, likelihood=likelihood, weight=weight, steps=steps)
    return {"restoration": jnp.abs(unit_range(images) - restored)}


def fit(
    model: Model,
    params: Params,
    images: np.ndarray | Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    weights: tuple[float, ...] = WEIGHTS,
    count: int = 16,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Choose the weight w with the smallest mean |x - y| on healthy images.

    Args:
      images: [N, H, W, C], healthy.
      weights: to choose from.
      count: images that are restored with each weight, evenly spaced in `images`. Two sets of 16 synthetic brain slices
        chose the same weight.
      model, params, log_scale, likelihood, steps: see `restore`.

    Returns:
      weight, [].
    """
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    chosen = unit_range(jnp.asarray(images[places]))
    changes = _changes(model, params, chosen, log_scale, jnp.asarray(weights, jnp.float32), likelihood, steps)
    return {"weight": np.float32(weights[int(np.argmin(changes))])}


@jax.jit(static_argnames=("model", "likelihood", "steps"))
def _changes(
    model: Model,
    params: Params,
    images: Array,
    log_scale: float | Array,
    weights: Array,
    likelihood: Likelihood,
    steps: int,
) -> Array:
    """The mean |x - y| for each weight."""

    def change(weight: Array) -> Array:
        restored = restore(
            model, params, images, log_scale=log_scale, likelihood=likelihood, weight=weight, steps=steps
        )
        return jnp.mean(jnp.abs(images - restored))

    return lax.map(change, weights)


def variation_slope(images: Array) -> Array:
    """A gradient of the total variation of images; 0 where neighbours are equal."""

    def along(axis: int) -> Array:
        signs = jnp.sign(jnp.diff(images, axis=axis))
        return -jnp.diff(jnp.pad(signs, [(int(axis == other), int(axis == other)) for other in range(4)]), axis=axis)

    return along(1) + along(2)

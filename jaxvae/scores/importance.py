"""The importance-weighted bound of -log p(x), one number per image.

    iwae(x) = -log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),    z_k drawn from q(z|x)

It is between the negative ELBO and -log p(x) on average, and approaches -log p(x) with many draws. K = 1 is the ELBO
at one draw of z. As an anomaly score it is the likelihood itself, without the gap of the ELBO. The score `elbo` is
computed at z = mean, without the variance of the draws, so it can be below this bound.

Source: Burda, Grosse & Salakhutdinov 2016, section 3; as an anomaly score Xiao, Yan & Amit 2020. The code of the latter
draws 5 times 200 latents.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from jaxvae.errors import InputError
from jaxvae.models.model import Model, decoded, encode, has_own_prior
from jaxvae.objectives.elbo import Likelihood, gaussian_nll, nll_of, pixel_sum
from jaxvae.ops.filters import unit_range
from jaxvae.scores.gradients import in_blocks
from jaxvae.types import Array, Params, Posterior


@jax.jit(static_argnames=("model", "likelihood", "draws"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: None = None,
    draws: int = 64,
) -> dict[str, Array]:
    """The negative importance-weighted bound of each image, in nats.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale, likelihood: see `elbo_terms`.
      state: not used.
      draws: K. All images have the same noise, so the score of an image does not depend on its batch.

    Returns:
      {"iwae": [B]}.

    Raises:
      InputError: the model has its own prior, whose density is unknown; or draws is below 1.
    """
    if has_own_prior(model):
        problem = "has its own prior, and iwae needs the density of a standard normal prior"
        raise InputError(f"iwae: {type(model).__name__} {problem}; leave iwae out")
    if draws < 1:
        raise InputError(f"draws={draws}: must be at least 1")

    def bound(images: Array) -> Array:
        images = unit_range(images)
        posterior = encode(model, params, images)

        def log_weight(noise: Array) -> Array:
            latents = posterior.mean + jnp.exp(posterior.log_std) * noise
            nll = pixel_sum(nll_of(likelihood, images, decoded(model, params, latents), log_scale))
            # log p(z) - log q(z|x); the constants of the two Gaussians cancel.
            ratios = posterior.log_std + 0.5 * (jnp.square(noise) - jnp.square(latents))
            return jnp.sum(ratios, axis=range(1, ratios.ndim)) - nll

        # One draw after the other: the memory is that of one pass through the decoder.
        log_weights = lax.map(log_weight, shared_noise(posterior, draws))  # [K, B]
        return jnp.log(jnp.float32(draws)) - logsumexp(log_weights, axis=0)

    return {"iwae": in_blocks(bound, images)}


def shared_noise(posterior: Posterior, draws: int, seed: int = 0) -> Array:
    """Standard normal noise that all images share, [K, 1, Z] or [K, 1, h, w, Z]."""
    # threefry, whatever JAX's default is: the scores are the same everywhere.
    return jax.random.normal(jax.random.key(seed, impl="threefry2x32"), (draws, 1, *posterior.mean.shape[1:]))

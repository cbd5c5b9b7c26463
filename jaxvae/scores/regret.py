"""Likelihood regret: what the ELBO of an image gains by its best posterior.

    likelihood_regret(x) = ELBO(x; q(z|x)) - min over q of ELBO(x; q),    ELBO the negative one, q a Gaussian

The encoder gives nearly the best posterior of images like those it was trained on, and a bad one of others. The minimum
is searched from the encoder's mean and log_std by Adam.

Source: Xiao, Yan & Amit 2020. They optimise a copy of the encoder's weights for each image (100 steps of
Adam). This is the cheap form: the mean and log_std of the image itself are optimised, for all images of a batch at
once. The learning rate is ours, as theirs is for weights.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxvae.models.model import Model, decoded, encode
from jaxvae.objectives.elbo import Likelihood, gaussian_nll, kl_divergence, nll_of, pixel_sum
from jaxvae.ops.filters import unit_range
from jaxvae.scores.gradients import in_blocks
from jaxvae.scores.importance import shared_noise
from jaxvae.types import Array, Params, Posterior


@jax.jit(static_argnames=("model", "likelihood", "steps", "draws"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: None = None,
    steps: int = 100,
    learning_rate: float | Array = 0.05,
    draws: int = 16,
) -> dict[str, Array]:
    """The negative ELBO at the encoder's posterior, minus that at the best, in nats.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale, likelihood: see `elbo_terms`.
      state: not used.
      steps: of Adam. Each has one draw of z and its mirror image at the mean.
      learning_rate: of the first step; it falls to 0 as a cosine.
      draws: of z, each with its mirror image, to estimate both ELBOs. All images have the same noise, in the steps too.

    Returns:
      {"likelihood_regret": [B]}, at least 0: the encoder's posterior is one of the candidates.
    """
    schedule, adam = optax.cosine_decay_schedule(1.0, max(1, steps)), optax.scale_by_adam()

    def regret(images: Array) -> Array:
        images = unit_range(images)
        start = encode(model, params, images)

        def negative_elbo(posterior: Posterior, noise: Array) -> Array:
            # A draw and its mirror image cancel the first order of the noise.
            def at(latents: Array) -> Array:
                nll = pixel_sum(nll_of(likelihood, images, decoded(model, params, latents), log_scale))
                return kl_divergence(model, params, posterior, latents) + nll

            offset = jnp.exp(posterior.log_std) * noise
            return 0.5 * (at(posterior.mean + offset) + at(posterior.mean - offset))

        def step(carry: tuple[Posterior, optax.OptState], xs: tuple[Array, Array]) -> tuple[tuple, None]:
            posterior, moments = carry
            noise, rate = xs
            # The sum over images, so the gradient of each image is its own. Adam works value by value.
            gradient = jax.grad(lambda q: jnp.sum(negative_elbo(q, noise)))(posterior)
            direction, moments = adam.update(gradient, moments)
            posterior = jax.tree.map(lambda value, change: value - rate * change, posterior, direction)
            return (posterior, moments), None

        # New noise in each step: Adam would adapt log_std to the directions of a few draws.
        rates = jnp.asarray(learning_rate * schedule(jnp.arange(steps)))
        carry = (start, adam.init(start))
        (best, _), _ = lax.scan(step, carry, (shared_noise(start, steps, seed=1), rates))
        both = lax.map(
            lambda noise: (negative_elbo(start, noise), negative_elbo(best, noise)), shared_noise(start, draws)
        )
        before, after = (jnp.mean(values, axis=0) for values in both)
        return jnp.maximum(before - after, 0.0)

    return {"likelihood_regret": in_blocks(regret, images)}

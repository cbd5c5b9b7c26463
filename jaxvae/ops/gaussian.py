"""Gaussians with diagonal covariance: the KL to N(0, I), and the NLL of each value."""

import math

import jax.numpy as jnp

from jaxvae.types import Array, Posterior

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def gaussian_kl(posterior: Posterior) -> Array:
    """KL(q(z|x) || N(0, I)) in nats, summed over the latent.

    0.5 * sum(exp(2 s) + m^2 - 1 - 2 s), with m = mean and s = log_std.

    Args:
      posterior: mean and log_std, [B, Z] or [B, h, w, Z] each.

    Returns:
      [B], at least 0; 0 if q is the prior.

    Reference: Kingma & Welling 2014, appendix B.

    >>> import jax.numpy as jnp, jaxvae
    >>> prior = jaxvae.Posterior(mean=jnp.zeros((1, 2)), log_std=jnp.zeros((1, 2)))
    >>> gaussian_kl(prior).tolist()
    [0.0]
    """
    mean, log_std = posterior
    # expm1 keeps the digits that exp(2 s) - 1 loses near the prior.
    return 0.5 * jnp.sum(jnp.expm1(2 * log_std) - 2 * log_std + jnp.square(mean), axis=range(1, mean.ndim))


def gaussian_nll(images: Array, means: Array, *, log_scale: float | Array) -> Array:
    """-log N(x; mean, exp(log_scale)^2) per pixel, in nats, with its constants.

    (x - mean)^2 / (2 exp(2 log_scale)) + log_scale + 0.5 log(2 pi).

    Args:
      images, means: [B, H, W, C].
      log_scale: natural logarithm of the decoder's standard deviation, one number or [B, H, W, C].

    Returns:
      [B, H, W, C]; negative for a small error at a small scale.
    """
    return 0.5 * jnp.square((images - means) * jnp.exp(-log_scale)) + log_scale + HALF_LOG_2PI

"""Arrays, keys, parameters, and the records that functions return.

Letters in shapes: B images; H, W, C rows, columns and channels; Z latents; R runs; S steps.
"""

from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # A typed key, from `jax.random.key`.
Params = dict[str, Any]  # Nested dictionaries of arrays, as Flax makes them.


class Posterior(NamedTuple):
    """q(z|x), a Gaussian with diagonal covariance."""

    mean: Array  # [B, Z], or [B, h, w, Z] with a latent per place
    log_std: Array  # as mean; natural logarithm of the standard deviation


class Decoded(NamedTuple):
    """p(x|z), a Gaussian per pixel."""

    mean: Array  # [B, H, W, C]
    log_scale: Array | None = None  # [] or [B, H, W, C], log standard deviation that the model has learned; None: fixed


class ElboTerms(NamedTuple):
    """The two terms of the negative ELBO, in nats."""

    kl: Array  # [B]
    nll: Array  # [B, H, W, C]


class SampleScores(NamedTuple):
    """One number per image, in nats; higher is more anomalous."""

    elbo: Array  # [B], kl + nll: the NEGATIVE ELBO
    kl: Array  # [B]
    nll: Array  # [B], summed over pixels and channels


class PixelScores(NamedTuple):
    """One number per pixel, at least 0; higher is more anomalous."""

    rec_error: Array  # [B, H, W, C], squared error of the reconstruction
    elbo_grad: Array  # [B, H, W, C], |d(KL + NLL)/dx|
    kl_grad: Array  # [B, H, W, C], |dKL/dx|
    rec_grad: Array  # [B, H, W, C], |dNLL/dx|


class StepMetrics(NamedTuple):
    """The metrics of one training step: means over its batch, in nats."""

    loss: Array  # [], beta * kl + nll
    kl: Array  # []
    nll: Array  # [], summed over pixels and channels
    grad_norm: Array  # [], before clipping

"""The loss of an autoencoder: the NLL at the mean of z, without a KL."""

import jax.numpy as jnp

from jaxvae.models.model import Model, reconstruct
from jaxvae.objectives.elbo import Likelihood, gaussian_nll, nll_of
from jaxvae.ops.filters import unit_range
from jaxvae.types import Array, ElboTerms, Key, Params


def autoencoder_terms(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    targets: Array | None = None,
) -> ElboTerms:
    """-log p(x|z) at z = mean of q(z|x). No z is drawn, and the KL is 0.

    Also for models without a latent, whose output is compared with `targets`.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      key: consumed for dropout; None drops no unit.
      log_scale, likelihood, targets: see `elbo_terms`.

    Returns:
      kl, zeros [B], and nll [B, H, W, C] in nats.

    Reference: Baur et al. 2021, section 3.1 (dense and spatial autoencoders). They sum |x - reconstruction|; the
    default here is the Gaussian likelihood.
    """
    images = unit_range(images)
    targets = images if targets is None else unit_range(targets)
    nll = nll_of(likelihood, targets, reconstruct(model, params, images, key), log_scale)
    return ElboTerms(jnp.zeros(len(images)), nll)

"""The negative ELBO in two terms, KL(q(z|x) || p(z)) and -E log p(x|z)."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.models.model import Model, decoded, encode, has_latent, has_own_prior, reconstruct, reparameterize
from jaxvae.ops.filters import flat, unit_range
from jaxvae.ops.gaussian import gaussian_kl, gaussian_nll
from jaxvae.types import Array, Decoded, ElboTerms, Key, Params, Posterior


class Likelihood(Protocol):
    """-log p(x|z) per pixel, in nats, such as `gaussian_nll`.

    The arguments are the images and the decoder's output, [B, H, W, C] each.
    """

    def __call__(self, images: Array, means: Array, /, *, log_scale: float | Array) -> Array: ...


def kl_divergence(model: Model, params: Params, posterior: Posterior, latents: Array) -> Array:
    """KL(q(z|x) || p(z)) in nats, [B].

    That of the model's own prior if it has one, else `gaussian_kl`.

    Args:
      latents: a draw of the posterior or its mean, for priors whose KL has no closed form.
    """
    if has_own_prior(model):
        return model.apply({"params": params}, posterior, latents, method="kl")
    return gaussian_kl(posterior)


def elbo_terms(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    targets: Array | None = None,
) -> ElboTerms:
    """The KL and the NLL of images, at a draw of z or at its mean.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      key: consumed for the draw of z and for dropout; None uses the mean and drops no unit.
      log_scale: natural logarithm of the decoder's standard deviation; a scale that the model has learned replaces it.
      likelihood: of the decoder's output.
      targets: the images that the likelihood is of, if the encoder gets corrupted ones; None: `images`.

    Returns:
      kl [B] and nll [B, H, W, C], in nats. The KL of a model without a latent is 0.

    Reference: Kingma & Welling 2014, equation 10.
    """
    images = unit_range(images)
    targets = images if targets is None else unit_range(targets)
    if not has_latent(model):
        nll = nll_of(likelihood, targets, reconstruct(model, params, images, key), log_scale)
        return ElboTerms(jnp.zeros(len(images)), nll)
    keys: Any = (key, None, None)
    if key is not None and getattr(model, "dropout", 0.0):
        keys = jax.random.split(key, 3)
    posterior = encode(model, params, images, keys[1])
    latents = reparameterize(posterior, keys[0])
    output = decoded(model, params, latents, keys[2])
    return ElboTerms(kl_divergence(model, params, posterior, latents), nll_of(likelihood, targets, output, log_scale))


def nll_of(likelihood: Likelihood, images: Array, output: Decoded, log_scale: float | Array) -> Array:
    """-log p(x|z) per pixel, [B, H, W, C], at the learned scale or at `log_scale`."""
    scale = log_scale if output.log_scale is None else output.log_scale
    return per_pixel(likelihood, images, output.mean, scale)


def per_pixel(likelihood: Likelihood, images: Array, means: Array, log_scale: float | Array) -> Array:
    """The negative log likelihood of each pixel, [B, H, W, C].

    Raises:
      ValueError: the likelihood has another shape, such as for a log_scale per run. Broadcasting would count pixels
        several times.
    """
    nll = likelihood(images, means, log_scale=log_scale)
    if nll.shape != images.shape:
        scale = f" with a log_scale of shape {jnp.shape(log_scale)}" if jnp.ndim(log_scale) else ""
        raise ValueError(f"likelihood{scale}: {nll.shape} for images {images.shape}; must be one number per pixel")
    return nll


def pixel_sum(maps: Array) -> Array:
    """The sum over pixels and channels of maps [B, H, W, C]: [B]."""
    # A product with ones, because jax 0.10 computes a sum in a slower library on CPUs (2 ms of 50 for 64 images).
    # In full precision, because a GPU would otherwise round the maps to ten bits.
    pixels = flat(maps)
    return jnp.matmul(pixels, jnp.ones(pixels.shape[1], pixels.dtype), precision=lax.Precision.HIGHEST)


def negative_elbo(terms: ElboTerms, *, beta: float | Array = 1.0) -> Array:
    """beta * KL + NLL, summed over pixels and channels, in nats: [B].

    Training minimises its mean over the batch.

    Reference: Higgins et al. 2017 (beta-VAE), equation 4.
    """
    return beta * terms.kl + pixel_sum(terms.nll)

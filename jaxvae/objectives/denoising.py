"""Denoising: restore an image from one with coarse noise or noise per pixel."""

from typing import Protocol

import jax
import jax.numpy as jnp

from jaxvae.models.model import Model
from jaxvae.objectives.autoencoder import autoencoder_terms
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.ops.filters import unit_range
from jaxvae.types import Array, ElboTerms, Key, Params


class Corruption(Protocol):
    """A random change of images [B, H, W, C], such as `coarse_noise`; a strength may be traced."""

    def __call__(self, key: Key, images: Array, /) -> Array: ...


def coarse_noise(key: Key, images: Array, *, strength: float | Array = 0.2, grid: int = 16) -> Array:
    """Add noise of low resolution to the foreground of each image.

    Normal noise on a grid x grid lattice per channel, enlarged with bilinear interpolation to the image, rolled by a
    random number of rows and columns, and added to the foreground. The foreground is where a pixel differs from the
    upper left one, which is background in scans. (In the published code it is where the brightness is above a
    threshold.) The noise is relative to the range of the image, because z-scored images have other units.

    Args:
      key: consumed.
      images: [B, H, W, C], float.
      strength: standard deviation of the noise on the lattice, as a share of the highest minus the lowest value of the
        image; .2 in the paper, for intensities in about 0..1.
      grid: side of the lattice; 16 in the paper, for 128x128 images.

    Returns:
      [B, H, W, C].

    Reference: Kascenas et al. 2022, section 2.1.
    """
    batch, height, width, channels = images.shape
    noise_key, row_key, column_key = jax.random.split(key, 3)
    span = jnp.max(images, axis=(1, 2, 3), keepdims=True) - jnp.min(images, axis=(1, 2, 3), keepdims=True)
    coarse = strength * span * jax.random.normal(noise_key, (batch, grid, grid, channels))
    noise = jax.image.resize(coarse, images.shape, "bilinear")
    rows = jax.random.randint(row_key, (batch,), 0, height)
    columns = jax.random.randint(column_key, (batch,), 0, width)
    noise = jax.vmap(lambda one, row, column: jnp.roll(one, (row, column), axis=(0, 1)))(noise, rows, columns)
    foreground = jnp.any(images != images[:, :1, :1], axis=-1, keepdims=True)
    return images + jnp.where(foreground, noise, 0)


def pixel_noise(key: Key, images: Array, *, strength: float | Array = 0.1) -> Array:
    """Add N(0, strength^2) to each pixel.

    If r is the best reconstruction of images with this noise, (r(x) - x) / strength^2 is the gradient of the log
    density of noisy images at x. It tends to that of the images themselves as the strength falls to 0.

    Args:
      key: consumed.
      images: [B, H, W, C], float.
      strength: standard deviation of the noise, sigma in the paper.

    Returns:
      [B, H, W, C].

    Reference: Alain & Bengio 2014, theorem 1.
    """
    return images + strength * jax.random.normal(key, images.shape)


def denoising_terms(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    corrupt: Corruption = coarse_noise,
) -> ElboTerms:
    """The NLL of the clean image, after encoding a noisy one; no KL.

    -log p(x | z), z = mean of q(z | corrupt(x)). Kascenas et al. train on the squared error of the foreground. Here all
    pixels count.

    Args:
      images, log_scale, likelihood: see `elbo_terms`.
      key: consumed for the noise and for dropout; None adds no noise.
      corrupt: makes the noisy images; set its strength with `functools.partial`.

    Returns:
      kl, zeros [B], and nll [B, H, W, C], in nats.

    Reference: Kascenas et al. 2022, section 2.
    """
    images = unit_range(images)
    settings = {"log_scale": log_scale, "likelihood": likelihood, "targets": images}
    if key is None:
        return autoencoder_terms(model, params, images, **settings)
    noise_key, dropout_key = jax.random.split(key)
    return autoencoder_terms(model, params, corrupt(noise_key, images), dropout_key, **settings)

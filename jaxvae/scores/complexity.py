"""Input complexity: likelihood corrected by the length of the PNG file.

    complexity(x) = -log2 P(x) - L(x)

L(x) is the length of the image as a PNG file of 8 bits per value, in bits. A likelihood is high for simple images; the
length is short for them. Higher means that the model needs more bits than a compressor that knows no images.

P(x) is the probability of the image of 8 bits. The model has a density p(x) instead, so P(x) = p(x) d^D with D values
and bins of width d: -log2 P(x) = -log2 p(x) - D log2 d. The negative ELBO at z = mean approximates -log p(x).

The scale of the decoder must fit the errors of the reconstruction. If it is too large, all images have nearly the same
P(x), and the score is the length of the file.

Bins: uint8 images, and float images in 0..1, have d = 1/255. Other float images are quantised between their own least
and greatest value: d = (max - min) / 255 for each image.

Source: Serra et al. 2020. Xiao, Yan & Amit's code (Likelihood-Regret) subtracts bits from nats; here both are
bits. Serra et al. take the shortest of several compressors; this is PNG at level 9 only.
"""

import io
import math

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxvae.models.model import Model
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.scores.gradients import sample_scores
from jaxvae.types import Array, Params


def score(
    model: Model,
    params: Params,
    images: Array | np.ndarray,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: None = None,
) -> dict[str, Array]:
    """The bits of each image under the model, less the bits of its PNG file.

    The files are written on the host, so the images cannot be traced by `jit` or `vmap`; the parameters can.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale, likelihood: see `elbo_terms`.
      state: not used.

    Returns:
      {"complexity": [B]}, in bits.
    """
    elbo = sample_scores(model, params, images, log_scale=log_scale, likelihood=likelihood).elbo
    quantised, widths = quantise(np.asarray(images))
    values = math.prod(images.shape[1:])
    correction = [-values * math.log2(width) - png_bits(it) for it, width in zip(quantised, widths, strict=True)]
    return {"complexity": elbo / math.log(2) + jnp.asarray(correction, jnp.float32)}


def quantise(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 bits, [B, H, W, C] uint8, and the width of a bin in each, [B]."""
    if images.dtype == np.uint8:
        return images, np.full(len(images), 1 / 255)
    values = images.reshape(len(images), -1).astype(np.float64)
    low, high = values.min(axis=1), values.max(axis=1)
    # A constant image has no range.
    inside = ((low >= 0) & (high <= 1)) | (low == high)
    low, width = np.where(inside, np.minimum(low, 0), low), np.where(inside, 1, high - low) / 255
    with np.errstate(invalid="ignore"):  # The ELBO of an image with NaN is NaN too.
        levels = np.clip(np.rint((values - low[:, None]) / width[:, None]), 0, 255).astype(np.uint8)
    return levels.reshape(images.shape), width


def png_bits(image: np.ndarray) -> int:
    """The length of an image [H, W, C] of 8 bits as a PNG file, in bits.

    PNG files have 1 or 3 channels. Other numbers of channels are one grey image, channel below channel.
    """
    channels = image.shape[-1]
    if channels != 3:
        image = np.moveaxis(image, -1, 0).reshape(-1, image.shape[1])
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=9)
    return 8 * len(file.getvalue())

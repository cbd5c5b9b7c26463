"""Combi: maps that multiply or add the reconstruction error and the KL gradient."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from jaxvae.objectives.elbo import HALF_LOG_2PI
from jaxvae.ops.filters import gaussian_smooth
from jaxvae.types import Array, PixelScores

Variant = Literal["product", "nll_product", "weighted_sum"]
Smoothed = Literal["kl_grad", "both"]


def combine(
    scores: PixelScores,
    *,
    sigma: float = 3.0,
    window: int = 7,
    variant: Variant = "product",
    smoothed: Smoothed = "kl_grad",
    log_scale: float | Array = 0.0,
    weight: float | Array = 0.5,
) -> Array:
    """Combi: the reconstruction error where the KL gradient agrees.

    With e = rec_error, g = kl_grad smoothed (and e smoothed too where `smoothed="both"`):

        product        e * g                                                   nothing normalised; the default
        nll_product    (e / (2 c^2) + log c + 0.5 log(2 pi)) * g, c = exp(log_scale)   the paper's; it may be negative
        weighted_sum   (1 - weight) * e + weight * g

    Args:
      scores: maps [B, H, W, C] as `pixel_scores` returns them.
      sigma, window: of the Gaussian; the paper's are 3 and 7.
      variant: which of the three above.
      smoothed: "kl_grad" smooths the gradient only, as the paper does; "both" smooths the error too.
      log_scale: of the decoder, used by nll_product only.
      weight: of the gradient, used by weighted_sum only.
    Returns:
      [B, H, W, C].
    Raises:
      ValueError: an unknown variant, or nothing of that name to smooth.
    Reference: Zimmerer et al. 2019, section 2; the squared error is what later work made of it (e.g. Zimmerer et al.'s
      ceVAE for MOOD 2020): the signed NLL changes its sign on well reconstructed pixels once log_scale < -0.919.
    """
    if smoothed not in ("kl_grad", "both"):
        raise ValueError(f"smoothed={smoothed!r} is unknown; use 'kl_grad' or 'both'")
    gradient = gaussian_smooth(scores.kl_grad, sigma=sigma, window=window)
    error = scores.rec_error
    if smoothed == "both":
        error = gaussian_smooth(error, sigma=sigma, window=window)
    if variant == "product":
        return error * gradient
    if variant == "nll_product":
        return (0.5 * error * jnp.exp(-2 * jnp.asarray(log_scale)) + log_scale + HALF_LOG_2PI) * gradient
    if variant == "weighted_sum":
        return (1 - weight) * error + weight * gradient
    raise ValueError(f"variant={variant!r} is unknown; use 'product', 'nll_product' or 'weighted_sum'")

"""Combi: the product or the sum of the reconstruction error and the KL gradient."""

from typing import Literal

import jax.numpy as jnp

from jaxvae.ops.filters import gaussian_smooth
from jaxvae.ops.gaussian import HALF_LOG_2PI
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
    """Combi: the reconstruction error weighted by the KL gradient.

    With e = rec_error and g = the smoothed kl_grad:

        product        e * g
        nll_product    (e / (2 c^2) + log c + 0.5 log(2 pi)) * g, c = exp(log_scale)
        weighted_sum   (1 - weight) * e + weight * g

    `nll_product` is the paper's. It is negative for well reconstructed pixels if log_scale < -0.919. So later work uses
    the squared error (e.g. Zimmerer et al.'s ceVAE for MOOD 2020), as `product` does.

    Args:
      scores: maps [B, H, W, C] from `pixel_scores`.
      sigma, window: see `gaussian_smooth`.
      variant: one of the three above.
      smoothed: "kl_grad" smooths the gradient only, as the paper does; "both" smooths the error too.
      log_scale: of the decoder, used by nll_product only.
      weight: of the gradient, used by weighted_sum only.

    Returns:
      [B, H, W, C].

    Raises:
      ValueError: an unknown variant, or an unknown value of `smoothed`.

    Reference: Zimmerer et al. 2019, section 2.
    """
    if smoothed not in ("kl_grad", "both"):
        raise ValueError(f"smoothed={smoothed!r}: unknown; use 'kl_grad' or 'both'")
    gradient = gaussian_smooth(scores.kl_grad, sigma=sigma, window=window)
    error = scores.rec_error if smoothed == "kl_grad" else gaussian_smooth(scores.rec_error, sigma=sigma, window=window)
    if variant == "product":
        return error * gradient
    if variant == "nll_product":
        return (0.5 * error * jnp.exp(-2 * jnp.asarray(log_scale)) + log_scale + HALF_LOG_2PI) * gradient
    if variant == "weighted_sum":
        return (1 - weight) * error + weight * gradient
    raise ValueError(f"variant={variant!r}: unknown; use 'product', 'nll_product' or 'weighted_sum'")

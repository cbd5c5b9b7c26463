"""Context encoding: restore erased squares, alone or as half of a VAE's loss.

Two things are ours, because the papers leave them open: the sides of the squares, and their value. An erased square has
the value of the upper left pixel of its image, which is the background of brain scans and of FashionMNIST, however they
are normalised.
"""

import jax
import jax.numpy as jnp

from jaxvae.models.model import Model
from jaxvae.objectives.denoising import denoising_terms
from jaxvae.objectives.elbo import Likelihood, elbo_terms, gaussian_nll
from jaxvae.types import Array, ElboTerms, Key, Params

MOST = 3  # squares per image


def erase(key: Key, images: Array, *, sides: tuple[float, float] = (0.1, 0.4)) -> Array:
    """Erase one to three random squares of each image, the same in all channels.

    Each image has its own squares. Their number is uniform in 1..3, and their sides in `sides`. Their centres are
    uniform over the pixels, so the border cuts some squares off.

    Args:
      key: consumed.
      images: [B, H, W, C], float.
      sides: the range of the sides, as a share of the shorter side of the image.

    Returns:
      [B, H, W, C], with the upper left pixel of each image in its squares.

    Reference: Zimmerer et al. 2018 (ceVAE), section 2; Pathak et al. 2016.
    """
    batch, height, width, _ = images.shape
    number_key, side_key, centre_key = jax.random.split(key, 3)
    used = jnp.arange(MOST)[None] < jax.random.randint(number_key, (batch, 1), 1, MOST + 1)
    halves = jax.random.uniform(side_key, (batch, MOST), minval=sides[0], maxval=sides[1]) * min(height, width) / 2
    centres = jax.random.uniform(centre_key, (2, batch, MOST))
    rows, columns = (
        jnp.abs(jnp.arange(size)[None, None] + 0.5 - size * centre[..., None]) <= halves[..., None]
        for size, centre in zip((height, width), centres, strict=True)
    )  # [B, 3, H] and [B, 3, W]
    inside = jnp.any(used[..., None, None] & rows[..., None] & columns[:, :, None], axis=1)  # [B, H, W]
    return jnp.where(inside[..., None], images[:, :1, :1], images)


def context_terms(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
) -> ElboTerms:
    """The NLL of the whole image, encoded without its squares; no KL.

    -log p(x | z), z = mean of q(z | erase(x)).

    Args:
      images, log_scale, likelihood: see `elbo_terms`.
      key: consumed for the squares and for dropout; None erases nothing.

    Returns:
      kl, zeros [B], and nll [B, H, W, C] over all pixels, in nats.

    Reference: Zimmerer et al. 2018, section 2 (context encoding with z = mean).
    """
    return denoising_terms(model, params, images, key, log_scale=log_scale, likelihood=likelihood, corrupt=erase)


def cevae_terms(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    context_weight: float | Array = 0.5,
) -> ElboTerms:
    """The context-encoding VAE.

    (1 - c) (KL + NLL of the VAE) + c NLL of context encoding, with c = context_weight.

    The two terms are weighted before they are returned. So the metrics of training show (1 - c) KL, and the mixture of
    both NLLs; beta multiplies (1 - c) KL.

    Args:
      images, log_scale, likelihood: see `elbo_terms`.
      key: consumed for the draw of z, the squares and dropout; None uses z = mean and erases nothing.
      context_weight: c, in 0..1; .5 in the paper.

    Returns:
      kl [B] and nll [B, H, W, C], in nats.

    Reference: Zimmerer et al. 2018, equation 4. There, both halves share one batch; so they do here.
    """
    vae_key, context_key = (None, None) if key is None else jax.random.split(key)
    settings = {"log_scale": log_scale, "likelihood": likelihood}
    vae = elbo_terms(model, params, images, vae_key, **settings)
    context = context_terms(model, params, images, context_key, **settings)
    kept = 1 - context_weight
    return ElboTerms(kept * vae.kl, kept * vae.nll + context_weight * context.nll)

"""The loss of the two-stage VAE, whose prior is learned."""

from typing import Any

import jax
from jax import lax

from jaxvae.models.model import decoded, encode, reparameterize
from jaxvae.objectives.elbo import Likelihood, gaussian_kl, gaussian_nll, nll_of
from jaxvae.ops.filters import unit_range
from jaxvae.types import Array, ElboTerms, Key, Params


def two_stage_terms(
    model: Any,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
) -> ElboTerms:
    """The negative ELBO of stage 1 with the prior N(0, I), plus that of stage 2.

    Stage 2 gets the latents as data: no gradient flows from it to stage 1. So both are trained at once, and stage 1 as
    if it were alone. In the paper, stage 2 is trained once stage 1 has finished; here it follows a stage 1 that still
    changes. Beta weights stage 2 too. Above 0 that does not change its best parameters; with 0 it would not learn.

    Args:
      model: a `TwoStageVAE`, or another model with a method `prior(latents, key) -> [B]`.
      images: [B, H, W, C], uint8 (divided by 255) or float.
      key: consumed for the draws of both latents; None uses their means.
      log_scale: not used by a model that learns its scale.
      likelihood: see `elbo_terms`.

    Returns:
      kl: KL(q(z|x) || N(0, I)) + the negative ELBO of z, [B]. The metrics of training show this sum as kl. It is not
      the KL of the scores, which is `TwoStageVAE.kl`.
      nll: that of stage 1, [B, H, W, C], in nats.

    Reference: Dai & Wipf 2019, section 4.
    """
    images = unit_range(images)
    latent_key, prior_key = (None, None) if key is None else jax.random.split(key)
    posterior = encode(model, params, images)
    latents = reparameterize(posterior, latent_key)
    output = decoded(model, params, latents)
    second = model.apply({"params": params}, lax.stop_gradient(latents), prior_key, method="prior")
    return ElboTerms(gaussian_kl(posterior) + second, nll_of(likelihood, images, output, log_scale))

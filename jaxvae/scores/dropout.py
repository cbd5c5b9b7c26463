"""Error and variance of reconstructions with units dropped at random.

With T reconstructions x̂_t at the mean of q(z|x), each with other units dropped:

    dropout_error     1/T sum_t (x - x̂_t)^2
    dropout_variance  1/(T - 1) sum_t (x̂_t - m)^2  +  1/T sum_t s_t^2,    m = 1/T sum_t x̂_t

s_t is the standard deviation of the decoder in pass t if the model has learned it, else 0: a constant ranks nothing.

References: Pawlowski et al. 2018, "Unsupervised Lesion Detection in Brain CT using Bayesian Convolutional
Autoencoders"; Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation", section 4.

Pass t drops the same units for all images and in all calls, so the score of an image does not depend on its batch.
"""

import jax
import jax.numpy as jnp

from jaxvae.models.model import Model, reconstruct
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.ops.filters import unit_range
from jaxvae.scores.gradients import in_blocks
from jaxvae.scores.predictive import predictive
from jaxvae.types import Array, Decoded, Key, Params

PASSES = 32
SEED = 0


@jax.jit(static_argnames=("model", "likelihood", "passes"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: None = None,
    passes: int = PASSES,
) -> dict[str, Array]:
    """The two scores, as one program.

    Args:
      model: has a field `dropout` above 0.
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale, likelihood, state: unused.
      passes: T, at least 2.

    Returns:
      dropout_error and dropout_variance, [B, H, W, C] each.

    Raises:
      ValueError: a model without dropout, or fewer than 2 passes.
    """
    if not getattr(model, "dropout", 0.0):
        raise ValueError(f"model: {type(model).__name__} has no dropout; train one with a `dropout` above 0")
    if passes < 2:
        raise ValueError(f"passes={passes}: a variance needs at least 2")

    def block(images: Array) -> dict[str, Array]:
        def predict(key: Key) -> Decoded:
            # Flax draws a mask for each image of a batch. Mapped over batches of one image, all get the same mask.
            def one(image: Array) -> Decoded:
                output = reconstruct(model, params, image[None], key)
                scale = output.log_scale
                return Decoded(
                    output.mean[0], scale if scale is None else jnp.broadcast_to(scale, image[None].shape)[0]
                )

            return jax.vmap(one)(images)

        keys = jax.random.split(jax.random.key(SEED, impl="threefry2x32"), passes)
        found = predictive(predict, keys, images, log_scale=log_scale, likelihood=likelihood)
        noise = 0.0 if found.noise is None else found.noise
        return {"dropout_error": found.error(images, passes), "dropout_variance": found.variance + noise}

    return in_blocks(block, unit_range(images))

"""Scores over draws of z, and the same scores over the members of a population.

With L predictions of an image x, each with a mean x̂_l and a density p_l per pixel:

    rec_probability   -1/L sum_l log p_l(x)
    draw_variance     v = 1/(L - 1) sum_l (x̂_l - m)^2,    m = 1/L sum_l x̂_l
    mahalanobis       (x - m)^2 / (v + e)

e is 0.01^2, small beside most v of images in 0..1. With the decoder's variance as e, mahalanobis would be the squared
z-score of x under the mixture of all p_l. But v is a few percent of that, so the score would rank pixels as (x - m)^2.

References: An and Cho 2015, "Variational Autoencoder based Anomaly Detection using Reconstruction Probability",
algorithm 4. Its score is the mean of log p_l(x) over pixels; here it is per pixel, and negative. "Leveraging the
Mahalanobis Distance to enhance Unsupervised Brain MRI Anomaly Detection" (arXiv 2407.12474). Its covariance is that of
all pixels of many reconstructions. Here it is diagonal, because L draws cannot estimate the other elements.

The noise is the same for all images and in all calls, so the score of an image does not depend on its batch.
"""

import jax
import jax.numpy as jnp

from jaxvae.models.model import Model, decoded, encode, reconstruct
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.ops.filters import unit_range
from jaxvae.scores.gradients import in_blocks
from jaxvae.scores.predictive import Predictive, predictive
from jaxvae.types import Array, Decoded, Params

DRAWS = 64
SEED = 0
EPSILON = 1e-4


@jax.jit(static_argnames=("model", "likelihood", "draws"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    state: None = None,
    draws: int = DRAWS,
    epsilon: float | Array = EPSILON,
) -> dict[str, Array]:
    """The three scores over draws of z from q(z|x), as one program.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale: natural logarithm of s, if the model has not learned it.
      likelihood: the one the model was trained with; static.
      state: unused.
      draws: L, at least 2. The relative standard error of draw_variance is sqrt(2 / (L - 1)),
        18 % for 64 draws.
      epsilon: e.

    Returns:
      rec_probability (in nats), draw_variance and mahalanobis, [B, H, W, C] each.

    Raises:
      ValueError: fewer than 2 draws.

    >>> import jax, jaxvae
    >>> model = jaxvae.DenseVAE(image_shape=(8, 8, 1), latent_size=2, hidden_size=16)
    >>> images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    >>> {name: values.shape for name, values in score(model, params, images, draws=4).items()}
    {'draw_variance': (3, 8, 8, 1), 'mahalanobis': (3, 8, 8, 1), 'rec_probability': (3, 8, 8, 1)}
    """
    if draws < 2:
        raise ValueError(f"draws={draws}: a variance needs at least 2")

    def block(images: Array) -> dict[str, Array]:
        posterior = encode(model, params, images)
        std = jnp.exp(posterior.log_std)

        def predict(noise: Array) -> Decoded:
            return decoded(model, params, posterior.mean + std * noise[None])

        noise = noise_of(posterior.mean.shape[1:], draws)
        found = predictive(predict, noise, images, log_scale=log_scale, likelihood=likelihood)
        return _scores(found, images, epsilon)

    return in_blocks(block, unit_range(images))


@jax.jit(static_argnames=("model", "likelihood"))
def members(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    epsilon: float | Array = EPSILON,
) -> dict[str, Array]:
    """The three scores over the members of a population, each at z = mean.

    Args:
      params: leaves [R, ...], as `fit_many` returns them; R at least 2.
      images: [B, H, W, C], uint8 (divided by 255) or float.
      log_scale: one number or [R], if the models have not learned it.
      model, likelihood, epsilon: see `score`. The model may lack a latent.

    Returns:
      rec_probability (in nats), draw_variance and mahalanobis, [B, H, W, C] each.

    Raises:
      ValueError: fewer than 2 members.

    >>> import jax, jaxvae
    >>> model = jaxvae.DenseVAE(image_shape=(8, 8, 1), latent_size=2, hidden_size=16)
    >>> images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    >>> keys = jax.random.split(jax.random.key(0), 5)  # Five members, not trained; or use those of `fit_many`.
    >>> params = jax.jit(jax.vmap(lambda key: model.init(key, images)["params"]))(keys)
    >>> members(model, params, images)["draw_variance"].shape
    (2, 8, 8, 1)
    """
    count = jax.tree.leaves(params)[0].shape[0]
    if count < 2:
        raise ValueError(f"params: {count} member; a variance needs at least 2")
    scales = jnp.broadcast_to(jnp.asarray(log_scale, jnp.float32), (count,))

    def block(images: Array) -> dict[str, Array]:
        def predict(member: tuple[Params, Array]) -> Decoded:
            output = reconstruct(model, member[0], images)
            scale = member[1] if output.log_scale is None else output.log_scale
            return Decoded(output.mean, scale)

        found = predictive(predict, (params, scales), images, log_scale=0.0, likelihood=likelihood)
        return _scores(found, images, epsilon)

    return in_blocks(block, unit_range(images))


def noise_of(shape: tuple[int, ...], draws: int) -> Array:
    """Normal noise [L, ...] for latents [Z] or [h, w, Z], the same in every call."""
    # As in `reparameterize`, the first latents get the same noise whatever the latent size.
    return jax.random.normal(jax.random.key(SEED, impl="threefry2x32"), (*shape[::-1], draws)).T


def _scores(found: Predictive, images: Array, epsilon: float | Array) -> dict[str, Array]:
    distance = jnp.square(images - found.mean) / (found.variance + epsilon)
    return {"rec_probability": found.nll, "draw_variance": found.variance, "mahalanobis": distance}

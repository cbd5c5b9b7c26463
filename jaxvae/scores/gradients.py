"""Pixel and image scores from one forward pass and two pullbacks.

Higher is always more anomalous. At z = mean, the score of an image does not depend on the batch. At a draw of z, the
noise depends on the position in the batch. Gradients are taken per image, of the image's own KL and likelihood and with
respect to that image (not of a batch mean).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.models.model import Model, decoded, encode, has_latent, reconstruct, reparameterize
from jaxvae.objectives.elbo import Likelihood, elbo_terms, gaussian_nll, kl_divergence, nll_of, pixel_sum
from jaxvae.ops.filters import unit_range
from jaxvae.ops.forms import Platform, by_platform
from jaxvae.types import Array, Decoded, Key, Params, PixelScores, SampleScores

Result = TypeVar("Result")
GRADIENTS: tuple[str, ...] = ("elbo_grad", "kl_grad", "rec_grad")


@jax.jit(static_argnames=("model", "likelihood"))
def sample_scores(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
) -> SampleScores:
    """The negative ELBO of each image and its two terms, in nats.

    Args:
      images, log_scale: see `elbo_terms`.
      key: consumed for one draw of z per image. None uses z = mean, so an image always gets the same scores.
      likelihood: the one the model was trained with; static.

    Returns:
      elbo = kl + nll, kl, and nll summed over pixels, [B] each.

    Reference: Zimmerer et al. 2019, section 2.
    """
    terms = elbo_terms(model, params, images, key, log_scale=log_scale, likelihood=likelihood)
    nll = pixel_sum(terms.nll)
    return SampleScores(terms.kl + nll, terms.kl, nll)


@jax.jit(static_argnames=("model", "likelihood"))
def pixel_scores(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None = None,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
) -> PixelScores:
    """The squared error and the gradients of the ELBO and its terms, not smoothed.

    rec_error = (x - reconstruction)^2, kl_grad = |dKL/dx|, rec_grad = |dNLL/dx|, elbo_grad = |d(KL + NLL)/dx|. The NLL
    is summed over pixels. x is both the input of the encoder and the target of the likelihood.

    Args:
      images, log_scale, likelihood: see `sample_scores`.
      key: consumed for one draw of z, which the gradients treat as fixed noise. None uses z = mean.

    Returns:
      Four maps, [B, H, W, C] each.

    Reference: Zimmerer et al. 2019, section 2 (KL-Grad, Rec-Grad, ELBO-Grad, Rec-Error).

    >>> import jax, jaxvae
    >>> model = jaxvae.ConvVAE(image_shape=(32, 32, 1), latent_size=8, features=(4, 8))
    >>> images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 1))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    >>> maps = jaxvae.pixel_scores(model, params, images)
    >>> maps.kl_grad.shape, bool((maps.kl_grad >= 0).all())
    ((2, 32, 32, 1), True)
    """

    def maps(images: Array) -> PixelScores:
        return explain(model, params, unit_range(images), key, log_scale, likelihood, GRADIENTS)[0]

    return in_blocks(maps, images) if key is None else maps(images)


def explain(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None,
    log_scale: float | Array,
    likelihood: Likelihood,
    wanted: tuple[str, ...],
) -> tuple[PixelScores, SampleScores, Decoded]:
    """All scores and the reconstructions.

    Gradients that are not in `wanted` are zero. The compiler removes all results that a caller does not use.
    """

    def infer(images: Array) -> tuple[Array, Array]:
        if not has_latent(model):
            return jnp.zeros(len(images)), images
        posterior = encode(model, params, images)
        latents = reparameterize(posterior, key)
        return kl_divergence(model, params, posterior, latents), latents

    def generate(latents: Array) -> Decoded:
        return decoded(model, params, latents) if has_latent(model) else reconstruct(model, params, latents)

    (kl, latents), pull_encoder = jax.vjp(infer, images)
    output, pull_decoder = jax.vjp(generate, latents)
    nll, pull_likelihood = jax.vjp(lambda x, output: nll_of(likelihood, x, output, log_scale), images, output)
    direct, error = pull_likelihood(jnp.ones_like(nll))
    (from_decoder,) = pull_decoder(error)

    # The KL's cotangent never enters the decoder, and the ELBO's gradient is the sum of the other two. So the decoder
    # has one pullback. The encoder has two, computed as one with twice as many images, or one for a single gradient.
    ones, none = jnp.ones_like(kl), jnp.zeros_like(kl)
    cotangents = {"elbo_grad": (ones, from_decoder), "rec_grad": (none, from_decoder)}
    cotangents["kl_grad"] = (ones, jnp.zeros_like(latents))
    names = wanted if len(wanted) < 2 else ("kl_grad", "rec_grad")
    gradients: dict[str, Array] = dict.fromkeys(GRADIENTS, jnp.zeros_like(images))
    if names:
        through_encoder = _pulled(pull_encoder, [cotangents[name] for name in names])
        for name, gradient in zip(names, through_encoder, strict=True):
            gradients[name] = gradient if name == "kl_grad" else gradient + direct
    if len(names) == 2:
        gradients["elbo_grad"] = gradients["kl_grad"] + gradients["rec_grad"]
    absolute = {name: jnp.abs(gradient) for name, gradient in gradients.items()}
    total = pixel_sum(nll)
    return PixelScores(jnp.square(images - output.mean), **absolute), SampleScores(kl + total, kl, total), output


def _pulled(pullback: Callable[[Any], tuple[Array]], cotangents: list[Any]) -> list[Array]:
    """The pullback of each cotangent, as one with all of them or one after the other."""

    def stacked(*cotangents: Any) -> list[Array]:
        (pulled,) = jax.vmap(pullback)(jax.tree.map(lambda *parts: jnp.stack(parts), *cotangents))
        return list(pulled)

    def apart(*cotangents: Any) -> list[Array]:
        return [pullback(cotangent)[0] for cotangent in cotangents]

    return by_platform(lambda platform: stacked if platform.stack_pullbacks else apart, *cotangents)


def in_blocks(score: Callable[[Array], Result], images: Array) -> Result:
    """`score(images)`, in blocks of images where their features fit a cache."""

    def blocked(size: int, images: Array) -> Result:
        # All blocks have one size: the last one is padded with the last image, and the padding's scores are cut off.
        count = len(images)
        number = -(-count // size)
        size = -(-count // number)
        filled = jnp.pad(images, ((0, number * size - count), (0, 0), (0, 0), (0, 0)), mode="edge")
        parts = lax.map(score, filled.reshape(number, size, *images.shape[1:]))
        return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[:count], parts)

    def form(platform: Platform) -> Callable[[Array], Result]:
        return score if platform.block is None or len(images) <= platform.block else partial(blocked, platform.block)

    return by_platform(form, images)

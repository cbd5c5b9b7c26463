"""What does not fit: scores per image and per pixel, from one forward pass and two pullbacks.

Higher is always more anomalous. At z = mean an image's score does not depend on the batch it came in; the noise of a
draw depends on the image's place in it. Gradients are those of each image's own KL and likelihood (not of a batch
mean), with respect to that image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.models import Model, decode, encode, reparameterize
from jaxvae.objectives.elbo import Likelihood, elbo_terms, gaussian_kl, gaussian_nll, per_pixel, pixel_sum
from jaxvae.ops.filters import unit_range
from jaxvae.types import Array, Key, Params, PixelScores, SampleScores

Result = TypeVar("Result")
BLOCK = 64  # Images whose features a processor's caches hold: 256 at once took a fifth longer than four times 64.
AT_ONCE = 1000  # Images that are scored with one draw's key: the released scores depend on it.

GRADIENTS = ("elbo_grad", "kl_grad", "rec_grad")


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
    """One number an image: its negative ELBO and the two terms of it, in nats.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      key: consumed for one draw of z an image; None scores at z = mean, so that the same image always gets the same
        number.
      log_scale: natural logarithm of the decoder's standard deviation.
      likelihood: what the model was trained with, where that is not the Gaussian; static.
    Returns:
      elbo = kl + nll, kl and nll summed over pixels, [B] each.
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
    """One number a pixel: the squared error and the absolute gradients of the ELBO and its terms, unsmoothed.

    rec_error = (x - reconstruction)^2, kl_grad = |dKL/dx|, rec_grad = |dNLL/dx|, elbo_grad = |d(KL + NLL)/dx|, where
    NLL is summed over pixels and x is both what is reconstructed and what is compared.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      key: consumed for one draw of z, held fixed in the gradients; None scores at z = mean.
      log_scale: natural logarithm of the decoder's standard deviation.
      likelihood: what the model was trained with, where that is not the Gaussian; static.
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


def in_blocks(score: Callable[[Array], Result], images: Array) -> Result:
    """`score(images)`, on a processor as many images at a time as its caches hold the features of."""
    count = len(images)
    if count <= BLOCK:
        return score(images)
    number = -(-count // BLOCK)
    size = -(-count // number)

    def by_blocks(images: Array) -> Result:
        # All blocks are of one size: the last one is filled up with the last image, and what is too much is cut off.
        filled = jnp.pad(images, ((0, number * size - count), (0, 0), (0, 0), (0, 0)), mode="edge")
        parts = lax.map(score, filled.reshape(number, size, *images.shape[1:]))
        return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[:count], parts)

    return lax.platform_dependent(images, cpu=by_blocks, default=score)


def explain(
    model: Model,
    params: Params,
    images: Array,
    key: Key | None,
    log_scale: float | Array,
    likelihood: Likelihood,
    wanted: tuple[str, ...],
) -> tuple[PixelScores, SampleScores, Array]:
    """All scores and the reconstruction; of the gradients those that are wanted, the others are zero.

    What else a caller leaves unused, the compiler leaves out.
    """

    def infer(images: Array) -> tuple[Array, Array]:
        posterior = encode(model, params, images)
        return gaussian_kl(posterior), reparameterize(posterior, key)

    (kl, latents), pull_encoder = jax.vjp(infer, images)
    means, pull_decoder = jax.vjp(lambda latents: decode(model, params, latents), latents)
    nll, pull_likelihood = jax.vjp(lambda x, means: per_pixel(likelihood, x, means, log_scale), images, means)
    direct, error = pull_likelihood(jnp.ones_like(nll))
    (from_decoder,) = pull_decoder(error)

    # The KL's cotangent never enters the decoder, and the ELBO's gradient is the sum of the other two. So there is one
    # pullback through the decoder and there are two through the encoder, which go as one of twice as many images; where
    # one gradient is wanted, there is one.
    ones, none = jnp.ones_like(kl), jnp.zeros_like(kl)
    cotangents = {
        "elbo_grad": (ones, from_decoder),
        "kl_grad": (ones, jnp.zeros_like(latents)),
        "rec_grad": (none, from_decoder),
    }
    names = wanted if len(wanted) < 2 else ("kl_grad", "rec_grad")
    gradients = dict.fromkeys(GRADIENTS, jnp.zeros_like(images))
    if names:
        stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *(cotangents[name] for name in names))
        (through_encoder,) = jax.vmap(pull_encoder)(stacked)
        gradients |= {
            name: gradient if name == "kl_grad" else gradient + direct
            for name, gradient in zip(names, through_encoder, strict=True)
        }
    if len(names) == 2:
        gradients["elbo_grad"] = gradients["kl_grad"] + gradients["rec_grad"]
    maps = PixelScores(
        rec_error=jnp.square(images - means),
        **{name: jnp.abs(gradient) for name, gradient in gradients.items()},
    )
    total = pixel_sum(nll)
    return maps, SampleScores(kl + total, kl, total), means

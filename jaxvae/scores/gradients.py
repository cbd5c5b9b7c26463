"""What does not fit: scores per image and per pixel, from one forward pass and two pullbacks.

Higher is always more anomalous. At z = mean an image's score does not depend on the batch it came in; the noise of a
draw depends on the image's place in it. Gradients are those of each image's own KL and likelihood (not of a batch
mean), with respect to that image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxvae.models import Model, decode, encode, reparameterize
from jaxvae.objectives.elbo import HALF_LOG_2PI, Likelihood, elbo_terms, gaussian_kl, gaussian_nll, per_pixel, pixel_sum
from jaxvae.ops.filters import gaussian_smooth, unit_range
from jaxvae.scores import MAPS, PIXEL_SCORES
from jaxvae.sharding import replicate, shared_out, spread
from jaxvae.types import Array, Key, Params, PixelScores, SampleScores

Variant = Literal["product", "nll_product", "weighted_sum"]
Smoothed = Literal["kl_grad", "both"]
Result = TypeVar("Result")
# Images at a time. With 48 the brain network holds 25 to 28 MB of intermediate results, depending on the maps; for more
# than 32 MiB, as some maps of 64 images take, glibc asks the system anew in every call: a sixth of the time.
BATCH = 48
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
        return _explain(model, params, unit_range(images), key, log_scale, likelihood, GRADIENTS)[0]

    return _in_blocks(maps, images) if key is None else maps(images)


def _in_blocks(score: Callable[[Array], Result], images: Array) -> Result:
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


def _explain(
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


class BatchScores(NamedTuple):
    """Everything about a batch of images."""

    samples: SampleScores  # [B] each
    maps: dict[str, Array]  # [B, H, W, C] each, by the names asked for
    reconstructions: Array | None  # [B, H, W, C]


@jax.jit(static_argnames=("model", "likelihood", "maps", "reconstructions", "sigma", "window", "mesh"))
def score_batch(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array = 0.0,
    likelihood: Likelihood = gaussian_nll,
    maps: tuple[str, ...] = MAPS,
    reconstructions: bool = False,
    sigma: float = 3.0,
    window: int = 7,
    mesh: Mesh | None = None,
) -> BatchScores:
    """All scores of a batch in one program, smoothing and Combi included.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      likelihood: see `pixel_scores`; `combi_nll` is the Gaussian's whatever it is.
      maps: which of `MAPS` to compute; what is not asked for is not paid for. The three gradients come smoothed and
        rec_error as it is, as in the paper.
      reconstructions: return them too.
      sigma, window: of the smoothing, see `combine`.
      mesh: from `sharding.own_mesh`; each of its devices scores its share of the images, B being a multiple of them.
    Raises:
      ValueError: an unknown map.
    """
    _refuse_unknown(maps)
    used = {PIXEL_SCORES[name].gradient for name in maps}
    wanted = tuple(name for name in GRADIENTS if name in used)

    def finished(name: str, raw: PixelScores, log_scale: float | Array) -> Array:
        combination, gradient = PIXEL_SCORES[name].combination, PIXEL_SCORES[name].gradient
        if combination is not None:
            return combine(raw, sigma=sigma, window=window, log_scale=log_scale, **combination)
        values = getattr(raw, name)
        return values if gradient is None else gaussian_smooth(values, sigma=sigma, window=window)

    def score(params: Params, log_scale: float | Array, images: Array) -> BatchScores:
        def block(images: Array) -> BatchScores:
            raw, samples, means = _explain(model, params, unit_range(images), None, log_scale, likelihood, wanted)
            found = {name: finished(name, raw, log_scale) for name in maps}
            return BatchScores(samples, found, means if reconstructions else None)

        return _in_blocks(block, images)

    return shared_out(score, mesh, whole=(True, True, False))(params, log_scale, images)


def score_batches(
    model: Model,
    params: Params,
    images: np.ndarray | Array | Iterable[np.ndarray],
    *,
    log_scale: float = 0.0,
    likelihood: Likelihood = gaussian_nll,
    batch_size: int = BATCH,
    maps: Sequence[str] = MAPS,
    reconstructions: bool = False,
    sigma: float = 3.0,
    window: int = 7,
    mesh: Mesh | None = None,
) -> Iterator[BatchScores]:
    """Scores of any number of images, batch after batch, from one compiled program.

    The last batch is padded to the size of the others and cut again, so nothing is dropped and nothing recompiled. One
    batch is computed while the one before is fetched and the next one read.

    Args:
      images: [N, H, W, C], uint8 or float; a memory-mapped array is read batch by batch. Or a stream of such arrays,
        such as the slices of one volume after the other, of which batches are filled across arrays.
      batch_size: images at a time, on each device.
      likelihood, maps, reconstructions, sigma, window, mesh: see `score_batch`.
    Yields:
      The scores of the next images, in order: min(batch_size, what is left) of them, arrays on the host.
    Raises:
      ValueError: an unknown map, a batch_size below 1, arrays of different kinds in a stream, or a mesh of several
        processes.
    """
    maps = maps if isinstance(maps, str) else tuple(maps)
    _refuse_unknown(maps)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is no number of images; give 1 or more")
    devices = 1
    if mesh is not None:
        if mesh.is_multi_process:
            raise ValueError("mesh spans several processes; give the devices of this one, sharding.own_mesh()")
        params, devices = replicate(params, mesh), mesh.size
    if isinstance(images, np.ndarray | Array):
        # A few images are filled up to a power of two, so that not every number of them is a program of its own.
        each = -(-max(1, len(images)) // devices)
        size = devices * min(batch_size, 1 << (each - 1).bit_length())
        batches = (images[start : start + size] for start in range(0, len(images), size))
    else:
        size = devices * batch_size
        batches = _refilled(images, size)

    def score(batch: np.ndarray | Array) -> BatchScores:
        missing = size - len(batch)
        if missing:
            xp = jnp if isinstance(batch, Array) else np  # What lies on the device stays there.
            batch = xp.concatenate([batch, xp.repeat(batch[-1:], missing, axis=0)])
        return score_batch(
            model,
            params,
            jnp.asarray(batch) if mesh is None else spread(batch, mesh),
            log_scale=jnp.float32(log_scale),
            likelihood=likelihood,
            maps=tuple(maps),
            reconstructions=reconstructions,
            sigma=sigma,
            window=window,
            mesh=mesh,
        )

    return _one_ahead(score, batches)


def _one_ahead(
    score: Callable[[np.ndarray | Array], BatchScores], batches: Iterable[np.ndarray | Array]
) -> Iterator[BatchScores]:
    """The scores of each batch on the host, fetched while those of the next are computed."""
    pending: tuple[int, BatchScores] | None = None
    for batch in batches:
        scores = score(batch)
        if pending is not None:
            yield _fetch(*pending)
        pending = (len(batch), scores)
    if pending is not None:
        yield _fetch(*pending)


def _refuse_unknown(maps: Sequence[str]) -> None:
    if isinstance(maps, str):
        raise ValueError(f"maps={maps!r} is a name; give a tuple of them, ({maps!r},)")
    unknown = [name for name in maps if name not in MAPS]
    if unknown:
        raise ValueError(f"maps={unknown} are unknown; choose from {', '.join(MAPS)}")


def _refilled(arrays: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """The images of all arrays, [n, H, W, C] each, `batch_size` at a time; the last ones are fewer."""
    waiting: list[np.ndarray] = []
    for array in arrays:
        if waiting and array.dtype != waiting[0].dtype:
            raise ValueError(f"images of {waiting[0].dtype} are followed by {array.dtype}; give all in one kind")
        waiting.append(array)
        if sum(map(len, waiting)) >= batch_size:
            joined = np.concatenate(waiting)
            full = len(joined) // batch_size * batch_size
            yield from np.split(joined[:full], full // batch_size)
            waiting = [joined[full:]]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def _fetch(count: int, scores: BatchScores) -> BatchScores:
    return jax.tree.map(lambda array: np.asarray(array)[:count], scores)

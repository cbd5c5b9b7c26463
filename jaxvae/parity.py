"""The arithmetic of the released code, where it differs from jaxvae.

The paper's code is github MIC-DKFZ/vae-anomaly-experiments, commit e7ae647. `released` is this code as it runs.
`corrected` uses s, the encoder's second head, as the log standard deviation everywhere. The quirks:

1. Brain script: its forward returns exp(s), and its loss uses this as a log standard deviation again. So the KL is that
   of a posterior with standard deviation exp(exp(s)).
2. FashionMNIST script: z is drawn with standard deviation exp(s / 2), and the KL uses exp(s). Scores are computed at a
   draw of z, not at the mean.
3. Gradient maps are gradients of the batch mean, so 1/B of the gradients per image. Rec-Error is the signed NLL per
   pixel. Combi scales the KL gradient to 0..1 over the whole batch.

Matrix products and convolutions use full float32, whatever the default of JAX is. With TF32, gradients near the prior
would differ from those of the released code by up to 3 %.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Literal, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.models.model import Model, decode, encode, reparameterize
from jaxvae.objectives.elbo import elbo_terms, gaussian_kl, gaussian_nll, pixel_sum
from jaxvae.ops.filters import gaussian_smooth, unit_range
from jaxvae.scores import gradients
from jaxvae.train import Objective
from jaxvae.types import Array, ElboTerms, Key, Params, Posterior, SampleScores

Variant = Literal["released", "corrected"]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _in_float32(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function with float32 products, also inside a program that uses another precision.

    Its gradients are float32 too, except those of convolutions: their pullbacks are traced after the function.
    """

    @wraps(function)
    def exact(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.default_matmul_precision("float32"):
            return function(*args, **kwargs)

    return exact


@_in_float32
def dense_elbo_terms(
    model: Model, params: Params, images: Array, key: Key | None = None, *, log_scale: float | Array = 0.0
) -> ElboTerms:
    """The released FashionMNIST objective (quirk 2), for `step` and `fit`.

    z is drawn with standard deviation exp(s / 2); the KL uses exp(s). The result is that of `elbo_terms`.
    """
    images = unit_range(images)
    posterior = encode(model, params, images)
    sampled = Posterior(posterior.mean, 0.5 * posterior.log_std)
    means = decode(model, params, reparameterize(sampled, key))
    return ElboTerms(gaussian_kl(posterior), gaussian_nll(images, means, log_scale=log_scale))


@jax.jit(static_argnames=("model", "variant"))
@_in_float32
def sample_scores(
    model: Model,
    params: Params,
    images: Array,
    key: Key,
    *,
    log_scale: float | Array = 0.0,
    variant: Variant = "released",
) -> SampleScores:
    """Image scores at one draw of z, as in the released FashionMNIST script.

    Args:
      images: [B, H, W, C], uint8 or float.
      key: consumed for the draw.
      variant: `released` draws with exp(s / 2), `corrected` with exp(s).

    Returns:
      elbo, kl and nll, [B] each, in nats; the released loss is the mean of elbo.

    Raises:
      ValueError: an unknown variant.
    """
    objective = dense_elbo_terms if _is_released(variant) else elbo_terms
    terms = objective(model, params, images, key, log_scale=log_scale)
    nll = pixel_sum(terms.nll)
    return SampleScores(terms.kl + nll, terms.kl, nll)


@_in_float32
def pixel_scores(
    model: Model, params: Params, images: Array, *, log_scale: float | Array, variant: Variant
) -> dict[str, Array]:
    """The scores of the released brain script for one batch (quirks 1 and 3).

    Args:
      images, log_scale: see `elbo_terms`.
      variant: `released` has quirk 1, `corrected` does not.

    Returns:
      At z = mean: kl, nll [B]; loss []; and maps [B, H, W, C]: rec_error (NLL per pixel), elbo_grad, kl_grad, rec_grad,
      these three with `_raw` (not smoothed), combi and combi_add.

    Raises:
      ValueError: an unknown variant.

    Reference: the released `brats_script.py`; Zimmerer et al. 2019, section 2.
    """
    images, released = unit_range(images), _is_released(variant)

    def terms(images: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        posterior = encode(model, params, images)
        nll = gaussian_nll(images, decode(model, params, posterior.mean), log_scale=log_scale)
        log_std = jnp.exp(posterior.log_std) if released else posterior.log_std
        kl = gaussian_kl(Posterior(posterior.mean, log_std))
        return (jnp.mean(kl), jnp.mean(pixel_sum(nll))), (kl, nll)

    (mean_kl, mean_nll), pullback, (kl, nll) = jax.vjp(terms, images, has_aux=True)
    (kl_gradient,) = pullback((jnp.ones_like(mean_kl), jnp.zeros_like(mean_nll)))
    (rec_gradient,) = pullback((jnp.zeros_like(mean_kl), jnp.ones_like(mean_nll)))
    signed = {"elbo_grad": kl_gradient + rec_gradient, "kl_grad": kl_gradient, "rec_grad": rec_gradient}
    raw = {name: jnp.abs(gradient) for name, gradient in signed.items()}
    smooth = {name: gaussian_smooth(map_, sigma=3.0, window=7) for name, map_ in raw.items()}
    return {
        "kl": kl,
        "nll": pixel_sum(nll),
        "loss": mean_kl + mean_nll,
        "rec_error": nll,
        **{f"{name}_raw": map_ for name, map_ in raw.items()},
        **smooth,
        "combi": gaussian_smooth(_min_max(raw["kl_grad"]), sigma=3.0, window=7) * nll,
        "combi_add": _min_max(smooth["kl_grad"]) + _min_max(nll),
    }


class Arithmetic(NamedTuple):
    """The objective of training, and the image scores of the trained model."""

    objective: Objective
    sample_scores: Callable[..., SampleScores]
    at_draw: bool  # whether sample_scores needs a key, for a draw of z; else z = mean


ARITHMETICS = {
    "corrected": Arithmetic(elbo_terms, gradients.sample_scores, at_draw=False),
    "released": Arithmetic(dense_elbo_terms, sample_scores, at_draw=True),
}


def _is_released(variant: str) -> bool:
    if variant not in ("released", "corrected"):
        raise ValueError(f"variant={variant!r}: unknown; use 'released' or 'corrected'")
    return variant == "released"


def _min_max(maps: Array) -> Array:
    """Scale to 0..1 over the whole batch (quirk 3)."""
    shifted = maps - jnp.min(maps)
    return shifted / jnp.max(shifted)


def params_from_torch(arrays: Mapping[str, np.ndarray]) -> Params:
    """Convert the state dict of a network of the released code.

    Linear weights [out, in] become kernels [in, out]. Convolution weights [coarse, fine, 4, 4] become
    [4, 4, fine, coarse]; PyTorch stores those of transposed convolutions in the same order. Images of the dense network
    have one channel.

    Args:
      arrays: by name: fc1 .. fc4 of the dense network, or encoder.* and decoder.* of the convolutional network.

    Returns:
      Parameters of a `DenseVAE` or a `ConvVAE`, float32.

    Raises:
      ValueError: the arrays are not of one of these networks.
    """
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    missing = f"fc1.weight and encoder.start.conv.weight are missing; the first are {', '.join(sorted(arrays)[:4])}"
    try:
        if "fc1.weight" in arrays:
            return _dense_params(arrays)
        if "encoder.start.conv.weight" in arrays:
            return _conv_params(arrays)
    except KeyError as error:
        missing = f"{error.args[0]} is missing"
    raise ValueError(f"arrays: not of a released VAE, because {missing}")


def _dense_params(arrays: Mapping[str, np.ndarray]) -> Params:
    homes = {"fc1": "encoder_hidden", "fc21": "encoder_mean", "fc22": "encoder_log_std"}
    homes |= {"fc3": "decoder_hidden", "fc4": "decoder_image"}
    return {
        home: {"kernel": jnp.asarray(arrays[f"{name}.weight"].T), "bias": jnp.asarray(arrays[f"{name}.bias"])}
        for name, home in homes.items()
    }


def _conv_params(arrays: Mapping[str, np.ndarray]) -> Params:
    middle = sum(name.startswith("encoder.middle_blocks.") for name in arrays)
    blocks = [f"middle_blocks.{i}" for i in range(middle)]
    order = {f"encoder_{i}": f"encoder.{block}" for i, block in enumerate(["start", *blocks])}
    order |= {"encoder_latent": "encoder.end", "decoder_latent": "decoder.start"}
    order |= {f"decoder_{i}": f"decoder.{block}" for i, block in enumerate([*blocks, "end"])}
    # PyTorch's first decoder weight is [latent, features, h, w], so this puts its latent last too.
    return {home: jnp.asarray(arrays[f"{name}.conv.weight"].transpose(2, 3, 1, 0)) for home, name in order.items()}

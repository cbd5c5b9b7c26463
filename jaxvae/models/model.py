"""The `Model` protocol and its functions: encode, decode, reconstruct, reparameterize."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.errors import InputError
from jaxvae.ops.filters import unit_range
from jaxvae.types import Array, Decoded, Key, Params, Posterior

DecoderScale = Literal["fixed", "shared", "pixel"]
LEAST_LOG_SCALE = -6.0


class Model(Protocol):
    """A Flax module with a method `encode` and a method `decode`.

    Neither can use a state, such as running means: the score of an image must not depend on other images. Methods that
    a model may have beside these:

    - `kl(posterior, latents) -> [B]`: KL(q(z|x) || p(z)) with its own prior, in nats. Without it the prior is
      N(0, I).
    - `reconstruct(images) -> Decoded`: instead of `encode` and `decode`, for a model without a latent.

    A model with a field `dropout` above 0 drops units if it is given a key, and none otherwise.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def latent_size(self) -> int:
        """Z; 0 for a model without a latent."""
        ...

    def encode(self, images: Array) -> Posterior:
        """q(z|x), mean and log_std [B, Z] or [B, h, w, Z], for float images [B, H, W, C]."""
        ...

    def decode(self, latents: Array) -> Array | Decoded:
        """p(x|z) for latents like the posterior's mean: the means [B, H, W, C], or `Decoded`."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any: ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...

    def clone(self, **updates: Any) -> Any: ...


def init_params(model: Model, key: Key) -> Params:
    """Draw the initial parameters.

    Raises:
      ValueError: the model's `encode` or `decode` returns wrong shapes.
    """

    def everything(module: Any, images: Array) -> Decoded:
        if not has_latent(model):
            return checked_decoded(model, module.reconstruct(images), images)
        posterior = checked_posterior(model, module.encode(images), images)
        if has_own_prior(model):
            module.kl(posterior, posterior.mean)
        return checked_decoded(model, module.decode(posterior.mean), images)

    return dict(model.init(key, jnp.zeros((1, *model.image_shape)), method=everything)["params"])


def has_latent(model: Model) -> bool:
    """Whether a model has a latent, and so a posterior and a KL."""
    return hasattr(model, "encode")


def has_own_prior(model: Model) -> bool:
    """Whether a model has its own prior, and so a method `kl`, instead of N(0, I)."""
    return hasattr(model, "kl")


def param_shapes(model: Model) -> Params:
    """The shapes and dtypes of the parameters, without computing them."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def encode(model: Model, params: Params, images: Array, key: Key | None = None) -> Posterior:
    """q(z|x): mean and log_std, [B, Z] or [B, h, w, Z] each.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.
      key: consumed for the dropout of a model that has it; None drops no unit.

    Raises:
      ValueError: the images have another shape than the model's image_shape.

    >>> import jax, jaxvae
    >>> model = jaxvae.DenseVAE(image_shape=(28, 28, 1), latent_size=20)
    >>> images = jax.numpy.zeros((3, 28, 28, 1))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    >>> jaxvae.encode(model, params, images).mean.shape
    (3, 20)
    """
    if images.shape[1:] != tuple(model.image_shape):
        raise ValueError(f"images: {list(images.shape)}; must be [B, H, W, C] with (H, W, C) = {model.image_shape}")
    images = unit_range(images)
    return checked_posterior(model, _apply(model, params, images, key, "encode"), images)


def decode(model: Model, params: Params, latents: Array) -> Array:
    """The mean of p(x|z), [B, H, W, C], for latents [B, Z] or [B, h, w, Z]."""
    return decoded(model, params, latents).mean


def decoded(model: Model, params: Params, latents: Array, key: Key | None = None) -> Decoded:
    """p(x|z): the mean, and the log scale of a model that has learned it.

    Args:
      latents: [B, Z] or [B, h, w, Z].
      key: as of `encode`.
    """
    return checked_decoded(model, _apply(model, params, latents, key, "decode"), latents)


def reconstruct(model: Model, params: Params, images: Array, key: Key | None = None) -> Decoded:
    """p(x|z) at the mean of q(z|x), or the output of a model without a latent.

    Args:
      images, key: as of `encode`.
    """
    if not has_latent(model):
        images = unit_range(images)
        return checked_decoded(model, _apply(model, params, images, key, "reconstruct"), images)
    keys = (None, None) if key is None else jax.random.split(key)
    return decoded(model, params, encode(model, params, images, keys[0]).mean, keys[1])


def _apply(model: Model, params: Params, inputs: Array, key: Key | None, method: str) -> Any:
    """A method of a model, with dropout if there is a key and the model has dropout."""
    rngs = None if key is None or not getattr(model, "dropout", 0.0) else {"dropout": key}
    return model.apply({"params": params}, inputs, method=method, rngs=rngs)


def reparameterize(posterior: Posterior, key: Key | None) -> Array:
    """A draw z = mean + exp(log_std) * noise, [B, Z]; the mean without a key.

    Reference: Kingma & Welling 2014, section 2.4.
    """
    if key is None:
        return posterior.mean
    # Drawn latent by latent, so the first latents get the same noise whatever the latent size. A sweep over the latent
    # size trains all sizes in the shape of the largest.
    noise = jax.random.normal(key, posterior.mean.shape[::-1], posterior.mean.dtype).T
    return posterior.mean + jnp.exp(posterior.log_std) * noise


def checked_posterior(model: Model, posterior: Any, images: Array) -> Posterior:
    """Check the output of `encode` while tracing, as most wrong shapes broadcast."""
    name = f"{type(model).__name__}.encode"
    if not isinstance(posterior, Posterior):
        raise InputError(f"{name} gives {type(posterior).__name__}; return jaxvae.Posterior(mean, log_std)")
    shapes, wanted = [list(part.shape) for part in posterior], [len(images), model.latent_size]
    spatial = len(shapes[0]) == 4 and [shapes[0][0], shapes[0][-1]] == wanted
    if shapes[0] != shapes[1] or not (shapes[0] == wanted or spatial):
        problem = f"{name} gives mean {shapes[0]} and log_std {shapes[1]}"
        raise InputError(f"{problem}; both must be [B, Z], {wanted}, or both [B, h, w, Z]")
    return posterior


def checked_decoded(model: Model, output: Any, inputs: Array) -> Decoded:
    """Check the output of `decode` or `reconstruct` while tracing: means [B, H, W, C], or `Decoded`."""
    result = output if isinstance(output, Decoded) else Decoded(output)
    wanted = [len(inputs), *model.image_shape]
    if list(result.mean.shape) != wanted:
        name = f"{type(model).__name__}.{'decode' if has_latent(model) else 'reconstruct'}"
        raise InputError(f"{name} gives {list(result.mean.shape)}; must be [B, H, W, C], {wanted}")
    return result


def checked_sizes(name: str, values: Iterable[int], count: int | None = None) -> Any:
    """Check a model's sizes and return them as a tuple of `count` integers.

    Raises:
      ValueError: another number of sizes, or a size that is not a whole number above 0.
    """
    sizes = tuple(values) if isinstance(values, Iterable) else (values,)
    fits = len(sizes) == count if count else len(sizes) > 0
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0 for size in sizes)
    if not (fits and whole):
        kind = "(H, W, C), with C = 1 for grey images" if name == "image_shape" else "whole numbers above 0"
        raise ValueError(f"{name}={sizes if len(sizes) != 1 else sizes[0]}: give {kind}")
    return tuple(int(size) for size in sizes)


def uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default initializer, uniform in +-1/sqrt(fan_in), as in the paper."""
    bound = 1 / math.sqrt(fan_in)

    def draw(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        # Drawn as one row, the numbers are the same and XLA's CPU compiler takes a quarter of the time.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return draw


def check_halvings(image_shape: tuple[int, int, int], levels: int) -> None:
    """Check that the sides of the images can be halved `levels` times.

    Raises:
      ValueError: H or W is not divisible by 2 ** levels.
    """
    (height, width, _), factor = image_shape, 2**levels
    if height % factor or width % factor:
        height, width = (max(factor, round(size / factor) * factor) for size in (height, width))
        raise ValueError(
            f"image_shape={image_shape}: cannot be halved {levels} times; "
            f"use {height}x{width} images or fewer levels of features"
        )


def check_options(model: Any) -> None:
    """Check the fields `dropout` and `decoder_scale` of a model.

    Raises:
      ValueError: dropout is not in [0, 1), or the kind of scale is unknown.
    """
    if not 0 <= model.dropout < 1:
        raise ValueError(f"dropout={model.dropout}: must be at least 0 and below 1")
    kinds = get_args(DecoderScale)
    if model.decoder_scale not in kinds:
        raise ValueError(f"decoder_scale={model.decoder_scale!r}: unknown; use {', '.join(map(repr, kinds))}")


def soft_bound(log_scale: Array) -> Array:
    """A learned log scale, bounded below: -6 + softplus(log_scale + 6).

    The NLL of a perfect reconstruction would fall for ever with the scale. With the bound it stays above -6 + log(2 pi)
    / 2 per pixel. A scale that starts from 0 starts from 1.002.

    Reference: Rybkin et al. 2021 (sigma-VAE), section 4; the bound is that of their code.
    """
    return LEAST_LOG_SCALE + jax.nn.softplus(log_scale - LEAST_LOG_SCALE)


def group_norm(features: int, name: str | None = None) -> nn.GroupNorm:
    """Normalise each image over pixels and 8 groups of channels, or as many as divide them.

    Reference: Wu & He 2018.
    """
    return nn.GroupNorm(num_groups=math.gcd(features, 8), epsilon=1e-5, name=name)

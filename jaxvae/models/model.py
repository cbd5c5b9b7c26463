"""The `Model` protocol and its functions: encode, decode, reparameterize."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.ops.filters import unit_range
from jaxvae.types import Array, Key, Params, Posterior


class Model(Protocol):
    """A Flax module with a method `encode` and a method `decode`.

    Neither method can use a key or a state (dropout, running means), because a score must be reproducible.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def latent_size(self) -> int: ...

    def encode(self, images: Array) -> Posterior:
        """q(z|x), mean and log_std [B, Z], for float images [B, H, W, C]."""
        ...

    def decode(self, latents: Array) -> Array:
        """The means of p(x|z), [B, H, W, C], for latents [B, Z]."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any: ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...

    def clone(self, **updates: Any) -> Any: ...


def init_params(model: Model, key: Key) -> Params:
    """Draw the initial parameters.

    Raises:
      ValueError: the model's `encode` or `decode` returns wrong shapes.
    """

    def reconstruct(module: Any, images: Array) -> Array:
        latents = checked_posterior(model, module.encode(images), images).mean
        return checked_means(model, module.decode(latents), latents)

    return dict(model.init(key, jnp.zeros((1, *model.image_shape)), method=reconstruct)["params"])


def param_shapes(model: Model) -> Params:
    """The shapes and dtypes of the parameters, without computing them."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def encode(model: Model, params: Params, images: Array) -> Posterior:
    """q(z|x): mean and log_std, [B, Z] each.

    Args:
      images: [B, H, W, C], uint8 (divided by 255) or float.

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
    return checked_posterior(model, model.apply({"params": params}, images, method="encode"), images)


def decode(model: Model, params: Params, latents: Array) -> Array:
    """The mean of p(x|z), [B, H, W, C], for latents [B, Z]."""
    return checked_means(model, model.apply({"params": params}, latents, method="decode"), latents)


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
        raise ValueError(f"{name} gives {type(posterior).__name__}; return jaxvae.Posterior(mean, log_std)")
    shapes, wanted = [list(part.shape) for part in posterior], [len(images), model.latent_size]
    if shapes != [wanted, wanted]:
        raise ValueError(f"{name} gives mean {shapes[0]} and log_std {shapes[1]}; both must be [B, Z], {wanted}")
    return posterior


def checked_means(model: Model, means: Array, latents: Array) -> Array:
    """Check the output of a model's `decode`, [B, H, W, C]."""
    wanted = [len(latents), *model.image_shape]
    if list(means.shape) != wanted:
        name = f"{type(model).__name__}.decode"
        raise ValueError(f"{name} gives {list(means.shape)}; must be [B, H, W, C], {wanted}")
    return means


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

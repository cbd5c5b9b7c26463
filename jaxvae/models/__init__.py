"""The two networks of the paper, as declarers of parameters; everything else sees `(model, params)`.

A model is a frozen value: two with equal fields are equal, hash equally and share one compiled program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.ops.activations import leaky_relu, relu
from jaxvae.ops.convolutions import KERNEL, convolve, convolve_transposed
from jaxvae.ops.filters import flat, unit_range
from jaxvae.types import Array, Key, Params, Posterior


def _uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default start, uniform in +-1/sqrt(fan_in), which the released training uses."""
    bound = 1 / math.sqrt(fan_in)

    def draw(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        # Drawn in one row: the same numbers, and XLA's CPU compiler takes a quarter of the time.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return draw


class DenseVAE(nn.Module):
    """The FashionMNIST network: pixels - hidden - 2 x latent - hidden - pixels, ReLU, sigmoid output.

    652,824 parameters for 28x28x1 images and a latent of 20 (Zimmerer et al. 2019, section 3).

    Args:
      image_shape: (H, W, C).
      latent_size: Z.
      hidden_size: units of the one hidden layer on either side.
    """

    image_shape: tuple[int, int, int]
    latent_size: int = 20
    hidden_size: int = 400

    def __post_init__(self) -> None:
        self.image_shape = _sizes("image_shape", self.image_shape, 3)
        sizes = _sizes("latent_size, hidden_size", (self.latent_size, self.hidden_size), 2)
        self.latent_size, self.hidden_size = sizes
        super().__post_init__()

    def setup(self) -> None:
        pixels = math.prod(self.image_shape)

        def dense(features: int, fan_in: int) -> nn.Dense:
            return nn.Dense(features, kernel_init=_uniform(fan_in), bias_init=_uniform(fan_in))

        self.encoder_hidden = dense(self.hidden_size, pixels)
        self.encoder_mean = dense(self.latent_size, self.hidden_size)
        self.encoder_log_std = dense(self.latent_size, self.hidden_size)
        self.decoder_hidden = dense(self.hidden_size, self.latent_size)
        self.decoder_image = dense(pixels, self.hidden_size)

    def encode(self, images: Array) -> Posterior:
        hidden = relu(self.encoder_hidden(flat(images)))
        return Posterior(self.encoder_mean(hidden), self.encoder_log_std(hidden))

    def decode(self, latents: Array) -> Array:
        hidden = relu(self.decoder_hidden(latents))
        return nn.sigmoid(self.decoder_image(hidden)).reshape(len(latents), *self.image_shape)

    def __call__(self, images: Array) -> Array:
        return self.decode(self.encode(images).mean)


class ConvVAE(nn.Module):
    """The brain network: 4x4 convolutions with stride 2, then one of full size to the latent, and its mirror image.

    LeakyReLU 0.01, no bias, no normalisation, linear output. 3,752,448 parameters for 64x64x1 images, a latent of 256
    and features 16-32-64-256 (Zimmerer et al. 2019, section 3).

    Args:
      image_shape: (H, W, C); H and W divisible by 2 once a level. They may differ.
      latent_size: Z.
      features: channels after each level.
      dtype: of the computation; parameters, posterior and output stay float32.
    Raises:
      ValueError: H or W is not divisible by 2 ** len(features), or a dtype of whole numbers.
    """

    image_shape: tuple[int, int, int]
    latent_size: int = 256
    features: tuple[int, ...] = (16, 32, 64, 256)
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        self.image_shape = _sizes("image_shape", self.image_shape, 3)
        self.features = _sizes("features", self.features)
        (self.latent_size,) = _sizes("latent_size", (self.latent_size,), 1)
        if not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(f"dtype={self.dtype} has no fractions; use float32 or bfloat16")
        self.dtype = jnp.dtype(self.dtype).type  # One of the names of a type, so that equal models are equal.
        (height, width, _), factor = self.image_shape, 2 ** len(self.features)
        if height % factor or width % factor:
            raise ValueError(
                f"image_shape={self.image_shape} cannot be halved {len(self.features)} times; "
                f"use {_nearest(height, factor)}x{_nearest(width, factor)} images or fewer levels of features"
            )
        super().__post_init__()

    def setup(self) -> None:
        height, width, channels = self.image_shape
        factor = 2 ** len(self.features)
        coarse = (height // factor, width // factor)
        area = KERNEL * KERNEL
        fine_to_coarse = list(zip((channels, *self.features[:-1]), self.features, strict=True))
        self.encoder_levels = [
            self.param(f"encoder_{i}", _uniform(fine * area), (KERNEL, KERNEL, fine, coarse_features))
            for i, (fine, coarse_features) in enumerate(fine_to_coarse)
        ]
        last = self.features[-1]
        fan_in = math.prod(coarse) * last
        self.encoder_latent = self.param("encoder_latent", _uniform(fan_in), (*coarse, last, 2 * self.latent_size))
        # PyTorch counts the fan-in of a transposed convolution on its output side.
        self.decoder_latent = self.param("decoder_latent", _uniform(fan_in), (*coarse, last, self.latent_size))
        self.decoder_levels = [
            self.param(f"decoder_{i}", _uniform(fine * area), (KERNEL, KERNEL, fine, coarse_features))
            for i, (fine, coarse_features) in enumerate(reversed(fine_to_coarse))
        ]

    def encode(self, images: Array) -> Posterior:
        features = images.astype(self.dtype)
        for kernel in self.encoder_levels:
            features = leaky_relu(convolve(features, kernel.astype(self.dtype)))
        # Sums in float32 whatever the dtype, so that the posterior is not rounded to it.
        heads = jnp.matmul(flat(features), _matrix(self.encoder_latent, self.dtype), preferred_element_type=jnp.float32)
        return Posterior(heads[:, : self.latent_size], heads[:, self.latent_size :])

    def decode(self, latents: Array) -> Array:
        features = jnp.einsum("bz,pz->bp", latents.astype(self.dtype), _matrix(self.decoder_latent, self.dtype))
        features = features.reshape(len(latents), *self.decoder_latent.shape[:-1])
        for kernel in self.decoder_levels:
            features = convolve_transposed(leaky_relu(features), kernel.astype(self.dtype))
        return features.astype(jnp.float32)

    def __call__(self, images: Array) -> Array:
        return self.decode(self.encode(images).mean)


def _matrix(kernel: Array, dtype: Any) -> Array:
    """[H W C, Z] of a kernel [H, W, C, Z]: a plain product, for whose einsum XLA would copy the kernel first."""
    return kernel.reshape(-1, kernel.shape[-1]).astype(dtype)


def _sizes(name: str, values: Iterable[int], count: int | None = None) -> Any:
    """The sizes as a tuple of `count` integers, since a model has to be hashable, or what is wrong with them."""
    sizes = tuple(values) if isinstance(values, Iterable) else (values,)
    fits = len(sizes) == count if count else len(sizes) > 0
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0 for size in sizes)
    if not (fits and whole):
        kind = "(H, W, C), with C = 1 for grey images" if name == "image_shape" else "whole numbers above 0"
        raise ValueError(f"{name}={sizes if len(sizes) != 1 else sizes[0]}: give {kind}")
    return tuple(int(size) for size in sizes)


def _nearest(size: int, factor: int) -> int:
    return max(factor, round(size / factor) * factor)


# A new model is a module as above and its name here, by which a run's configuration finds it again.
MODELS: dict[str, type[DenseVAE | ConvVAE]] = {"DenseVAE": DenseVAE, "ConvVAE": ConvVAE}


class Model(Protocol):
    """What everything else asks of a network: a Flax module, and so a hashable value, with these two methods.

    Neither may need a key or keep a state (dropout, running means): a score has to come out the same every time.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def latent_size(self) -> int: ...

    def encode(self, images: Array) -> Posterior:
        """q(z|x), mean and log_std [B, Z], of float images [B, H, W, C]."""
        ...

    def decode(self, latents: Array) -> Array:
        """The means of p(x|z), [B, H, W, C], of latents [B, Z]."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any: ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...

    def clone(self, **updates: Any) -> Any: ...


def init_params(model: Model, key: Key) -> Params:
    """The first parameters.

    Raises:
      ValueError: encode or decode give other shapes than they have to.
    """

    def reconstruct(module: Any, images: Array) -> Array:
        latents = _checked_posterior(model, module.encode(images), images).mean
        return _checked_means(model, module.decode(latents), latents)

    return dict(model.init(key, jnp.zeros((1, *model.image_shape)), method=reconstruct)["params"])


def param_shapes(model: Model) -> Params:
    """The parameters as shapes and dtypes, without computing any."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def encode(model: Model, params: Params, images: Array) -> Posterior:
    """q(z|x): mean and log_std, each [B, Z], of images [B, H, W, C], uint8 (divided by 255) or float.

    Raises:
      ValueError: the images are not of the model's image_shape.

    >>> import jax, jaxvae
    >>> model = jaxvae.DenseVAE(image_shape=(28, 28, 1), latent_size=20)
    >>> images = jax.numpy.zeros((3, 28, 28, 1))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    >>> jaxvae.encode(model, params, images).mean.shape
    (3, 20)
    """
    if images.shape[1:] != tuple(model.image_shape):
        raise ValueError(f"images are {list(images.shape)}; the model wants [B, H, W, C] with {model.image_shape}")
    images = unit_range(images)
    return _checked_posterior(model, model.apply({"params": params}, images, method="encode"), images)


def decode(model: Model, params: Params, latents: Array) -> Array:
    """The mean of p(x|z), [B, H, W, C], for latents [B, Z]."""
    return _checked_means(model, model.apply({"params": params}, latents, method="decode"), latents)


def _checked_posterior(model: Model, posterior: Any, images: Array) -> Posterior:
    # Checked while tracing: of wrong shapes most would broadcast, and train and score without a word.
    name = f"{type(model).__name__}.encode"
    if not isinstance(posterior, Posterior):
        raise ValueError(f"{name} gives {type(posterior).__name__}; return jaxvae.Posterior(mean, log_std)")
    shapes, wanted = [list(part.shape) for part in posterior], [len(images), model.latent_size]
    if shapes != [wanted, wanted]:
        raise ValueError(f"{name} gives mean {shapes[0]} and log_std {shapes[1]}; both have to be [B, Z], {wanted}")
    return posterior


def _checked_means(model: Model, means: Array, latents: Array) -> Array:
    wanted = [len(latents), *model.image_shape]
    if list(means.shape) != wanted:
        name = f"{type(model).__name__}.decode"
        raise ValueError(f"{name} gives {list(means.shape)}; it has to be [B, H, W, C], {wanted}")
    return means


def reparameterize(posterior: Posterior, key: Key | None) -> Array:
    """A draw z = mean + exp(log_std) * noise, [B, Z]; the mean itself where there is no key.

    Reference: Kingma & Welling 2014, section 2.4.
    """
    if key is None:
        return posterior.mean
    # Drawn latent by latent, so that the first of them get the same noise however many there are: a sweep over the size
    # of the latent trains all sizes in the shape of the largest.
    noise = jax.random.normal(key, posterior.mean.shape[::-1], posterior.mean.dtype).T
    return posterior.mean + jnp.exp(posterior.log_std) * noise

"""The convolutional network of the paper, for brain MRI."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxvae.models.model import DecoderScale, check_halvings, check_options, checked_sizes, soft_bound, uniform
from jaxvae.ops.activations import leaky_relu
from jaxvae.ops.convolutions import KERNEL, convolve, convolve_transposed
from jaxvae.ops.filters import flat
from jaxvae.types import Array, Decoded, Posterior


class ConvVAE(nn.Module):
    """The brain network: strided convolutions to the latent, and a mirrored decoder.

    4x4 convolutions with stride 2 and one of full size; LeakyReLU 0.01, no bias, no normalisation, linear output. It
    has 3,752,448 parameters for 64x64x1 images (Zimmerer et al. 2019, section 3).

    Args:
      image_shape: (H, W, C). H and W must be divisible by 2 ** len(features); they can differ.
      latent_size: Z.
      features: channels after each level.
      dtype: of the computation; parameters, posterior and output stay float32.
      dropout: rate after each LeakyReLU, if a key is given.
      decoder_scale: "fixed" by a hyperparameter, or learned: one number ("shared") or one per pixel ("pixel"), see
        `soft_bound`.

    Raises:
      ValueError: H or W is not divisible by 2 ** len(features), or dtype is not a floating-point type, or a rate or
        kind of scale does not exist.
    """

    image_shape: tuple[int, int, int]
    latent_size: int = 256
    features: tuple[int, ...] = (16, 32, 64, 256)
    dtype: Any = jnp.float32
    dropout: float = 0.0
    decoder_scale: DecoderScale = "fixed"

    def __post_init__(self) -> None:
        self.image_shape = checked_sizes("image_shape", self.image_shape, 3)
        self.features = checked_sizes("features", self.features)
        (self.latent_size,) = checked_sizes("latent_size", (self.latent_size,), 1)
        check_options(self)
        if not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(f"dtype={self.dtype}: must be a floating-point type, such as float32 or bfloat16")
        self.dtype = jnp.dtype(self.dtype).type  # One name per type, so that equal models are equal.
        check_halvings(self.image_shape, len(self.features))
        super().__post_init__()

    def setup(self) -> None:
        height, width, channels = self.image_shape
        factor, last = 2 ** len(self.features), self.features[-1]
        coarse = (height // factor, width // factor)
        fan_in = math.prod(coarse) * last
        fine_to_coarse = list(zip((channels, *self.features[:-1]), self.features, strict=True))

        def level(name: str, fine: int, coarse: int) -> Array:
            return self.param(name, uniform(fine * KERNEL * KERNEL), (KERNEL, KERNEL, fine, coarse))

        self.encoder_levels = [level(f"encoder_{i}", *sizes) for i, sizes in enumerate(fine_to_coarse)]
        self.encoder_latent = self.param("encoder_latent", uniform(fan_in), (*coarse, last, 2 * self.latent_size))
        # PyTorch counts the fan-in of a transposed convolution on the output side.
        self.decoder_latent = self.param("decoder_latent", uniform(fan_in), (*coarse, last, self.latent_size))
        self.decoder_levels = [level(f"decoder_{i}", *sizes) for i, sizes in enumerate(reversed(fine_to_coarse))]
        if self.decoder_scale == "shared":
            self.decoder_log_scale = self.param("decoder_log_scale", nn.initializers.zeros, ())
        elif self.decoder_scale == "pixel":
            self.decoder_log_scale = level("decoder_log_scale", *fine_to_coarse[0])
        self.drop = nn.Dropout(self.dropout)

    def encode(self, images: Array) -> Posterior:
        features = images.astype(self.dtype)
        for kernel in self.encoder_levels:
            features = self._dropped(leaky_relu(convolve(features, kernel.astype(self.dtype))))
        # The sums are float32 for any dtype, so the posterior is not rounded.
        heads = jnp.matmul(flat(features), _matrix(self.encoder_latent, self.dtype), preferred_element_type=jnp.float32)
        return Posterior(heads[:, : self.latent_size], heads[:, self.latent_size :])

    def decode(self, latents: Array) -> Array | Decoded:
        features: Any = jnp.einsum("bz,pz->bp", latents.astype(self.dtype), _matrix(self.decoder_latent, self.dtype))
        features = features.reshape(len(latents), *self.decoder_latent.shape[:-1])
        for kernel in self.decoder_levels[:-1]:
            features = convolve_transposed(self._dropped(leaky_relu(features)), kernel.astype(self.dtype))
        features = self._dropped(leaky_relu(features))
        means = self._image(features, self.decoder_levels[-1])
        if self.decoder_scale == "fixed":
            return means
        shared = self.decoder_scale == "shared"
        log_scale = self.decoder_log_scale if shared else self._image(features, self.decoder_log_scale)
        return Decoded(means, soft_bound(log_scale))

    def _image(self, features: Array, kernel: Array) -> Array:
        image: Any = convolve_transposed(features, kernel.astype(self.dtype))
        return image.astype(jnp.float32)

    def _dropped(self, features: Array) -> Array:
        return self.drop(features, deterministic=not self.has_rng("dropout"))

    def __call__(self, images: Array) -> Array | Decoded:
        return self.decode(self.encode(images).mean)


def _matrix(kernel: Array, dtype: Any) -> Array:
    """A kernel [H, W, C, Z] as a matrix [H W C, Z]; XLA copies it for an einsum."""
    return kernel.reshape(-1, kernel.shape[-1]).astype(dtype)

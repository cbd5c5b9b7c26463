"""A U-Net without a latent, for denoising."""

import math

import flax.linen as nn
import jax.numpy as jnp

from jaxvae.models.model import checked_sizes, group_norm, uniform
from jaxvae.ops.convolutions import convolve
from jaxvae.ops.plain import spread_out
from jaxvae.types import Array, Decoded


class UNet(nn.Module):
    """The denoising network of Kascenas et al.

    An encoder and a decoder of equal depth are joined at each level.

    Each level has two 3x3 convolutions with standardised weights, each with GroupNorm (8 groups) and swish. Average
    pooling halves the image between levels; a 2x2 transposed convolution doubles it, and the features of the encoder
    are joined to it. A 1x1 convolution makes the image. All this is per image, so a score does not depend on the batch.

    It has no latent and no KL. Train it with the objective `denoising`, such as with the paper's schedule "cosine".
    Deviations from the published code: swish follows GroupNorm, which has 8 groups for any width (there swish comes
    first, and wider levels have 16 or 32 groups); edges are padded with zeros, not by reflection; Adam without AMSGrad
    and weight decay; the loss is over all pixels and not over the foreground alone.

    In a population, XLA computes convolutions of several runs as grouped ones, which are slow on a GPU. There, train
    with side_by_side=1.

    Args:
      image_shape: (H, W, C). Sides that cannot be halved often enough are padded with their edges inside the network.
      latent_size: always 0.
      features: channels of each level.

    Reference: Kascenas et al. 2022, section 2.2; Ronneberger et al. 2015.
    """

    image_shape: tuple[int, int, int]
    latent_size: int = 0
    features: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self) -> None:
        self.image_shape = checked_sizes("image_shape", self.image_shape, 3)
        self.features = checked_sizes("features", self.features)
        if self.latent_size:
            raise ValueError(f"latent_size={self.latent_size}: a U-Net has no latent; leave it out")
        super().__post_init__()

    def setup(self) -> None:
        finer = self.features[-2::-1]
        self.encoder_levels = [Level(width) for width in self.features]
        self.doubled = [nn.Dense(4 * width, use_bias=False) for width in finer]
        self.decoder_levels = [Level(width) for width in finer]
        self.image = nn.Dense(self.image_shape[2])

    def reconstruct(self, images: Array) -> Decoded:
        """The image without its noise, for float images [B, H, W, C]."""
        height, width, _ = self.image_shape
        factor = 2 ** (len(self.features) - 1)
        features = jnp.pad(images, ((0, 0), (0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
        joined = []
        for i, level in enumerate(self.encoder_levels):
            features = level(halved(features) if i else features)
            joined.append(features)
        for same, up, level in zip(joined[-2::-1], self.doubled, self.decoder_levels, strict=True):
            features = level(jnp.concatenate([same, spread_out(up(features))], axis=-1))
        return Decoded(self.image(features)[:, :height, :width])

    def __call__(self, images: Array) -> Array:
        return self.reconstruct(images).mean


class Level(nn.Module):
    """Two 3x3 convolutions, each with GroupNorm and swish: [B, H, W, c] -> [B, H, W, features]."""

    features: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        for i in range(2):
            shape = (3, 3, images.shape[-1], self.features)
            kernel = self.param(f"kernel_{i}", uniform(math.prod(shape[:3])), shape)
            images = convolve(images, standardised(kernel), 1, 1)
            images = nn.swish(group_norm(self.features, name=f"norm_{i}")(images))
        return images


def standardised(kernel: Array) -> Array:
    """Kernels [h, w, c, d] with mean 0 and variance 1 over the inputs of each output.

    Reference: Qiao et al. 2019 (weight standardisation), equation 2.
    """
    inputs = (0, 1, 2)
    centred = kernel - jnp.mean(kernel, axis=inputs, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axis=inputs, keepdims=True) + 1e-5)


def halved(features: Array) -> Array:
    """The mean of each 2x2 pixels: [B, 2 H, 2 W, c] -> [B, H, W, c]."""
    batch, height, width, channels = features.shape
    return jnp.mean(features.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))

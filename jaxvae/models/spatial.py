"""A VAE whose code is a small image: one latent vector per place."""

import flax.linen as nn

from jaxvae.models.model import (
    DecoderScale,
    check_halvings,
    check_options,
    checked_sizes,
    group_norm,
    soft_bound,
    uniform,
)
from jaxvae.ops.activations import leaky_relu
from jaxvae.ops.convolutions import convolve, convolve_transposed
from jaxvae.types import Array, Decoded, Posterior

KERNEL = 5


class SpatialVAE(nn.Module):
    """The unified network of Baur et al. with a spatial code.

    5x5 convolutions with stride 2 and a mirrored decoder, each followed by normalisation and LeakyReLU. 1x1
    convolutions make the posterior [B, h, w, Z] and the linear output. With the objective `autoencoder` it is the
    spatial autoencoder. The KL is summed over all places.

    Deviations from the published code: GroupNorm (8 groups) instead of BatchNorm, because the score of an image must
    not depend on its batch. LeakyReLU has the slope of the other networks here, .01.

    In a population, XLA computes convolutions of several runs as grouped ones, which are slow on a GPU. There, train
    with side_by_side=1.

    Args:
      image_shape: (H, W, C). H and W must be divisible by 2 ** len(features).
      latent_size: Z, channels of the code; 128 in the paper.
      features: channels after each level. The paper halves until the code has 8x8 places: three levels for 64x64
        images, and (32, 64, 128, 128) for 128x128.
      dropout: rate of the drawn code, if a key is given; .2 in the paper's autoencoder.
      decoder_scale: see `DenseVAE`.

    Raises:
      ValueError: H or W is not divisible by 2 ** len(features), or a rate or kind of scale does not exist.

    Reference: Baur et al. 2021, section 3.4 and appendix.
    """

    image_shape: tuple[int, int, int]
    latent_size: int = 128
    features: tuple[int, ...] = (32, 64, 128)
    dropout: float = 0.0
    decoder_scale: DecoderScale = "fixed"

    def __post_init__(self) -> None:
        self.image_shape = checked_sizes("image_shape", self.image_shape, 3)
        self.features = checked_sizes("features", self.features)
        (self.latent_size,) = checked_sizes("latent_size", (self.latent_size,), 1)
        check_options(self)
        check_halvings(self.image_shape, len(self.features))
        super().__post_init__()

    def setup(self) -> None:
        # A dense layer of the channels is a 1x1 convolution.
        channels, finest = self.image_shape[2], self.features[0]

        def level(name: str, fine: int, coarse: int) -> Array:
            return self.param(name, uniform(fine * KERNEL**2), (KERNEL, KERNEL, fine, coarse))

        down = list(zip((channels, *self.features[:-1]), self.features, strict=True))
        up = list(zip((finest, *self.features[:-1]), self.features, strict=True))[::-1]
        self.encoder_levels = [level(f"encoder_{i}", *sizes) for i, sizes in enumerate(down)]
        self.encoder_norms = [group_norm(coarse) for _, coarse in down]
        self.encoder_mean, self.encoder_log_std = nn.Dense(self.latent_size), nn.Dense(self.latent_size)
        self.decoder_code = nn.Dense(self.features[-1])
        self.decoder_levels = [level(f"decoder_{i}", *sizes) for i, sizes in enumerate(up)]
        self.decoder_norms = [group_norm(fine) for fine, _ in up]
        self.decoder_image = nn.Dense(channels)
        if self.decoder_scale == "shared":
            self.decoder_log_scale = self.param("decoder_log_scale", nn.initializers.zeros, ())
        elif self.decoder_scale == "pixel":
            self.decoder_log_scales = nn.Dense(channels)
        self.drop = nn.Dropout(self.dropout)

    def encode(self, images: Array) -> Posterior:
        features = images
        for kernel, norm in zip(self.encoder_levels, self.encoder_norms, strict=True):
            features = leaky_relu(norm(convolve(features, kernel, 2, 2)))
        return Posterior(self.encoder_mean(features), self.encoder_log_std(features))

    def decode(self, latents: Array) -> Array | Decoded:
        features = self.decoder_code(self.drop(latents, deterministic=not self.has_rng("dropout")))
        for kernel, norm in zip(self.decoder_levels, self.decoder_norms, strict=True):
            features = leaky_relu(norm(convolve_transposed(features, kernel, 2, 2, (1, 1))))
        means = self.decoder_image(features)
        if self.decoder_scale == "fixed":
            return means
        shared = self.decoder_scale == "shared"
        return Decoded(means, soft_bound(self.decoder_log_scale if shared else self.decoder_log_scales(features)))

    def __call__(self, images: Array) -> Array | Decoded:
        return self.decode(self.encode(images).mean)

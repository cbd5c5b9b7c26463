"""The dense network of the paper, for FashionMNIST."""

import math

import flax.linen as nn

from jaxvae.models.model import DecoderScale, check_options, checked_sizes, soft_bound, uniform
from jaxvae.ops.activations import relu
from jaxvae.ops.filters import flat
from jaxvae.types import Array, Decoded, Posterior


class DenseVAE(nn.Module):
    """The FashionMNIST network: one hidden layer in the encoder, one in the decoder.

    pixels - hidden - 2 x latent - hidden - pixels, ReLU, sigmoid output. It has 652,824 parameters for 28x28x1 images
    (Zimmerer et al. 2019, section 3).

    Args:
      image_shape: (H, W, C).
      latent_size: Z.
      hidden_size: units of the hidden layer of the encoder, and of the decoder.
      dropout: rate of the hidden layers, if a key is given.
      decoder_scale: "fixed" by a hyperparameter, or learned: one number ("shared") or one per pixel ("pixel"), see
        `soft_bound`.

    Raises:
      ValueError: a size, rate or kind of scale that does not exist.
    """

    image_shape: tuple[int, int, int]
    latent_size: int = 20
    hidden_size: int = 400
    dropout: float = 0.0
    decoder_scale: DecoderScale = "fixed"

    def __post_init__(self) -> None:
        self.image_shape = checked_sizes("image_shape", self.image_shape, 3)
        sizes = checked_sizes("latent_size, hidden_size", (self.latent_size, self.hidden_size), 2)
        self.latent_size, self.hidden_size = sizes
        check_options(self)
        super().__post_init__()

    def setup(self) -> None:
        pixels = math.prod(self.image_shape)

        def dense(features: int, fan_in: int) -> nn.Dense:
            return nn.Dense(features, kernel_init=uniform(fan_in), bias_init=uniform(fan_in))

        self.encoder_hidden = dense(self.hidden_size, pixels)
        self.encoder_mean = dense(self.latent_size, self.hidden_size)
        self.encoder_log_std = dense(self.latent_size, self.hidden_size)
        self.decoder_hidden = dense(self.hidden_size, self.latent_size)
        self.decoder_image = dense(pixels, self.hidden_size)
        if self.decoder_scale == "shared":
            self.decoder_log_scale = self.param("decoder_log_scale", nn.initializers.zeros, ())
        elif self.decoder_scale == "pixel":
            self.decoder_log_scales = dense(pixels, self.hidden_size)
        self.drop = nn.Dropout(self.dropout)

    def encode(self, images: Array) -> Posterior:
        hidden = self._dropped(relu(self.encoder_hidden(flat(images))))
        return Posterior(self.encoder_mean(hidden), self.encoder_log_std(hidden))

    def decode(self, latents: Array) -> Array | Decoded:
        hidden = self._dropped(relu(self.decoder_hidden(latents)))
        means = nn.sigmoid(self.decoder_image(hidden)).reshape(len(latents), *self.image_shape)
        if self.decoder_scale == "fixed":
            return means
        shared = self.decoder_scale == "shared"
        log_scale = self.decoder_log_scale if shared else self.decoder_log_scales(hidden).reshape(means.shape)
        return Decoded(means, soft_bound(log_scale))

    def _dropped(self, hidden: Array) -> Array:
        return self.drop(hidden, deterministic=not self.has_rng("dropout"))

    def __call__(self, images: Array) -> Array | Decoded:
        return self.decode(self.encode(images).mean)

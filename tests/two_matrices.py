"""A VAE of two matrices, whose scores have closed forms."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxvae.types import Array, Decoded, Posterior


class TwoMatrices(nn.Module):
    """z = x W + noise, x̂ = z V. All latents have one standard deviation.

    Args:
      image_shape, latent_size: as of all models.
      log_std: natural logarithm of the standard deviation of the latents.
      scale: log_scale that the decoder has learned; None: it has not learned one.
      dropout: rate of dropout of the latents.
    """

    image_shape: tuple[int, int, int] = (6, 5, 2)
    latent_size: int = 3
    log_std: float = -1.0
    scale: float | None = None
    dropout: float = 0.0

    def setup(self) -> None:
        pixels = int(np.prod(self.image_shape))
        self.down = self.param("down", nn.initializers.normal(0.3), (pixels, self.latent_size))
        self.up = self.param("up", nn.initializers.normal(0.3), (self.latent_size, pixels))
        self.drop = nn.Dropout(self.dropout)

    def encode(self, images: Array) -> Posterior:
        mean = images.reshape(len(images), -1) @ self.down
        return Posterior(mean, jnp.full_like(mean, self.log_std))

    def decode(self, latents: Array) -> Decoded:
        latents = self.drop(latents, deterministic=not self.has_rng("dropout"))
        means = (latents @ self.up).reshape(len(latents), *self.image_shape)
        return Decoded(means, None if self.scale is None else jnp.full_like(means, self.scale))

"""A VAE whose prior is a second VAE of the latent."""

import flax.linen as nn
import jax.numpy as jnp

from jaxvae.models.dense import DenseVAE
from jaxvae.models.model import checked_sizes, reparameterize, soft_bound
from jaxvae.ops.activations import relu
from jaxvae.ops.gaussian import HALF_LOG_2PI, gaussian_kl, gaussian_nll
from jaxvae.types import Array, Decoded, Key, Posterior


class TwoStageVAE(nn.Module):
    """A dense VAE with one learned scale, and a VAE of its latent as prior.

    Stage 1 is `DenseVAE` with decoder_scale="shared". Stage 2 models z = the latent of stage 1 with a latent u of the
    same size, and g is the scale it learns. With m and s the mean and the deviation of q(z|x), and u at its mean:

        KL(q(z|x) || p(z)) ~ -H(q(z|x)) + KL(q(u|m) || N(0, I)) - log N(m; mean(u), g^2) + sum(s^2) / (2 g^2)

    The last two terms are the mean of -log p(z|u) over q(z|x), as if u did not depend on the draw. So KL-Grad of a
    trained model is the gradient of a learned prior. The objective `two_stage` trains both.

    Args:
      image_shape: (H, W, C).
      latent_size: Z, of z and of u; 64 in the paper.
      hidden_size: units of the hidden layers of stage 1.
      prior_size: units of each hidden layer of stage 2. In the paper it is 1024; the default trains faster.

    Reference: Dai & Wipf 2019, section 4. Stage 1 is a convolutional network there.
    """

    image_shape: tuple[int, int, int]
    latent_size: int = 64
    hidden_size: int = 400
    prior_size: int = 256

    def __post_init__(self) -> None:
        self.image_shape = checked_sizes("image_shape", self.image_shape, 3)
        names = ("latent_size", "hidden_size", "prior_size")
        sizes = checked_sizes(", ".join(names), [getattr(self, name) for name in names], 3)
        self.latent_size, self.hidden_size, self.prior_size = sizes
        super().__post_init__()

    def setup(self) -> None:
        self.first = DenseVAE(self.image_shape, self.latent_size, self.hidden_size, decoder_scale="shared")
        self.second = LatentVAE(self.latent_size, self.prior_size)

    def encode(self, images: Array) -> Posterior:
        return self.first.encode(images)

    def decode(self, latents: Array) -> Array | Decoded:
        return self.first.decode(latents)

    def kl(self, posterior: Posterior, latents: Array) -> Array:
        """KL(q(z|x) || p(z)) as above, in nats: [B].

        Args:
          latents: not used; the mean over q(z|x) has a closed form.
        """
        mean, log_std = posterior
        entropy = jnp.sum(log_std + 0.5 + HALF_LOG_2PI, axis=-1)
        spread = 0.5 * jnp.sum(jnp.exp(2 * (log_std - self.second.log_scale())), axis=-1)
        return self.prior(mean) + spread - entropy

    def prior(self, latents: Array, key: Key | None = None) -> Array:
        """The negative ELBO of latents [B, Z] in stage 2, in nats: [B].

        Args:
          key: consumed for the draw of u; None uses its mean.
        """
        posterior = self.second.encode(latents)
        output = self.second.decode(reparameterize(posterior, key))
        nll = gaussian_nll(latents, output.mean, log_scale=jnp.asarray(output.log_scale))
        return gaussian_kl(posterior) + jnp.sum(nll, axis=-1)

    def __call__(self, images: Array) -> Array | Decoded:
        posterior = self.encode(images)
        self.kl(posterior, posterior.mean)  # So that `init` makes the parameters of stage 2 too.
        return self.decode(posterior.mean)


class LatentVAE(nn.Module):
    """Stage 2: a VAE of vectors [B, Z], with a latent u [B, Z] and one learned scale.

    The encoder and the decoder have three hidden layers with ReLU. Their last layer sees their input too.

    Args:
      latent_size: Z.
      hidden_size: units of each hidden layer.
    """

    latent_size: int
    hidden_size: int

    def setup(self) -> None:
        self.encoder_hidden = [nn.Dense(self.hidden_size) for _ in range(3)]
        self.encoder_mean, self.encoder_log_std = nn.Dense(self.latent_size), nn.Dense(self.latent_size)
        self.decoder_hidden = [nn.Dense(self.hidden_size) for _ in range(3)]
        self.decoder_mean = nn.Dense(self.latent_size)
        self.decoder_log_scale = self.param("decoder_log_scale", nn.initializers.zeros, ())

    def encode(self, latents: Array) -> Posterior:
        """q(u|z)."""
        hidden = _with_input(self.encoder_hidden, latents)
        return Posterior(self.encoder_mean(hidden), self.encoder_log_std(hidden))

    def decode(self, codes: Array) -> Decoded:
        """p(z|u): the mean [B, Z] and the log scale []."""
        return Decoded(self.decoder_mean(_with_input(self.decoder_hidden, codes)), self.log_scale())

    def log_scale(self) -> Array:
        """log g, []."""
        return soft_bound(self.decoder_log_scale)


def _with_input(layers: list[nn.Dense], inputs: Array) -> Array:
    hidden = inputs
    for layer in layers:
        hidden = relu(layer(hidden))
    return jnp.concatenate([hidden, inputs], axis=-1)

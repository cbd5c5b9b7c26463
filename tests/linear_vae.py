"""A linear VAE, whose likelihood and best posterior have closed forms, and a spatial one that learns its scale."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from jaxvae.types import Array, Decoded, Posterior

SHAPE = (3, 2, 1)  # six pixels
LATENT = 2


class LinearVAE(nn.Module):
    """mean = A x + a, one log_std for all images, decoder W z + b."""

    image_shape: tuple[int, int, int] = SHAPE
    latent_size: int = LATENT

    def setup(self) -> None:
        self.encoder = nn.Dense(self.latent_size)
        self.log_std = self.param("log_std", nn.initializers.zeros, (self.latent_size,))
        self.decoder = nn.Dense(int(np.prod(self.image_shape)))

    def encode(self, images: Array) -> Posterior:
        mean = self.encoder(images.reshape(len(images), -1))
        return Posterior(mean, jnp.broadcast_to(self.log_std, mean.shape))

    def decode(self, latents: Array) -> Array:
        return self.decoder(latents).reshape(len(latents), *self.image_shape)


def linear_params(seed: int, *, log_scale: float, orthogonal: bool, error: float = 0.0) -> dict:
    """Parameters whose posterior is the best diagonal one, plus an error.

    With an orthogonal decoder, the best diagonal posterior is the exact one.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(LATENT, int(np.prod(SHAPE))))
    if orthogonal:
        weights = np.linalg.qr(weights.T)[0].T * np.array([[1.5], [0.7]])
    bias = rng.normal(size=weights.shape[1]) * 0.1
    variance = np.exp(2 * log_scale)
    precision = weights @ weights.T / variance + np.eye(LATENT)
    encoder = np.linalg.solve(precision, weights / variance).T  # [pixels, Z]
    encoder = encoder + error * rng.normal(size=encoder.shape)
    log_std = -0.5 * np.log(np.diag(precision)) + error
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32),
        {
            "encoder": {"kernel": encoder, "bias": -bias @ encoder},
            "log_std": log_std,
            "decoder": {"kernel": weights, "bias": bias},
        },
    )


def decoder(params: dict) -> tuple[np.ndarray, np.ndarray]:
    """W [Z, pixels] and b [pixels]."""
    weights, bias = (np.asarray(params["decoder"][name], np.float64) for name in ("kernel", "bias"))
    return weights, bias


def posterior(params: dict, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mean and log_std of the encoder, [B, Z] each."""
    kernel, bias = (np.asarray(params["encoder"][name], np.float64) for name in ("kernel", "bias"))
    mean = np.asarray(images, np.float64).reshape(len(images), -1) @ kernel + bias
    return mean, np.broadcast_to(np.asarray(params["log_std"], np.float64), mean.shape)


def log_likelihood(params: dict, images: np.ndarray, log_scale: float) -> np.ndarray:
    """log p(x) in nats, [B]."""
    weights, bias = decoder(params)
    covariance = weights.T @ weights + np.exp(2 * log_scale) * np.eye(weights.shape[1])
    return multivariate_normal(bias, covariance).logpdf(np.asarray(images, np.float64).reshape(len(images), -1))


def negative_elbo(
    params: dict, images: np.ndarray, mean: np.ndarray, log_std: np.ndarray, log_scale: float
) -> np.ndarray:
    """The exact expectation over q(z) = N(mean, exp(log_std)^2), in nats, [B]."""
    weights, bias = decoder(params)
    values = np.asarray(images, np.float64).reshape(len(images), -1)
    squares = ((values - mean @ weights - bias) ** 2).sum(axis=1)
    squares = squares + (np.exp(2 * log_std) * (weights**2).sum(axis=1)).sum(axis=-1)
    nll = 0.5 * squares * np.exp(-2 * log_scale) + values.shape[1] * (log_scale + 0.5 * np.log(2 * np.pi))
    return nll + 0.5 * (np.exp(2 * log_std) + mean**2 - 1 - 2 * log_std).sum(axis=-1)


class SpatialVAE(nn.Module):
    """A latent at each second pixel, RGB images, and a decoder that learns the scale of each pixel."""

    image_shape: tuple[int, int, int] = (8, 8, 3)
    latent_size: int = 2

    def setup(self) -> None:
        self.down = nn.Conv(2 * self.latent_size, (2, 2), (2, 2))
        self.up = nn.ConvTranspose(6, (2, 2), (2, 2))

    def encode(self, images: Array) -> Posterior:
        return Posterior(*jnp.split(self.down(images), 2, axis=-1))

    def decode(self, latents: Array) -> Decoded:
        mean, log_scale = jnp.split(self.up(latents), 2, axis=-1)
        return Decoded(mean, 0.1 * jnp.tanh(log_scale))

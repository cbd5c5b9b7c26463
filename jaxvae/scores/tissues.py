"""Tissue mixture: log odds of an anomaly, in a Markov random field.

    e_i = -log sum_k share_k N(x_i; mean_k, covariance_k)
    s_i = e_i - level + b sum_j (2 q_j - 1),  q_j = 1 / (1 + exp(-s_j)),  j the four neighbours of pixel i

x_i is the vector of a pixel's channels. Each pixel is healthy, with the density of the mixture, or anomalous, with the
density exp(-level) everywhere. 1 % of healthy pixels have a lower density than that. Each pair of neighbours with
different labels has the energy b (a Potts model), and s_i are the log odds of anomalous after sweeps of the mean field.
b = 0 is the mixture alone.

Source: Juan-Albarracin et al. 2015, PLoS ONE 10(5):e0125143, who segment tumours with a Gaussian hidden Markov random
field. They fit it to the scan of the patient, the field is of all classes, and an atlas of tissues says which of them
are healthy. Here the mixture is of healthy images, the field is of two labels, and no atlas is needed.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from jaxvae.models.model import Model
from jaxvae.objectives.elbo import Likelihood
from jaxvae.ops.filters import unit_range
from jaxvae.ops.gaussian import HALF_LOG_2PI
from jaxvae.scores.gradients import in_blocks
from jaxvae.types import Array, Params


def fit(
    model: Model,
    params: Params,
    images: np.ndarray,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
    classes: int = 4,
    most_pixels: int = 10_000,
    iterations: int = 50,
) -> dict[str, np.ndarray]:
    """The mixture of the pixels of healthy images, by expectation maximization.

    Args:
      model, params, log_scale, likelihood: unused.
      images: healthy images [N, H, W, C], uint8 or float; N of at least 1.
      classes: their number K.
      most_pixels: at most so many pixels are used, drawn with a fixed seed.
      iterations: of expectation maximization.

    Returns:
      log_share [K], mean [K, C], whitening [K, C, C] with covariance^-1 = whitening whitening', and level [], float32.
    """
    pixels = images.reshape(-1, images.shape[-1])
    if len(pixels) > most_pixels:
        pixels = pixels[np.sort(np.random.default_rng(0).choice(len(pixels), most_pixels, replace=False))]
    values = np.asarray(unit_range(pixels), np.float64)
    # A thousandth of the deviation of all values, so that equal pixels, such as the background, have a finite density.
    floor = 1e-6 * values.var(axis=0).mean() or 1.0
    share, mean, covariance = mixture(values, _first_classes(values, classes), floor, iterations)
    energy = -np.logaddexp.reduce(log_joint(values, share, mean, covariance), axis=1)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    found = {"log_share": np.log(share), "mean": mean, "whitening": whitening, "level": np.quantile(energy, 0.99)}
    return {name: np.asarray(array, np.float32) for name, array in found.items()}


def mixture(
    values: np.ndarray, belongs: np.ndarray, floor: float, iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a mixture of Gaussians by expectation maximization (Dempster et al. 1977).

    Args:
      values: [P, C].
      belongs: the first probabilities of the classes, [P, K].
      floor: what is added to the variances.

    Returns:
      share [K], mean [K, C] and covariance [K, C, C].
    """
    share, mean, covariance = (np.empty(0),) * 3
    for _ in range(iterations):
        # A class without pixels keeps a share above 0, as its logarithm is needed.
        counts = belongs.sum(axis=0) + 10 * np.finfo(float).eps
        share, mean = counts / counts.sum(), belongs.T @ values / counts[:, None]
        centred = values[None] - mean[:, None]  # [K, P, C]
        covariance = np.swapaxes(centred * belongs.T[..., None], 1, 2) @ centred / counts[:, None, None]
        covariance += floor * np.eye(values.shape[1])
        logs = log_joint(values, share, mean, covariance)
        belongs = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
    return share, mean, covariance


def log_joint(values: np.ndarray, share: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """log(share_k N(x; mean_k, covariance_k)), [P, K], in float64."""
    whitened = (values[None] - mean[:, None]) @ np.linalg.cholesky(np.linalg.inv(covariance))
    constant = np.log(share) - 0.5 * np.linalg.slogdet(covariance)[1] - HALF_LOG_2PI * values.shape[1]
    return constant - 0.5 * np.square(whitened).sum(axis=-1).T


def _first_classes(values: np.ndarray, classes: int) -> np.ndarray:
    """[P, K]: the range of the channels' mean is cut into K equal parts."""
    brightness = values.mean(axis=1)
    low, high = np.percentile(brightness, (1, 99))
    part = np.clip((brightness - low) / max(high - low, 1e-12) * classes, 0, classes - 1).astype(int)
    return np.eye(classes)[part]


@jax.jit(static_argnames=("model", "likelihood", "sweeps"))
def score(
    model: Model,
    params: Params,
    images: Array,
    *,
    log_scale: float | Array,
    likelihood: Likelihood,
    state: dict[str, Array],
    coupling: float | Array = 0.5,
    sweeps: int = 5,
) -> dict[str, Array]:
    """`tissues` in nats, [B, H, W, C], the same in all channels.

    Args:
      model, params, log_scale, likelihood: unused.
      images: [B, H, W, C], uint8 or float.
      state: from `fit`.
      coupling: b of the Potts model.
      sweeps: of the mean field.
    """
    log_share, mean, whitening = (jnp.asarray(state[name]) for name in ("log_share", "mean", "whitening"))

    def block(images: Array) -> Array:
        # The classes are the first axis, so that a processor's vectors are of pixels.
        centred = jnp.moveaxis(images, 3, 0)[None] - mean[:, :, None, None, None]  # [K, C, B, H, W]
        whitened = jnp.einsum("kcbhw,kcd->kdbhw", centred, whitening, precision=lax.Precision.HIGHEST)
        constant = log_share + jnp.log(jnp.diagonal(whitening, axis1=1, axis2=2)).sum(axis=1)
        constant -= HALF_LOG_2PI * images.shape[-1]
        logs = constant[:, None, None, None] - 0.5 * jnp.square(whitened).sum(axis=1)
        alone = -logsumexp(logs, axis=0) - state["level"]  # e - level, [B, H, W]

        def sweep(_: int, odds: Array) -> Array:
            return alone + coupling * _neighbours(2 * jax.nn.sigmoid(odds) - 1)

        return jnp.broadcast_to(lax.fori_loop(0, sweeps, sweep, alone)[..., None], images.shape)

    return {"tissues": in_blocks(block, unit_range(images))}


def _neighbours(field: Array) -> Array:
    """[B, H, W]: the sum over the four neighbours, 0 beyond the border."""
    padded = jnp.pad(field, ((0, 0), (1, 1), (1, 1)))
    return padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]

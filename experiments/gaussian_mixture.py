"""Gradients of the ELBO compared with the true score of a Gaussian mixture in two dimensions.

    python -m experiments.gaussian_mixture      # a minute on two cores

The example of the paper's supplement. A VAE is trained on samples of three Gaussians in the unit square, whose log
density and its gradient (the score) are known. The gradients of its ELBO, KL and likelihood are compared with the
score, by angle and by ratio of lengths, at fresh samples and at points of the whole square. So is the estimate of the
score by a denoising autoencoder with the same network: (r(x) - x) / noise^2, with r(x) the reconstruction of x (Alain &
Bengio 2014, theorem 1). Writes results/gaussian_mixture.json and .png.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxvae
from experiments import record
from jaxvae.models.model import reconstruct
from jaxvae.objectives.denoising import denoising_terms, pixel_noise
from jaxvae.report import tables
from jaxvae.train import Objective

MEANS = np.array([[0.3, 0.3], [0.7, 0.35], [0.5, 0.75]])
WEIGHTS = np.array([0.4, 0.25, 0.35])
STD = 0.08
MODEL = jaxvae.DenseVAE(image_shape=(1, 2, 1), latent_size=2, hidden_size=256)


@dataclasses.dataclass(frozen=True)
class Config:
    """Train on samples, compare the gradients."""

    samples: int = 20_000
    steps: int = 12_000
    log_scale: float = -2.5
    """natural logarithm of the decoder's standard deviation; that of each Gaussian is -2.53"""
    noise: float = 0.04
    """standard deviation of the noise that the denoising autoencoder removes; half of that of each Gaussian"""
    seed: int = 0


def draw(count: int, seed: int) -> np.ndarray:
    """Samples of the mixture, [count, 2]."""
    random = np.random.default_rng(seed)
    return MEANS[random.choice(len(WEIGHTS), count, p=WEIGHTS)] + STD * random.standard_normal((count, 2))


def log_density(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log p [N], its gradient [N, 2]) of the mixture at points [N, 2], in closed form."""
    offsets = MEANS - points[:, None]
    exponents = -0.5 * (offsets**2).sum(axis=2) / STD**2 + np.log(WEIGHTS) - np.log(2 * np.pi * STD**2)
    top = exponents.max(axis=1, keepdims=True)
    logarithm = (top + np.log(np.exp(exponents - top).sum(axis=1, keepdims=True)))[:, 0]
    shares = np.exp(exponents - logarithm[:, None])
    return logarithm, (shares[:, :, None] * offsets).sum(axis=1) / STD**2


def train(config: Config, objective: Objective = jaxvae.elbo_terms) -> Any:
    """The parameters of the VAE, or of the network trained with another objective."""
    images = jnp.asarray(draw(config.samples, config.seed), jnp.float32).reshape(-1, 1, 2, 1)
    settings = jaxvae.TrainConfig(batch_size=256, schedule="cosine", decay_steps=config.steps)
    hparams = jaxvae.Hyperparams(learning_rate=2e-3, log_scale=config.log_scale)
    state = jaxvae.init(MODEL, settings, hparams, jax.random.key(config.seed))
    return jaxvae.fit(MODEL, settings, hparams, state, images, steps=config.steps, objective=objective)[0].params


def train_denoiser(config: Config) -> Any:
    """The parameters of the denoising autoencoder."""
    corrupt = functools.partial(pixel_noise, strength=config.noise)
    return train(config, functools.partial(denoising_terms, corrupt=corrupt))


def estimated_score(config: Config, params: Any, points: np.ndarray) -> np.ndarray:
    """(r(x) - x) / noise^2 at points [N, 2], with the parameters of the denoising autoencoder."""
    images = jnp.asarray(points, jnp.float32).reshape(-1, 1, 2, 1)
    restored = np.asarray(reconstruct(MODEL, params, images).mean, np.float64).reshape(-1, 2)
    return (restored - points) / config.noise**2


def fields(config: Config, params: Any, points: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(value [N], gradient [N, 2]) of the ELBO and of its two terms, -KL and -NLL, by name."""

    def halves(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = jaxvae.sample_scores(MODEL, params, image[None], log_scale=config.log_scale)
        return -scores.kl[0], -scores.nll[0]

    images = jnp.asarray(points, jnp.float32).reshape(-1, 1, 2, 1)
    kl, nll = (np.asarray(values, np.float64) for values in jax.vmap(halves)(images))
    of_kl, of_nll = (np.asarray(g, np.float64).reshape(-1, 2) for g in jax.vmap(jax.jacrev(halves))(images))
    return {"ELBO": (kl + nll, of_kl + of_nll), "-KL": (kl, of_kl), "-NLL": (nll, of_nll)}


def errors(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Median angle between two vector fields [N, 2] in degrees, share within 45°, and median ratio of lengths."""
    lengths = np.linalg.norm(found, axis=1), np.linalg.norm(truth, axis=1)
    cosine = (found * truth).sum(axis=1) / (lengths[0] * lengths[1])
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return {
        "angle_median": float(np.median(angles)),
        "within_45_degrees": float(np.mean(angles < 45)),
        "length_ratio": float(np.median(lengths[0] / lengths[1])),
    }


def compare(config: Config, params: Any, denoiser: Any) -> list[dict[str, Any]]:
    """One row per field and set of points."""
    side = np.linspace(0.05, 0.95, 25)
    places = {
        "samples": draw(2000, config.seed + 1),
        "square": np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2),
    }
    rows = []
    for place, points in places.items():
        found = {name: gradient for name, (_, gradient) in fields(config, params, points).items()}
        found["DAE"] = estimated_score(config, denoiser, points)
        truth = log_density(points)[1]
        rows += [{"field": name, "points": place, **errors(gradient, truth)} for name, gradient in found.items()]
    return rows


def plot(path: Path, config: Config, params: Any, denoiser: Any) -> None:
    """Density and score, the three fields of the VAE, and the estimate of the denoising autoencoder, side by side."""
    from matplotlib.figure import Figure

    fine, coarse = (np.linspace(0.02, 0.98, count) for count in (120, 18))
    dense, few = (np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2) for line in (fine, coarse))
    values, arrows = fields(config, params, dense), fields(config, params, few)
    panels = {"log p": (log_density(dense)[0], log_density(few)[1])}
    panels |= {name: (values[name][0], arrows[name][1]) for name in values}
    # The autoencoder estimates no density, so the true one is behind its arrows.
    panels["log p with the DAE's estimate"] = log_density(dense)[0], estimated_score(config, denoiser, few)
    figure = Figure(figsize=(20, 4.6), layout="constrained")
    samples = draw(400, config.seed)
    for axes, (name, (heights, gradient)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        heights = np.maximum(heights, np.percentile(heights, 20))
        axes.contourf(fine, fine, heights.reshape(len(fine), -1), levels=20, cmap="Blues")
        axes.scatter(*samples.T, s=2, color="#d55e00", alpha=0.5, linewidths=0)
        # Directions only: lengths grow with the distance and would hide the middle.
        unit = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        axes.quiver(*few.T, *unit.T, scale=28, width=0.004, color="#222222")
        title = name if "DAE" in name else f"{name} and its gradient"
        axes.set(title=title, xticks=[], yticks=[], aspect="equal", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(path, dpi=110)


def main(config: Config) -> None:
    started = time.time()
    params, denoiser = train(config), train_denoiser(config)
    rows = compare(config, params, denoiser)
    columns = ["field", "points", "angle_median", "within_45_degrees", "length_ratio"]
    print(tables.text(rows, columns, best={}))
    plot(record.RESULTS / "gaussian_mixture.png", config, params, denoiser)
    record.write("gaussian_mixture.json", rows, seconds=[time.time() - started])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

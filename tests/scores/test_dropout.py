"""Scores over dropout against NumPy in float64 and the closed form of a linear VAE."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pixel_score_laws
import pytest
from two_matrices import TwoMatrices

from jaxvae.models.model import init_params, reconstruct
from jaxvae.scores import METHODS, dropout
from jaxvae.scores.dropout import PASSES, SEED, score
from jaxvae.types import Decoded
from oracle import assert_close

RATE = 0.25


class Denoiser(nn.Module):
    """A model without a latent: dropout and one layer."""

    image_shape: tuple[int, int, int] = (4, 4, 1)
    latent_size: int = 1
    dropout: float = RATE

    @nn.compact
    def reconstruct(self, images):
        hidden = nn.Dropout(self.dropout)(images, deterministic=not self.has_rng("dropout"))
        return Decoded(nn.Conv(1, (3, 3))(hidden))


def case(scale: float | None = None) -> tuple[TwoMatrices, dict, jax.Array]:
    model = TwoMatrices(scale=scale, dropout=RATE)
    params = init_params(model, jax.random.key(0))
    return model, params, jax.random.uniform(jax.random.key(1), (4, *model.image_shape))


@pytest.mark.parametrize("scale", [None, -0.8])
def test_dropout_matches_a_loop_over_images_and_passes(scale):
    model, params, images = case(scale)
    found = score(model, params, images, passes=6)
    assert sorted(found) == sorted(one.name for one in METHODS["dropout"].scores)
    keys = jax.random.split(jax.random.key(SEED), 6)
    for number, image in enumerate(images):
        means = np.stack([reconstruct(model, params, image[None], key).mean[0] for key in keys]).astype(np.float64)
        assert means.std(0).max() > 0.01
        assert_close(found["dropout_error"][number], np.square(np.asarray(image) - means).mean(0), 1e-4)
        noise = 0 if scale is None else math.exp(2 * scale)
        assert_close(found["dropout_variance"][number], means.var(0, ddof=1) + noise, 1e-4)


def test_dropout_approaches_the_closed_form_of_a_linear_vae():
    model, params, images = case()
    found = score(model, params, images, passes=2000)
    down, up = (np.asarray(params[name], np.float64) for name in ("down", "up"))
    flat = np.asarray(images, np.float64).reshape(4, -1)
    # A latent is kept with probability 1 - r and divided by 1 - r, so its variance is z^2 r / (1 - r).
    variance = (flat @ down) ** 2 @ up**2 * RATE / (1 - RATE)
    error = (flat - flat @ down @ up) ** 2 + variance
    got = np.asarray(found["dropout_variance"]).reshape(4, -1)
    assert np.abs(got - variance).max() < 0.1 * variance.max()
    assert np.abs(np.asarray(found["dropout_error"]).reshape(4, -1) - error).max() < 0.1 * error.max()


def test_all_images_lose_the_same_units():
    model, params, images = case()
    same = jnp.stack([images[0]] * 3)
    for values in score(model, params, same, passes=3).values():
        np.testing.assert_allclose(values[1:], jnp.stack([values[0]] * 2), rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_laws_of_pixel_scores(kind):
    pixel_score_laws.check_laws(dropout, kind, dropout=0.2, passes=3)


def test_a_model_without_a_latent_has_dropout_scores():
    model = Denoiser()
    params = init_params(model, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (3, 4, 4, 1))
    found = score(model, params, np.asarray(255 * images, np.uint8), passes=4)
    assert all(values.shape == images.shape and bool((values >= 0).all()) for values in found.values())
    assert float(found["dropout_variance"].max()) > 0


def test_models_without_dropout_and_single_passes_are_refused(vae, images):
    with pytest.raises(ValueError, match="has no dropout"):
        score(*vae, images)
    with pytest.raises(ValueError, match="passes=1: a variance needs at least 2"):
        score(*case(), passes=1)
    assert PASSES >= 2

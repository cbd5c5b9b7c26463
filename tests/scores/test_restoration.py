"""MAP restoration against a NumPy float64 loop, and its laws."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pixel_score_laws
import pytest
from two_matrices import TwoMatrices

import jaxvae
from jaxvae.models.model import init_params
from jaxvae.scores import METHODS, restoration
from jaxvae.scores.restoration import BOUND, PAPER_WEIGHT, WEIGHTS, fit, restore, score, variation_slope
from jaxvae.types import Array
from oracle import assert_close

SHAPE = TwoMatrices().image_shape


class Case(NamedTuple):
    model: TwoMatrices
    params: dict
    images: Array


@pytest.fixture(scope="module")
def case() -> Case:
    model = TwoMatrices()
    return Case(model, init_params(model, jax.random.key(0)), jax.random.uniform(jax.random.key(1), (4, *SHAPE)))


def restored_in_numpy(params: dict, image: np.ndarray, log_scale: float, weight: float, steps: int) -> np.ndarray:
    """The loop of the paper for a linear VAE, in float64."""
    down, up = (np.asarray(params[name], np.float64) for name in ("down", "up"))
    image = np.asarray(image, np.float64)
    restored = image.copy()
    for number in range(steps):
        y = restored.ravel()
        error = y - y @ down @ up
        # |error|^2 + 2 s^2 KL, with KL = |y down|^2 / 2 + a constant.
        slope = 2 * (error - down @ (up @ error)) + 2 * np.exp(2 * log_scale) * down @ (y @ down)
        slope = slope.reshape(image.shape) + weight * variation_slope_in_numpy(restored - image)
        restored = restored - (5e-3 if number < 100 else 2e-3) * np.clip(slope, -50, 50)
    return restored


def variation_slope_in_numpy(image: np.ndarray) -> np.ndarray:
    slope = np.zeros_like(image)
    height, width, _ = image.shape
    for i, j in np.ndindex(height, width):
        for a, b in ((i + 1, j), (i, j + 1)):
            if a < height and b < width:
                sign = np.sign(image[a, b] - image[i, j])
                slope[a, b] += sign
                slope[i, j] -= sign
    return slope


def total_variation(images: Array) -> float:
    return float(jnp.abs(jnp.diff(images, axis=1)).sum() + jnp.abs(jnp.diff(images, axis=2)).sum())


@pytest.mark.parametrize(
    ("log_scale", "weight", "steps"), [(0.0, 0.0, 150), (-0.5 * np.log(2), 0.3, 5), (-1.0, 2.2, 3)]
)
def test_restoration_matches_a_loop_in_float64(case, log_scale, weight, steps):
    # Where TV switches its sign, rounding decides. So the cases with TV have few steps.
    got = restore(case.model, case.params, case.images, log_scale=log_scale, weight=weight, steps=steps)
    for image, result in zip(case.images, got, strict=True):
        expected = restored_in_numpy(case.params, image, log_scale, weight, steps)
        assert np.abs(expected - image).max() > 1e-3
        assert_close(result, expected)


def test_slope_of_total_variation_matches_its_differences():
    images = np.random.default_rng(0).random((2, 5, 4, 3)).astype(np.float32)
    assert_close(variation_slope(jnp.asarray(images)), np.stack([variation_slope_in_numpy(i) for i in images]))
    direction = jax.random.normal(jax.random.key(2), images.shape)
    change = (total_variation(images + 1e-3 * direction) - total_variation(images - 1e-3 * direction)) / 2e-3
    np.testing.assert_allclose(jnp.sum(variation_slope(jnp.asarray(images)) * direction), change, rtol=1e-2)
    assert not variation_slope(jnp.ones((1, 3, 3, 1))).any()


def test_no_steps_change_nothing(case):
    np.testing.assert_array_equal(restore(case.model, case.params, case.images, steps=0), case.images)


def test_restoration_raises_the_elbo_of_the_images(vae, images):
    model, params = vae
    before = jaxvae.sample_scores(model, params, images).elbo
    after = jaxvae.sample_scores(model, params, restore(model, params, images, weight=0.0, steps=60)).elbo
    assert (after < before).all()


def test_larger_weights_keep_the_change_smoother(case):
    changes = [
        case.images - restore(case.model, case.params, case.images, weight=weight, steps=200)
        for weight in (0, 0.05, 0.2)
    ]
    variations = [total_variation(change) for change in changes]
    assert variations[0] > variations[1] > variations[2] > 0


@pytest.mark.parametrize("kind", ["dense", "conv", "spatial"])
def test_laws_of_pixel_scores(kind):
    pixel_score_laws.check_laws(restoration, kind, state={"weight": jnp.float32(0.2)}, steps=5)


def test_clipped_steps_have_the_largest_size(case):
    images = 1e4 * case.images
    change = restore(case.model, case.params, images, weight=0.0, steps=1) - images
    np.testing.assert_allclose(jnp.abs(change).max(), 5e-3 * BOUND, rtol=1e-2)


def test_a_learned_scale_replaces_the_given_one(case):
    learned = TwoMatrices(scale=-0.7)
    for steps in (1, 20):
        got = restore(learned, case.params, case.images, log_scale=3.0, weight=0.0, steps=steps)
        assert_close(got, restore(case.model, case.params, case.images, log_scale=-0.7, weight=0.0, steps=steps))


def test_a_new_scale_or_weight_compiles_nothing(case, compilations):
    score(case.model, case.params, case.images, log_scale=jnp.float32(0), state={"weight": jnp.float32(1)}, steps=2)
    compilations.clear()
    score(case.model, case.params, case.images, log_scale=jnp.float32(-1), state={"weight": jnp.float32(2)}, steps=2)
    assert "jit(restore)" not in compilations


@pytest.fixture(scope="module")
def trained() -> Case:
    """A linear VAE that knows one smooth pattern at various strengths."""
    rows, columns = np.mgrid[:12, :12] / 12
    patterns = np.stack([np.sin(3 * rows) * np.cos(2 * columns), np.cos(4 * rows + columns)])
    strengths = np.random.default_rng(0).random((40, 2, 1, 1))
    images = (strengths * patterns).sum(1)[..., None].astype(np.float32)
    basis = np.linalg.svd(images.reshape(40, -1), full_matrices=False)[2][:2]
    model = TwoMatrices((12, 12, 1), 2)
    return Case(model, {"down": jnp.asarray(basis.T), "up": jnp.asarray(basis)}, jnp.asarray(images))


def test_an_inserted_square_has_the_highest_score(trained):
    images = trained.images.at[:, 4:7, 5:8].add(1.0)
    found = score(trained.model, trained.params, images, log_scale=-3.0, state={"weight": 0.2})["restoration"]
    inside = found[:, 4:7, 5:8]
    assert inside.mean() > 5 * found.mean()
    assert float(inside.min(axis=(1, 2, 3)).mean()) > float(jnp.quantile(found, 0.9))


def test_fit_chooses_the_weight_that_changes_healthy_images_least(trained):
    rng = np.random.default_rng(1)
    healthy = np.asarray(trained.images) + rng.normal(0, 0.05, trained.images.shape).astype(np.float32)
    weights = (0.0, 0.4, 3.8)
    settings = {"log_scale": -2.0, "steps": 200}
    state = fit(trained.model, trained.params, healthy, weights=weights, count=40, **settings)
    changes = [
        float(jnp.abs(healthy - restore(trained.model, trained.params, healthy, weight=weight, **settings)).mean())
        for weight in weights
    ]
    # Without TV, noise is removed; with much TV, each step goes too far.
    assert changes[1] < min(changes[0], changes[2])
    np.testing.assert_allclose(state["weight"], 0.4)


def test_fit_uses_evenly_spaced_images_and_the_range_of_the_images(trained):
    raw = np.asarray(255 * trained.images.clip(0, 1), np.uint8)
    few = fit(trained.model, trained.params, raw, count=2, steps=5, weights=(0.0, 1.0))
    ends = fit(trained.model, trained.params, raw[[0, -1]] / np.float32(255), count=5, steps=5, weights=(0.0, 1.0))
    assert few == ends


def test_settings_are_those_of_the_paper():
    assert WEIGHTS[0] == 0
    assert WEIGHTS[-1] == 3.8
    assert PAPER_WEIGHT in WEIGHTS
    assert METHODS["restoration"].fitted

"""PCA against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

import jaxvae
from jaxvae.scores import components

SETTINGS = {"log_scale": 0.0, "likelihood": jaxvae.gaussian_nll}


@pytest.mark.parametrize("count", [20, 90])  # fewer and more images than pixels
def test_residuals_are_those_of_scikit_learn(count: int) -> None:
    rng = np.random.default_rng(0)
    scales = np.exp(-np.arange(5 * 6 * 2) / 5)
    images = (rng.normal(size=(count, scales.size)) * scales @ rng.normal(size=(scales.size, scales.size))).astype(
        np.float32
    )
    oracle = PCA(7, svd_solver="full").fit(images.astype(np.float64))
    state = components.fit(None, {}, images.reshape(count, 5, 6, 2), components=7, **SETTINGS)
    products = state["components"] @ oracle.components_.T
    np.testing.assert_allclose(np.abs(products), np.eye(7), atol=1e-4)
    new = rng.normal(size=(4, scales.size)).astype(np.float32)
    residuals = new - oracle.inverse_transform(oracle.transform(new))
    (maps,) = components.score(None, {}, new.reshape(4, 5, 6, 2), state=state, **SETTINGS).values()
    np.testing.assert_allclose(np.reshape(maps, new.shape), residuals**2, rtol=1e-3, atol=1e-4)


def test_healthy_images_in_the_span_of_the_components_score_zero() -> None:
    rng = np.random.default_rng(0)
    images = (rng.random((30, 3)) @ rng.random((3, 20))).astype(np.float32).reshape(30, 4, 5, 1)
    state = components.fit(None, {}, images, **SETTINGS)
    assert np.linalg.norm(state["components"], axis=1).round(4).tolist() == [1.0] * 3 + [0.0] * 61
    (maps,) = components.score(None, {}, images, state=state, **SETTINGS).values()
    np.testing.assert_allclose(maps, 0, atol=1e-10)

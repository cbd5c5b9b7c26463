"""The tissue mixture against scikit-learn, and the Markov field against its equations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import jaxvae
from jaxvae.scores import tissues

SETTINGS = {"log_scale": 0.0, "likelihood": jaxvae.gaussian_nll}


def brains() -> np.ndarray:
    """[20, 6, 7, 2] float32, pixels of three classes and a constant background."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, (20, 6, 7))
    means, deviations = np.array([[0, 0], [0.3, 0.6], [0.6, 0.5], [0.9, 0.1]]), np.array([0, 0.05, 0.03, 0.08])
    noise = rng.normal(size=(20, 6, 7, 2)) * deviations[classes][..., None]
    return (means[classes] + noise).astype(np.float32)


def test_the_mixture_is_that_of_scikit_learn() -> None:
    values = brains().reshape(-1, 2).astype(np.float64)
    belongs = np.random.default_rng(1).dirichlet(np.ones(4), len(values))
    share, mean, covariance = tissues.mixture(values, belongs, 1e-4, 1)
    first = {"weights_init": share, "means_init": mean, "precisions_init": np.linalg.inv(covariance)}
    oracle = GaussianMixture(4, reg_covar=1e-4, max_iter=30, tol=0, **first)
    with pytest.warns(ConvergenceWarning):
        oracle.fit(values)
    fitted = tissues.mixture(values, belongs, 1e-4, 31)
    for ours, theirs in zip(fitted, (oracle.weights_, oracle.means_, oracle.covariances_), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    densities = np.logaddexp.reduce(tissues.log_joint(values, *fitted), axis=1)
    np.testing.assert_allclose(densities, oracle.score_samples(values), rtol=1e-6)


def test_scores_without_coupling_are_log_densities_of_the_mixture() -> None:
    images = brains()
    state = tissues.fit(None, {}, images, **SETTINGS)
    maps = np.asarray(tissues.score(None, {}, images, state=state, coupling=0.0, **SETTINGS)["tissues"])
    covariance = np.linalg.inv(state["whitening"] @ np.swapaxes(state["whitening"], 1, 2)).astype(np.float64)
    share = np.exp(state["log_share"])
    logs = tissues.log_joint(images.reshape(-1, 2).astype(np.float64), share, state["mean"], covariance)
    expected = -np.logaddexp.reduce(logs, axis=1) - state["level"]
    np.testing.assert_allclose(maps[..., 0].ravel(), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(maps[..., 0], maps[..., 1])
    # The level is the 99th percentile.
    assert abs(np.mean(maps > 0) - 0.01) < 2e-3


def test_the_field_follows_its_equations() -> None:
    images = brains()
    state = tissues.fit(None, {}, images, **SETTINGS)
    alone = np.asarray(tissues.score(None, {}, images, state=state, coupling=0.0, **SETTINGS)["tissues"][..., 0])
    odds = alone.astype(np.float64)
    for _ in range(3):
        signs, total = 2 * expit(odds) - 1, np.zeros_like(odds)
        for row, column in np.ndindex(6, 7):
            near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            total[:, row, column] = sum(signs[:, r, c] for r, c in near if 0 <= r < 6 and 0 <= c < 7)
        odds = alone + 0.7 * total
    found = tissues.score(None, {}, images, state=state, coupling=0.7, sweeps=3, **SETTINGS)["tissues"]
    np.testing.assert_allclose(found[..., 0], odds, rtol=1e-4, atol=1e-4)

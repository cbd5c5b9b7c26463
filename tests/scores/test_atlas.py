"""The atlas against the mean and standard deviation of NumPy."""

from __future__ import annotations

import numpy as np

import jaxvae
from jaxvae.scores import atlas

SETTINGS = {"log_scale": 0.0, "likelihood": jaxvae.gaussian_nll}


def test_mean_and_deviation_are_those_of_all_images() -> None:
    # More images than a block, far from 0, so that a sum of squares would lose digits.
    images = (1000 + np.random.default_rng(0).normal(size=(600, 3, 4, 2))).astype(np.float32)
    state = atlas.fit(None, {}, images, eps=0.2, **SETTINGS)
    deviation = images.astype(np.float64).std(axis=0)
    floor = 0.2 * np.sqrt(np.mean(deviation**2))
    np.testing.assert_allclose(state["mean"], images.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(state["deviation"], deviation + floor, rtol=1e-6)
    (maps,) = atlas.score(None, {}, images[:5], state=state, **SETTINGS).values()
    np.testing.assert_allclose(maps, np.abs(images[:5] - state["mean"]) / state["deviation"], rtol=1e-6)


def test_scores_do_not_depend_on_the_scale_of_intensities() -> None:
    images = np.random.default_rng(0).random((30, 3, 4, 1)).astype(np.float32)
    first, scaled = (
        atlas.score(None, {}, factor * images, state=atlas.fit(None, {}, factor * images, **SETTINGS), **SETTINGS)
        for factor in (np.float32(1), np.float32(64))
    )
    np.testing.assert_allclose(first["atlas"], scaled["atlas"], rtol=1e-5)

"""kNN of patches against scikit-learn's nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

import jaxvae
from jaxvae.scores import patch_neighbours

SETTINGS = {"log_scale": 0.0, "likelihood": jaxvae.gaussian_nll}


@pytest.mark.parametrize("k", [1, 3])
def test_distances_are_those_of_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(0)
    healthy, images = (rng.random((count, 9, 11, 2)).astype(np.float32) for count in (12, 3))
    state = patch_neighbours.fit(None, {}, healthy, **SETTINGS)
    (maps,) = patch_neighbours.score(None, {}, images, state=state, k=k, patch=5, stride=1, **SETTINGS).values()
    ours, theirs = (np.pad(part, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge") for part in (images, healthy))
    for row, column in np.ndindex(9, 11):
        place = np.s_[:, row : row + 5, column : column + 5]
        oracle = NearestNeighbors(n_neighbors=k).fit(theirs[place].reshape(12, -1))
        distances = oracle.kneighbors(ours[place].reshape(3, -1))[0][:, -1]
        np.testing.assert_allclose(maps[:, row, column], np.stack([distances] * 2, axis=1), rtol=1e-5)


def test_a_coarse_grid_has_the_distances_of_its_pixels_between() -> None:
    rng = np.random.default_rng(0)
    healthy, images = (rng.random((count, 10, 14, 1)).astype(np.float32) for count in (7, 2))
    state = patch_neighbours.fit(None, {}, healthy, **SETTINGS)
    fine, coarse = (
        patch_neighbours.score(None, {}, images, state=state, patch=5, stride=stride, **SETTINGS)["knn_patches"]
        for stride in (1, 3)
    )
    # With a stride of 3, the middle of each cell of 3x3 pixels is a pixel, whose value is not interpolated.
    np.testing.assert_allclose(coarse[:, 1::3, 1::3], fine[:, 1::3, 1::3], rtol=1e-5)


def test_a_healthy_image_is_its_own_nearest_neighbour() -> None:
    healthy = np.random.default_rng(0).random((5, 12, 12, 1)).astype(np.float32)
    state = patch_neighbours.fit(None, {}, healthy, **SETTINGS)
    first, second = (
        patch_neighbours.score(None, {}, healthy, state=state, k=k, **SETTINGS)["knn_patches"] for k in (1, 2)
    )
    np.testing.assert_allclose(first, 0, atol=1e-2)
    assert np.min(second) > 0.5


def test_at_most_so_many_images_are_kept() -> None:
    images = np.arange(10, dtype=np.float32)[:, None, None, None] + np.zeros((1, 2, 2, 1), np.float32)
    state = patch_neighbours.fit(None, {}, images, most_images=4, **SETTINGS)
    assert state["healthy"][:, 0, 0, 0].tolist() == [0, 3, 6, 9]

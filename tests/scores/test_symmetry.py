"""Asymmetry against loops, and its laws under mirroring and shifts."""

from __future__ import annotations

import numpy as np

import jaxvae
from jaxvae.scores import symmetry

SETTINGS = {"log_scale": 0.0, "likelihood": jaxvae.gaussian_nll}


def asymmetry(images: np.ndarray, **settings: int) -> np.ndarray:
    return np.asarray(symmetry.score(None, {}, images, **settings, **SETTINGS)["asymmetry"])


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_scores_are_the_least_distance_of_patches() -> None:
    images = drawn(2, 8, 9, 2)
    found = asymmetry(images, patch=3, reach=2)
    ours = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    theirs = np.pad(images[:, :, ::-1], ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
    for row, column in np.ndindex(8, 9):
        patch = ours[:, row : row + 3, column : column + 3]
        others = [theirs[:, row + r : row + r + 3, column + c : column + c + 3] for r, c in np.ndindex(5, 5)]
        least = np.min([np.abs(patch - other).mean(axis=(1, 2)) for other in others], axis=0)
        np.testing.assert_allclose(found[:, row, column], least, rtol=1e-5)


def test_a_symmetric_image_scores_zero() -> None:
    half = drawn(1, 10, 8, 1)
    np.testing.assert_array_equal(asymmetry(np.concatenate([half, half[:, :, ::-1]], axis=2)), 0)


def test_a_small_shift_of_a_symmetric_image_changes_nothing_inside() -> None:
    half = drawn(1, 12, 12, 1)
    shifted = np.roll(np.concatenate([half, half[:, :, ::-1]], axis=2), (1, 1), axis=(1, 2))
    maps = asymmetry(shifted)
    np.testing.assert_array_equal(maps[:, :, 6:-6], 0)


def test_the_scores_of_a_mirrored_image_are_mirrored() -> None:
    images = drawn(3, 9, 12, 1)
    np.testing.assert_allclose(asymmetry(images[:, :, ::-1]), asymmetry(images)[:, :, ::-1], rtol=1e-5)

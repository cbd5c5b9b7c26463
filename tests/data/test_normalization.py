"""Z-score and robust normalization of images and volumes."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvae.data.images.preparation import Preparation, prepare
from jaxvae.data.volumes.slices import Slicing, normalised


def scan() -> np.ndarray:
    """A disc of values in three channels, surrounded by zeros."""
    rows, columns = np.mgrid[:40, :40] - 19.5
    values = np.random.default_rng(4).gamma(2.0, 1.0, (40, 40, 3)).astype(np.float32) * [1, 10, 100]
    return np.where((np.hypot(rows, columns) < 15)[..., None], values, 0).astype(np.float32)


def test_zscore_gives_zero_mean_and_unit_variance_inside_the_scan():
    image = scan()
    inside = (image != 0).any(axis=-1)
    normalised = prepare(image, Preparation(normalise="zscore"))
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised[inside].mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(normalised[inside].std(axis=0, dtype=np.float64), 1, rtol=1e-5)


def test_robust_scale_equals_that_of_scipy():
    from scipy.stats import median_abs_deviation

    image = scan()
    inside = (image != 0).any(axis=-1)
    expected = (image - np.median(image[inside], axis=0)) / median_abs_deviation(image[inside], axis=0, scale="normal")
    np.testing.assert_allclose(prepare(image, Preparation(normalise="robust")), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("normalise", ["zscore", "robust"])
@pytest.mark.parametrize("background", [0, 1])  # With 1, more than half of the pixels count and are equal.
def test_normalization_removes_the_gain_and_keeps_the_order(normalise, background):
    image = scan() + background
    normalised = prepare(image, Preparation(normalise=normalise))
    np.testing.assert_allclose(prepare(image * 7, Preparation(normalise=normalise)), normalised, rtol=1e-3, atol=1e-4)
    for channel in range(3):
        assert normalised[..., channel].argmax() == image[..., channel].argmax()


@pytest.mark.parametrize("normalise", ["zscore", "robust"])
@pytest.mark.parametrize("value", [0, 0.1, 1000.1])
def test_images_without_contrast_stay_finite_and_flat(normalise, value):
    constant = prepare(np.full((20, 20, 2), value, np.float32), Preparation(normalise=normalise))
    np.testing.assert_allclose(constant, 0, atol=1e-3)


def reference(values: np.ndarray, normalise: str) -> tuple[float, float]:
    """(centre, spread) of float64 values, by the formulas of the documentation."""
    centre, spread = values.mean(), values.std()
    if normalise == "robust":
        centre = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - centre)) or spread
    return centre, spread


@pytest.mark.parametrize("normalise", ["zscore", "robust"])
@pytest.mark.parametrize("share", [0.0, 0.7])  # of pixels that have one value
def test_images_and_volumes_follow_the_formulas_bit_for_bit(normalise, share):
    """Images subtract and divide in float32, volumes in float64."""
    image = scan()
    image[(np.random.default_rng(5).random((40, 40)) < share) & (image != 0).any(axis=-1)] = 5
    inside = (image != 0).any(axis=-1)
    prepared = prepare(image, Preparation(normalise=normalise))
    for channel in range(3):
        values = image[..., channel][inside].astype(np.float64)
        centre, spread = reference(values, normalise)
        expected = (image[..., channel] - np.float32(centre)) / np.float32(spread)
        np.testing.assert_array_equal(prepared[..., channel], expected)
        voxels = normalised(image[..., channel][inside], Slicing(normalise=normalise))
        np.testing.assert_array_equal(voxels, ((values - centre) / spread).astype(np.float32))

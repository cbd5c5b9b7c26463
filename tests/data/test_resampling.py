"""Resizing keeps means; maps come back to the grid of their image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxvae.data.resampling import on_grid, resize

IMAGE = np.random.default_rng(0).random((23, 41, 3), dtype=np.float32)


def average_over_areas(image: np.ndarray, size: int) -> np.ndarray:
    """The same in float64: every pixel is repeated until the new pixels are whole blocks of the old ones."""
    repeated = image.astype(np.float64).repeat(size, axis=0).repeat(size, axis=1)
    height, width, channels = image.shape
    return repeated.reshape(size, height, size, width, channels).mean(axis=(1, 3))


def test_height_and_width_are_resized_separately():
    resized = resize(IMAGE, (5, 60), kind="image")
    assert resized.shape == (5, 60, 3)
    np.testing.assert_allclose(resize(resized, 1, kind="image"), IMAGE.mean(axis=(0, 1), keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(resized.mean(axis=1), average_over_areas(IMAGE, 5).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(resized.mean(axis=0), average_over_areas(IMAGE, 60).mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(resize(IMAGE, (7, 7), kind="mask"), resize(IMAGE, 7, kind="mask"))


@pytest.mark.parametrize("size", [1, 5, 7, 23, 32, 41, 60])
def test_resizing_averages_over_the_area_under_each_pixel(size):
    resized = resize(IMAGE, size, kind="image")
    assert resized.shape == (size, size, 3)
    assert resized.dtype == np.float32
    assert resized.flags.c_contiguous
    np.testing.assert_allclose(resized, average_over_areas(IMAGE, size), rtol=1e-5)


@pytest.mark.parametrize("size", [3, 8, 50])
def test_resizing_keeps_mean_constants_and_empty_surroundings(size):
    assert resize(IMAGE, size, kind="image").mean(dtype=np.float64) == pytest.approx(
        IMAGE.mean(dtype=np.float64), rel=1e-6
    )
    constant = np.full((13, 9, 2), 0.1, np.float32)
    np.testing.assert_allclose(resize(constant, size, kind="image"), 0.1, rtol=1e-6)
    empty = IMAGE.copy()
    empty[:, :20] = 0
    assert (resize(empty, 4, kind="image")[:, 0] == 0).all()


def test_shrinking_by_a_whole_factor_agrees_with_pillow():
    image = np.random.default_rng(1).random((60, 60), dtype=np.float32)
    pillow = np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BOX))
    np.testing.assert_allclose(resize(image[..., None], 12, kind="image")[..., 0], pillow, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 10, 33])
def test_masks_take_the_value_under_the_centre(size):
    mask = np.random.default_rng(2).random((11, 17, 1)) < 0.5
    resized = resize(mask, size, kind="mask")
    assert resized.dtype == bool
    for i in range(size):
        for j in range(size):
            assert resized[i, j, 0] == mask[int((i + 0.5) * 11 / size), int((j + 0.5) * 17 / size), 0]


@pytest.mark.parametrize("shape", [(6, 9), (20, 9), (6, 40), (23, 31), (4, 3)])
def test_a_map_comes_back_to_the_grid_of_its_image(shape):
    """Enlarging equals scipy's linear interpolation between pixel centres; shrinking averages."""
    values = np.random.default_rng(0).random((6, 9, 1)).astype(np.float32)
    got = on_grid(values, shape)
    assert (got.shape, got.dtype) == ((*shape, 1), np.float32)
    if shape >= (6, 9):
        zoom = [new / old for new, old in zip(shape, (6, 9), strict=True)]
        expected = ndimage.zoom(values[..., 0].astype(float), zoom, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(got[..., 0], expected, atol=1e-6)
    else:
        np.testing.assert_allclose(got.mean(), values.mean(), rtol=1e-6)
    np.testing.assert_allclose(on_grid(np.ones_like(values), shape), 1, rtol=1e-6)

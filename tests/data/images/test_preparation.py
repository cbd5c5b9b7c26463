"""What is done to every image: resizing keeps the mean, normalising takes it away."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxvae.data.images.preparation import Preparation, prepare
from jaxvae.data.normalization import as_float
from jaxvae.data.resampling import on_grid, resize
from jaxvae.errors import InputError

IMAGE = np.random.default_rng(0).random((23, 41, 3), dtype=np.float32)


def average_over_areas(image: np.ndarray, size: int) -> np.ndarray:
    """The same by another road, in float64: every pixel repeated until the new pixels are whole blocks of it."""
    repeated = image.astype(np.float64).repeat(size, axis=0).repeat(size, axis=1)
    height, width, channels = image.shape
    return repeated.reshape(size, height, size, width, channels).mean(axis=(1, 3))


def test_height_and_width_are_resized_each_by_itself():
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


def test_nothing_to_do_leaves_bytes_as_they_are():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert prepare(image, Preparation()) is image
    chosen = prepare(image, Preparation(channels=(2, 0)))
    assert chosen.dtype == np.uint8
    np.testing.assert_array_equal(chosen, image[..., [2, 0]])


def test_bytes_that_are_resized_lie_between_0_and_1():
    image = np.random.default_rng(3).integers(0, 256, (10, 10, 1), dtype=np.uint8)
    resized = prepare(image, Preparation(size=5))
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, average_over_areas(image, 5) / 255, rtol=1e-5)
    np.testing.assert_allclose(as_float(image), image / 255, rtol=1e-6)


def scan() -> np.ndarray:
    """A disc of values in three channels with nothing around it."""
    rows, columns = np.mgrid[:40, :40] - 19.5
    values = np.random.default_rng(4).gamma(2.0, 1.0, (40, 40, 3)).astype(np.float32) * [1, 10, 100]
    return np.where((np.hypot(rows, columns) < 15)[..., None], values, 0).astype(np.float32)


def test_zscore_is_zero_mean_and_unit_variance_inside_the_scan():
    image = scan()
    inside = (image != 0).any(axis=-1)
    normalised = prepare(image, Preparation(normalise="zscore"))
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised[inside].mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(normalised[inside].std(axis=0, dtype=np.float64), 1, rtol=1e-5)


def test_robust_scale_is_that_of_scipy_inside_the_scan():
    from scipy.stats import median_abs_deviation

    image = scan()
    inside = (image != 0).any(axis=-1)
    expected = (image - np.median(image[inside], axis=0)) / median_abs_deviation(image[inside], axis=0, scale="normal")
    np.testing.assert_allclose(prepare(image, Preparation(normalise="robust")), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("normalise", ["zscore", "robust"])
@pytest.mark.parametrize("background", [0, 1])  # with 1 more than half of the pixels count and are equal
def test_normalising_takes_away_the_gain_and_keeps_the_order(normalise, background):
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


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ({"size": 0}, "size=0"),
        ({"size": (8, 0)}, r"size=\(8, 0\)"),
        ({"channels": ()}, "channels="),
        ({"channels": (-1,)}, "channels="),
        ({"normalise": "minmax"}, "normalise='minmax'"),
    ],
)
def test_impossible_preparations_name_the_flag(arguments, flag):
    with pytest.raises(InputError, match=flag):
        Preparation(**arguments)


def test_a_channel_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"channels=\(0, 3\): of an image of 3 channels, 0 to 2 can be kept"):
        prepare(IMAGE, Preparation(channels=(0, 3)))


def test_a_preparation_survives_the_file_it_is_written_to():
    preparation = Preparation(size=64, channels=(1,), normalise="robust")
    written = json.loads(json.dumps(asdict(preparation)))
    assert Preparation(**{**written, "channels": tuple(written["channels"])}) == preparation
    assert hash(preparation) == hash(Preparation(64, (1,), "robust"))


@pytest.mark.parametrize("shape", [(6, 9), (20, 9), (6, 40), (23, 31), (4, 3)])
def test_a_map_comes_back_to_the_grid_of_its_image(shape):
    """Where it grows it is scipy's linear interpolation between pixel centres, where it shrinks it is averaged."""
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

"""The rule for masks: labels are positive above 0, other values from half of their range upwards."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxvae.data.masks import binary

SQUARE = np.zeros((40, 60), np.uint8)
SQUARE[10:25, 12:41] = 1


def jpeg(mask: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("value", [1, 2, 4, 255, 40_000])
def test_one_value_beside_zero_is_positive(dtype, value):
    if np.issubdtype(dtype, np.integer) and value > np.iinfo(dtype).max:
        return
    mask, notice = binary((SQUARE * np.float64(value)).astype(dtype))
    np.testing.assert_array_equal(mask, SQUARE > 0)
    assert notice is None


@pytest.mark.parametrize("scale", [1 / 255, 0.7, 2**31, 1e7])
def test_a_scaled_mask_is_positive_where_it_was(scale):
    mask, notice = binary(SQUARE * float(scale))
    np.testing.assert_array_equal(mask, SQUARE > 0)
    assert notice is None


@pytest.mark.parametrize(
    "labels", [(1, 2, 4), (1, 2, 3, 4, 5), (50, 100), (10, 50, 100, 200), (247, 250, 255), (2035, 17, 60, 41)]
)
@pytest.mark.parametrize("off", [0.0, 3e-7, -2e-4])
def test_labels_are_positive_above_zero(labels, off):
    drawn = np.zeros((40, 60), np.float64)
    for i, label in enumerate(labels):
        drawn[3 + 4 * i : 6 + 4 * i, 5:30] = label
    mask, notice = binary(drawn + off)
    np.testing.assert_array_equal(mask, drawn > 0)
    assert notice is None


def test_the_regions_of_a_brain_are_labels():
    regions = np.kron(np.arange(64).reshape(4, 4, 4) * 3, np.ones((3, 3, 3), int))
    mask, notice = binary(regions)
    np.testing.assert_array_equal(mask, regions > 0)
    assert notice is None


def test_a_label_of_one_pixel_is_positive():
    drawn = np.zeros((20, 20), np.uint8)
    drawn[3, 4], drawn[10, 10], drawn[15:18, 2:9] = 1, 2, 4
    assert np.count_nonzero(binary(drawn)[0]) == 1 + 1 + 21


@pytest.mark.parametrize("background", [1e-6, -1e-6])
def test_a_background_near_zero_is_negative(background):
    mask, notice = binary(np.where(SQUARE, 1, background).astype(np.float32))
    np.testing.assert_array_equal(mask, SQUARE > 0)
    assert notice is None
    assert not binary(np.full((4, 5), background))[0].any()


@pytest.mark.parametrize("order", [1, 3])
def test_interpolated_masks_are_thresholded_at_half(order):
    """Thresholded at half, a square moved by less than half a pixel stays in place."""
    moved = ndimage.shift(SQUARE.astype(float), (0.3, 0.2), order=order)
    eight_bits = np.rint(np.clip(moved, 0, 1) * 255).astype(np.uint8)
    for values in (moved, moved.astype(np.float32), eight_bits, np.rint(moved * 1000).astype(np.int16)):
        mask, notice = binary(values)
        np.testing.assert_array_equal(mask, SQUARE > 0)
        assert notice is not None
        assert "are not labels" in notice


@pytest.mark.parametrize("filter", [Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
def test_antialiased_masks_are_thresholded_at_half(filter):
    large = Image.fromarray(np.kron(SQUARE, np.ones((4, 4), np.uint8)) * 255)
    mask, _ = binary(np.asarray(large.resize((60, 40), filter)))
    np.testing.assert_array_equal(mask, SQUARE > 0)
    # The area of an ellipse drawn at four times the size and shrunk is right to a percent.
    rows, columns = np.mgrid[:240, :400]
    ellipse = ((rows - 120) / 90) ** 2 + ((columns - 200) / 150) ** 2 <= 1
    small = Image.fromarray(ellipse.astype(np.uint8) * 255).resize((100, 60), filter)
    mask, notice = binary(np.asarray(small))
    assert mask.sum() == pytest.approx(np.pi * 90 * 150 / 16, rel=0.01)
    assert notice is not None
    assert "from 0 to 255, are not labels; those from 127.5 upwards" in notice


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("lossy", [False, True])
def test_jpeg_masks_are_thresholded_at_half(quality, lossy):
    noisy = jpeg(SQUARE * 255, quality)
    mask, notice = binary(noisy, lossy=lossy)
    np.testing.assert_array_equal(mask, noisy >= noisy.max() / 2)
    assert (mask != (SQUARE > 0)).mean() < 0.01
    assert notice is not None


def test_jpeg_noise_of_an_empty_mask_is_negative():
    noise = np.random.default_rng(0).integers(0, 9, (40, 60), dtype=np.uint8)
    mask, notice = binary(noise, lossy=True)
    assert not mask.any()
    assert notice == "its values are at most 8, so none is positive"
    assert binary(np.zeros((4, 5), np.uint8), lossy=True)[1] is None
    assert binary(SQUARE * 255, lossy=True)[1] is None


@pytest.mark.parametrize("shape", [(60, 80), (24, 25, 26)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_values_of_a_scan_are_not_labels(shape, dtype):
    rng = np.random.default_rng(0)
    scan = ndimage.gaussian_filter(rng.normal(size=shape), 1)
    scan = ((scan - scan.min()) / (scan.max() - scan.min()) * 250).astype(dtype)
    assert binary(scan)[1] is not None


def test_empty_masks_are_negative():
    for dtype in (bool, np.uint8, np.float32):
        mask, notice = binary(np.zeros((4, 5), dtype))
        assert not mask.any()
        assert mask.dtype == bool
        assert notice is None

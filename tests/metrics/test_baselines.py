"""Baseline scores against ranks of SciPy, small images worked by hand, and real scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from jaxvae.errors import InputError
from jaxvae.metrics.baselines import brightness, equalised_brightness
from jaxvae.metrics.ranking import auroc


def draw(
    count: int = 4, *, channels: int = 1, background: float = -1.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(images [N, 16, 12, C] with ties and the value `background` outside a disc, the discs [N, 16, 12, 1])."""
    generator = np.random.default_rng(seed)
    images = np.round(generator.normal(size=(count, 16, 12, channels)), 1).astype(np.float32) + np.float32(0.05)
    inside = np.hypot(*np.meshgrid(np.arange(16) - 7.5, np.arange(12) - 5.5, indexing="ij")) < 5
    disc = np.broadcast_to(inside[None, :, :, None], (count, 16, 12, 1))
    return np.where(disc, images, np.float32(background)), disc


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_is_the_mean_of_magnitudes(channels):
    images, _ = draw(channels=channels)
    maps = brightness(images)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, np.abs(images.astype(np.float64)).mean(axis=-1, keepdims=True), rtol=1e-6)


def test_bytes_are_scaled_to_0_to_1():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(brightness(images), images.astype(np.float32) / 255)
    ranks = equalised_brightness(images, np.ones((1, 16, 16, 1), dtype=bool))
    np.testing.assert_array_equal(ranks.ravel(), (np.arange(1, 257) / 256).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3])
def test_equalised_brightness_is_the_rank_in_the_foreground(channels):
    images, disc = draw(channels=channels)
    maps = equalised_brightness(images)
    for image, inside, found in zip(images, disc, maps, strict=True):
        of_foreground = image.mean(axis=-1, keepdims=True)[inside]
        np.testing.assert_allclose(found[inside], rankdata(of_foreground) / inside.sum(), rtol=1e-6)
        assert not found[~inside].any()


def test_a_mask_selects_the_ranked_pixels():
    images, disc = draw()
    generator = np.random.default_rng(1)
    mask = generator.random(disc.shape) < 0.5
    maps = equalised_brightness(images, mask)
    np.testing.assert_array_equal(maps > 0, mask)
    np.testing.assert_array_equal(maps, equalised_brightness(images, mask[..., 0]))
    for image, inside, found in zip(images, mask, maps, strict=True):
        np.testing.assert_allclose(found[inside], rankdata(image[inside]) / inside.sum(), rtol=1e-6)


def test_negative_values_rank_low():
    ranks = equalised_brightness(
        np.array([-3.0, -0.5, 0.5, 3.0], np.float32).reshape(1, 2, 2, 1), np.ones((1, 2, 2), bool)
    )
    np.testing.assert_allclose(ranks.ravel(), [0.25, 0.5, 0.75, 1])


def test_the_background_is_found_by_value_not_magnitude():
    images, disc = draw(background=-1.5)
    brightest = np.argwhere(disc[0])[0]
    images[(0, *brightest)] = 1.5
    maps = equalised_brightness(images)
    assert maps[(0, *brightest)] > 0
    np.testing.assert_array_equal(maps > 0, disc)


def test_foreground_may_touch_the_border():
    images, disc = draw()
    images[:, 0, :5] = np.float32(3.0)
    expected = disc.copy()
    expected[:, 0, :5] = True
    np.testing.assert_array_equal(equalised_brightness(images) > 0, expected)


def test_without_a_common_border_value_all_is_foreground():
    images = np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32)
    maps = equalised_brightness(images)
    np.testing.assert_allclose(np.sort(maps.reshape(3, 64)), np.tile(np.arange(1, 65) / 64, (3, 1)), rtol=1e-6)


def test_a_blank_image_is_all_background():
    assert not equalised_brightness(np.full((2, 8, 8, 1), 0.7, dtype=np.float32)).any()


def test_ranks_depend_on_neither_scale_nor_other_images():
    images, _ = draw(5)
    maps = equalised_brightness(images)
    np.testing.assert_array_equal(equalised_brightness(images[2:3]), maps[2:3])
    np.testing.assert_array_equal(equalised_brightness(images * 4), maps)


def test_many_images_are_ranked_in_parts():
    images, _ = draw(3)
    many = np.tile(images, (500, 1, 1, 1))  # more than fit into one part
    np.testing.assert_array_equal(equalised_brightness(many)[-3:], equalised_brightness(images))


def test_no_images_give_no_maps():
    assert equalised_brightness(np.zeros((0, 8, 8, 1), dtype=np.uint8)).shape == (0, 8, 8, 1)
    assert brightness(np.zeros((0, 8, 8, 3), dtype=np.float32)).shape == (0, 8, 8, 1)


@pytest.mark.parametrize("baseline", [brightness, equalised_brightness])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 1), dtype=np.float32), r"images has shape \(8, 8, 1\): must be \[N, H, W, C\]"),
        (np.zeros((1, 8, 8, 1), dtype=np.uint16), "images has dtype uint16"),
        (np.stack([np.zeros((8, 8, 1)), np.full((8, 8, 1), np.nan)]), r"images\[1\] holds NaN or infinite values"),
        (np.full((1, 8, 8, 1), np.inf), r"images\[0\] holds NaN or infinite values"),
    ],
)
def test_invalid_images_raise_an_error(baseline, images, message):
    with pytest.raises(InputError, match=message):
        baseline(images)


@pytest.mark.parametrize("mask", [np.ones((1, 8, 8), dtype=np.uint8), np.ones((1, 8, 7), dtype=bool)])
def test_a_mask_of_another_shape_or_dtype_raises_an_error(mask):
    with pytest.raises(InputError, match=r"mask is \w+ of shape"):
        equalised_brightness(np.zeros((1, 8, 8, 1), dtype=np.float32), mask)


def test_the_background_of_real_scans_is_outside_the_brain_mask(data: Path):
    nibabel = pytest.importorskip("nibabel")
    folder = data / "brats2015-subset" / "validation" / "brats_2013_pat0003_1"

    def slices(name: str) -> np.ndarray:
        volume = nibabel.load(folder / name).get_fdata(dtype=np.float32)
        return np.moveaxis(volume, 2, 0)[::4, ..., None]

    brain, tumour = slices("brainmask.nii.gz") > 0.5, slices("OTMultiClass.nii.gz") > 0
    maps = equalised_brightness(slices("Flair_subtrMeanDivStd.nii.gz"))
    np.testing.assert_array_equal(maps > 0, brain)
    # Tumour is bright on FLAIR, so this baseline is hard to beat.
    assert auroc(maps[brain], tumour[brain]) > 0.85

"""Slices of volumes, and maps back on the volume's grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from jaxvae.data.volumes import slices
from jaxvae.data.volumes.foreground import GUESSED, foreground
from jaxvae.data.volumes.slices import Slicing, cut, put_back
from jaxvae.errors import InputError
from scan_folders import head

SPACING = (2.0, 2.0, 2.0)


def test_slices_have_front_up_and_left_on_the_left():
    voxels, brain = np.zeros((20, 30, 4), np.float32), np.zeros((20, 30, 4), bool)
    brain[2:18, 5:25] = True
    voxels[3, 22, 2] = 1  # left of the middle, at the front
    image = cut(voxels, brain, SPACING, Slicing(size=40, normalise="none")).images[2, ..., 0]
    row, column = np.unravel_index(np.argmax(image), image.shape)
    assert row < 10
    assert column < 10


def test_the_box_is_square_in_millimetres_and_holds_the_brain():
    _, brain, _ = head(0, shape=(24, 56, 16))
    placement = cut(
        brain.astype(np.float32) + head(0, shape=(24, 56, 16))[0], brain, (2.0, 1.0, 2.0), Slicing()
    ).placement
    assert placement.width * 2.0 == pytest.approx(placement.depth, abs=2)
    x, y = (np.flatnonzero(brain.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    assert placement.left <= x[0] <= x[-1] < placement.left + placement.width
    assert placement.back <= y[0] <= y[-1] < placement.back + placement.depth


@pytest.mark.parametrize("size", [16, 64, 61])
def test_maps_go_back_to_the_voxels_they_came_from(size):
    voxels, brain, _ = head(1)
    smooth = ndimage.gaussian_filter(voxels, 3) * brain
    there = cut(smooth, brain, SPACING, Slicing(size=size, normalise="none", smallest=0))
    back = put_back(there.images, there.placement, brain)
    assert back.shape == voxels.shape
    np.testing.assert_array_equal(back[~brain], 0)
    # Only voxels at the rim mix with the empty surroundings.
    core = ndimage.binary_erosion(brain, iterations=3)
    np.testing.assert_allclose(back[core], smooth[core], atol=0.06 * smooth.max())
    assert np.corrcoef(back[core], smooth[core])[0, 1] > 0.97


def test_a_map_of_ones_is_zero_outside_the_brain():
    voxels, brain, _ = head(1)
    there = cut(voxels, brain, SPACING, Slicing(size=32, smallest=0.25))
    back = put_back(np.ones_like(there.images), there.placement, brain)
    kept = np.zeros(brain.shape, bool)
    kept[..., list(there.placement.planes)] = True
    np.testing.assert_allclose(back, brain & kept, atol=1e-6)


def test_shrinking_averages_and_enlarging_interpolates():
    """Compared with SciPy's linear interpolation between pixel centres and with means of blocks."""
    rng = np.random.default_rng(0)
    voxels, brain = rng.normal(size=(20, 20, 1)).astype(np.float32), np.ones((20, 20, 1), bool)
    placement = slices.Placement((20, 20, 1), (0,), 0, 0, 20, 20)
    small = slices._shrunk(voxels, np.array([[0]]), placement, 10)[0, ..., 0]
    np.testing.assert_allclose(small, voxels[..., 0].reshape(10, 2, 10, 2).mean(axis=(1, 3)).T[::-1], atol=1e-6)
    back = put_back(small[None, ..., None], placement, brain)[..., 0]
    centres = (np.arange(20) + 0.5) / 2 - 0.5
    expected = ndimage.map_coordinates(
        small[::-1].T, np.meshgrid(centres, centres, indexing="ij"), order=1, mode="nearest"
    )
    np.testing.assert_allclose(back, expected, atol=1e-5)


@pytest.mark.parametrize("normalise", ["zscore", "robust"])
def test_normalization_ignores_the_background(normalise):
    voxels, brain, _ = head(2)
    there = {
        background: cut(np.where(brain, voxels, background), brain, SPACING, Slicing(size=24, normalise=normalise))
        for background in (0, -5.3)
    }
    np.testing.assert_array_equal(there[0].images, there[-5.3].images)
    stretched = cut(3 * voxels + 7 * brain, brain, SPACING, Slicing(size=24, normalise=normalise))
    np.testing.assert_allclose(stretched.images, there[0].images, atol=1e-4)
    assert slices.normalised(voxels[brain], Slicing()).std() == pytest.approx(1, abs=1e-5)


def test_clipping_is_counted():
    voxels, brain, _ = head(3)
    there = cut(voxels, brain, SPACING, Slicing(size=24, clip=1.0))
    z = (voxels[brain] - voxels[brain].mean()) / voxels[brain].std()
    assert there.clipped == pytest.approx(np.mean(np.abs(z) > 1), abs=1e-3)
    assert np.abs(there.images).max() <= 1


def test_percentiles_clip_rare_values():
    voxels, brain, _ = head(3)
    values = slices.normalised(voxels[brain], Slicing(normalise="none", percentiles=(5, 90)))
    low, high = np.percentile(voxels[brain], [5, 90])
    np.testing.assert_allclose(values, np.clip(voxels[brain], low, high), rtol=1e-5)
    slicing = Slicing(percentiles=(5.0, 90.0))
    assert slices.from_config(slices.to_config(slicing)) == slicing


def test_planes_with_little_brain_are_dropped():
    voxels, brain, _ = head(4)
    area = brain.sum(axis=(0, 1))
    assert list(cut(voxels, brain, SPACING, Slicing(smallest=0.5)).placement.planes) == list(
        np.flatnonzero(area >= 0.5 * area.max())
    )
    assert list(cut(voxels, brain, SPACING, Slicing(smallest=0)).placement.planes) == list(np.flatnonzero(area > 0))


def test_neighbours_are_the_planes_above_and_below():
    voxels, brain, _ = head(5)
    alone = cut(voxels, brain, SPACING, Slicing(size=24, smallest=0))
    several = cut(voxels, brain, SPACING, Slicing(size=24, smallest=0, neighbours=1))
    assert several.images.shape[-1] == 3
    np.testing.assert_array_equal(several.images[1:-1, ..., 0], alone.images[:-2, ..., 0])
    np.testing.assert_array_equal(several.images[..., 1], alone.images[..., 0])
    np.testing.assert_array_equal(several.images[1:-1, ..., 2], alone.images[2:, ..., 0])
    whole = np.ones_like(brain)
    edge = cut(voxels, whole, SPACING, Slicing(size=24, smallest=0, neighbours=1))
    np.testing.assert_array_equal(edge.images[0, ..., 0], 0)
    np.testing.assert_array_equal(edge.images[-1, ..., 2], 0)


def test_foreground_of_a_skull_stripped_scan_is_the_brain():
    voxels, brain, _ = head(6)
    for background in (0, -3.2):
        found, guess = foreground(np.where(brain, voxels, background).astype(np.float32), SPACING)
        np.testing.assert_array_equal(found, brain)
        assert guess is None
    holed = voxels.copy()
    holed[10:13, 12:15, 8] = 0  # a ventricle as dark as the background
    np.testing.assert_array_equal(foreground(holed, SPACING)[0], brain)


def test_foreground_of_a_truncated_slab():
    voxels, brain, _ = head(6)
    found, guess = foreground(voxels[..., 6:10], SPACING)
    assert guess is None
    np.testing.assert_array_equal(found, brain[..., 6:10])


def test_foreground_of_a_whole_head_is_reported_as_a_guess():
    rng = np.random.default_rng(0)
    voxels = np.abs(rng.normal(0, 3, (60, 60, 60))).astype(np.float32)
    voxels[10:50, 10:50] += 100
    found, guess = foreground(voxels, (4.0, 4.0, 4.0))
    assert guess == GUESSED
    expected = np.zeros(voxels.shape, bool)
    expected[10:50, 10:50] = True
    assert 2 * np.sum(found & expected) / (found.sum() + expected.sum()) > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"normalise": "minmax"}, "normalise='minmax': pass none, zscore or robust"),
        ({"percentiles": (90, 5)}, r"percentiles=\(90, 5\): must ascend within 0 to 100"),
        ({"clip": 0.0}, "clip=0.0: must be above 0"),
        ({"smallest": 1.5}, "smallest=1.5"),
        ({"neighbours": -1}, "neighbours=-1"),
    ],
)
def test_values_out_of_range(change, message):
    with pytest.raises(InputError, match=message):
        Slicing(**change)


def test_empty_and_constant_brains_are_refused():
    voxels, brain, _ = head(7)
    with pytest.raises(InputError, match="its brain mask is empty"):
        cut(voxels, np.zeros_like(brain), SPACING, Slicing())
    with pytest.raises(InputError, match="all voxels of its brain have one value"):
        cut(np.ones_like(voxels), brain, SPACING, Slicing())

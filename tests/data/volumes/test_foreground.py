"""The brain of a scan without a mask does not depend on halos, noise, gaps and units."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from jaxvae.data.volumes import volume_files
from jaxvae.data.volumes.foreground import GUESSED, HALO, foreground
from jaxvae.data.volumes.prepared_scan import read_scan
from jaxvae.data.volumes.scans import Scan
from jaxvae.data.volumes.slices import Slicing
from scan_folders import SHAPE, head

SPACING = (4.0, 4.0, 4.0)
FINE = (48, 56, 40)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.sum(one & other) / (one.sum() + other.sum())


def turned(order: int) -> tuple[np.ndarray, np.ndarray]:
    """(a skull-stripped scan rotated by a spline kernel, its rotated brain)."""
    voxels, brain, _ = head(3, shape=FINE)
    rotated = ndimage.rotate(5 * voxels, 8, reshape=False, order=order).astype(np.float32)
    return rotated, ndimage.rotate(brain.astype(np.float32), 8, reshape=False, order=1) > 0.5


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("stored", ["float", "whole", "without negative", "other background", "negated"])
def test_the_halo_of_a_spline_is_excluded(order, stored):
    voxels, truth = turned(order)
    changed = {
        "float": voxels,
        "whole": np.round(voxels),
        "without negative": np.round(np.maximum(voxels, 0)),
        "other background": voxels / 60 - 7,
        "negated": -voxels,
    }[stored]
    found, said = foreground(changed.astype(np.float32), SPACING)
    assert said == HALO
    assert dice(found, truth) > 0.99
    # A lesion of twice the mean has the same z-score as in the true brain; with the halo it has half.
    scores = [(2 * voxels[truth].mean() - voxels[brain].mean()) / voxels[brain].std() for brain in (found, truth)]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def test_the_halo_of_lanczos_is_excluded():
    voxels, brain, _ = head(3, shape=FINE)
    places = np.arange(-3, 3) + 0.5
    kernel = np.sinc(places) * np.sinc(places / 3)
    shifted, truth = voxels, brain.astype(np.float32)
    for axis in range(3):
        shifted = ndimage.convolve1d(shifted, kernel / kernel.sum(), axis, mode="constant")
        truth = ndimage.convolve1d(truth, [0.5, 0.5], axis, mode="constant")
    found, said = foreground(shifted.astype(np.float32), SPACING)
    assert said == HALO
    assert dice(found, truth >= 0.5) > 0.98


@pytest.mark.parametrize("background", [0, -3.2, -1024])
@pytest.mark.parametrize("noise", [0, 1e-6, 1e-3])
def test_tiny_noise_around_a_brain_is_ignored(background, noise):
    voxels, brain, _ = head(6)
    around = background + noise * np.random.default_rng(0).normal(0, 100, SHAPE)
    found, said = foreground(np.where(brain, voxels, around).astype(np.float32), SPACING)
    np.testing.assert_array_equal(found, brain)
    assert said is None


def test_a_normalised_brain_around_a_background_of_0():
    voxels, brain, _ = head(6)
    inside = (voxels - voxels[brain].mean()) / voxels[brain].std()
    found, said = foreground(np.where(brain, inside, 0).astype(np.float32), SPACING)
    np.testing.assert_array_equal(found, brain)
    assert said is None


def test_linear_interpolation_has_no_halo():
    voxels, truth = turned(1)
    found, said = foreground(voxels, SPACING)
    assert said is None
    np.testing.assert_array_equal(found, voxels != 0)
    assert (found | ~truth).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("at", [slice(6, 7), slice(8, 11), slice(5, 12, 2)])
def test_empty_planes_do_not_cut_a_brain_in_two(axis, at):
    voxels, brain, _ = head(2)
    empty = (slice(None),) * axis + (at,)
    voxels[empty], brain[empty] = 0, False
    found, said = foreground(voxels, SPACING)
    np.testing.assert_array_equal(found & brain, brain)
    assert said is None


def test_large_parts_belong_to_the_brain_and_specks_do_not():
    voxels, brain, _ = head(2)
    x, y, z = np.indices(SHAPE)
    cut = np.abs(x + y + z - 36) < 2  # oblique, so that no plane is empty
    voxels[cut], brain[cut] = 0, False
    voxels[0, 0, 0] = 90
    found, _ = foreground(voxels, SPACING)
    assert not found[0, 0, 0]
    np.testing.assert_array_equal(found & brain, brain)


@pytest.mark.parametrize(
    ("unit", "scale", "warned"),
    [
        ("micron", 1e3, ""),
        ("meter", 1e-3, ""),
        ("mm", 1, ""),
        ("micron", 1, "its unit of length is micrometres"),
        ("unknown", 1e3, "its unit of length is not said"),
    ],
)
def test_the_unit_of_length_is_read(tmp_path, unit, scale, warned):
    voxels, brain, _ = head(1)
    image = nib.Nifti1Image(voxels, np.diag([4 * scale] * 3 + [1]))
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "a.nii.gz")
    cut = read_scan(Scan("a", "a", tmp_path / "a.nii.gz", None, None), Slicing(size=16))
    np.testing.assert_allclose(cut.volume.spacing, SPACING, rtol=1e-6)
    np.testing.assert_array_equal(cut.brain, brain)
    assert not cut.is_head
    assert len(cut.warnings) == bool(warned)
    assert "".join(cut.warnings).startswith(warned)
    # Maps keep the unit of their scan.
    volume_files.write(tmp_path / "map.nii.gz", voxels, cut.volume)
    written = nib.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(written.affine, image.affine)
    assert written.header["xyzt_units"] == image.header["xyzt_units"]


def test_a_head_surrounded_by_zeros_is_recognised():
    rng = np.random.default_rng(0)
    voxels = np.abs(rng.normal(0, 1, (60, 60, 60))).astype(np.float32)
    voxels[10:50, 10:50, 10:50] += 100
    voxels[[0, -1]] = 0
    voxels[:, [0, -1]] = 0
    voxels[..., [0, -1]] = 0
    found, said = foreground(voxels, (4.0, 4.0, 4.0))
    assert said == GUESSED
    assert found.sum() == 40**3


def test_empty_planes_are_counted(tmp_path):
    voxels, _, _ = head(1)
    voxels[..., 7:9] = 0
    nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])).to_filename(tmp_path / "a.nii.gz")
    cut = read_scan(Scan("a", "a", tmp_path / "a.nii.gz", None, None), Slicing(size=16))
    assert cut.warnings == ("empty planes within the brain: 2",)

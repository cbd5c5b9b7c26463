"""Volumes: what is read is what lies there, turned; a map lies on the scan's own grid; what is damaged is refused."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from jaxvae.data import volumes
from jaxvae.errors import InputError

SHAPE = (4, 5, 6)
OBLIQUE = np.array([[1.0, 0.1, -0.2, -7], [-0.1, 1.2, 0.1, 8], [0.2, -0.1, 2.0, 9], [0, 0, 0, 1]])
ORIENTATIONS = [
    "".join(np.choose(signs, [["R", "A", "S"], ["L", "P", "I"]])[list(order)])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((0, 1), repeat=3)
]


def noise(shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32) -> np.ndarray:
    values = np.random.default_rng(0).normal(100, 30, shape)
    return values.astype(dtype)


def saved(path: Path, stored: np.ndarray | None = None, affine: np.ndarray | None = None, **header: Any) -> Path:
    stored = noise() if stored is None else stored
    image = nib.Nifti1Image(stored, np.eye(4) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    image.to_filename(path)
    return path


def affine_of(codes: str) -> np.ndarray:
    """The affine of a scan of 1 x 2 x 3 mm along R, A and S, stored in the order of `codes`."""
    ornt = nib.orientations.axcodes2ornt(codes)
    to_stored = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), ornt)
    return np.array([[1, 0, 0, -3], [0, 2, 0, 5], [0, 0, 3, 7], [0, 0, 0, 1]]) @ nib.orientations.inv_ornt_aff(
        to_stored, SHAPE
    )


@pytest.mark.parametrize("codes", [*ORIENTATIONS, "oblique"])
def test_a_map_goes_back_to_the_scans_own_grid_bit_for_bit(tmp_path, codes):
    affine = OBLIQUE if codes == "oblique" else affine_of(codes)
    image = nib.Nifti1Image(noise(), affine)
    image.set_qform(affine, 3)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "scan.nii.gz")
    volume = volumes.read(tmp_path / "scan.nii.gz")
    assert "".join(nib.orientations.aff2axcodes(volume.affine)) == "RAS"
    # A voxel keeps its place in the world: that of the brightest one, found by its index in either array.
    brightest = [np.unravel_index(np.argmax(array), array.shape) for array in (volume.voxels, noise())]
    places = [nib.affines.apply_affine(a, i) for a, i in zip((volume.affine, image.affine), brightest, strict=True)]
    np.testing.assert_allclose(places[0], places[1], atol=1e-4)
    if codes != "oblique":
        np.testing.assert_allclose(volume.spacing, (1, 2, 3), rtol=1e-5)
    volumes.write(tmp_path / "map.nii.gz", volume.voxels, volume)
    written: Any = nib.load(tmp_path / "map.nii.gz")
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), noise())
    for key in (
        "qform_code",
        "sform_code",
        "xyzt_units",
        "srow_x",
        "srow_y",
        "srow_z",
        "quatern_b",
        "qoffset_x",
        "pixdim",
    ):
        np.testing.assert_array_equal(written.header[key], image.header[key], err_msg=key)


def test_axial_means_z_whatever_way_a_scan_is_stored(tmp_path):
    """A sagittal acquisition stored as P, S, R: the plane z = 2 of the world is the plane 2 of the voxels."""
    ras = np.arange(120, dtype=np.float32).reshape(SHAPE)
    stored = np.transpose(ras, (1, 2, 0))[::-1]  # axes A, S, R; then P for A
    affine = np.array([[0, 0, 1, 0], [-1, 0, 0, SHAPE[1] - 1], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    volume = volumes.read(saved(tmp_path / "psr.nii", stored, affine))
    np.testing.assert_array_equal(volume.voxels, ras)
    np.testing.assert_array_equal(volume.affine, np.eye(4))


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", ">f4", "f8", "u2", ">f8"])
def test_types_byte_orders_and_scale_factors(tmp_path, dtype):
    stored, scaled = noise(dtype="u1").astype(dtype), noise(dtype="u1") * 0.25 - 3
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.dtype(dtype))
    header.set_sform(np.eye(4), 1)
    # Written by hand, as nibabel would choose scale factors of its own.
    header.set_slope_inter(0.25, -3)
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "scan.nii").write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    volume = volumes.read(tmp_path / "scan.nii")
    assert volume.voxels.dtype == np.dtype("=f4")
    np.testing.assert_allclose(volume.voxels, scaled, rtol=1e-6)
    volumes.write(tmp_path / "map.nii", volume.voxels, volume)
    again = volumes.read(tmp_path / "map.nii")
    np.testing.assert_array_equal(again.voxels, volume.voxels)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_scale_factor_that_is_none_counts_as_one(tmp_path, slope):
    path = saved(tmp_path / "scan.nii", noise(dtype=np.int16))
    content = bytearray(path.read_bytes())
    content[112:116] = np.float32(slope).tobytes()
    path.write_bytes(content)
    np.testing.assert_array_equal(volumes.read(path).voxels, noise(dtype=np.int16))


@pytest.mark.parametrize("kind", ["NIfTI-2", "MGH", "MGZ", "Analyze", "pair", ".NII.GZ"])
def test_formats(tmp_path, kind):
    affine = np.diag([-1, 1, 1, 1.0])
    made = {
        "NIfTI-2": lambda: nib.Nifti2Image(noise(), affine).to_filename(tmp_path / "a.nii"),
        "MGH": lambda: nib.MGHImage(noise(), affine).to_filename(tmp_path / "a.mgh"),
        "MGZ": lambda: nib.MGHImage(noise(), affine).to_filename(tmp_path / "a.mgz"),
        "Analyze": lambda: nib.Spm99AnalyzeImage(noise(), affine).to_filename(tmp_path / "a.img"),
        "pair": lambda: nib.Nifti1Pair(noise(), affine).to_filename(tmp_path / "a.img"),
        ".NII.GZ": lambda: saved(tmp_path / "b.nii.gz", affine=affine).rename(tmp_path / "a.NII.GZ"),
    }
    made[kind]()
    [path] = filter(volumes.is_volume, tmp_path.iterdir())
    volume = volumes.read(path)
    assert volumes.stem(path) == "a"
    volumes.write(tmp_path / "map.nii.gz", volume.voxels, volume)
    back = volumes.read(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    np.testing.assert_array_equal(volume.voxels, noise()[::-1])


def test_a_single_volume_of_four_axes_and_a_single_slice(tmp_path):
    np.testing.assert_array_equal(volumes.read(saved(tmp_path / "a.nii", noise()[..., None])).voxels, noise())
    flat = noise((4, 5, 1))
    np.testing.assert_array_equal(volumes.read(saved(tmp_path / "b.nii", flat)).voxels, flat)


def test_what_is_not_a_number_is_counted(tmp_path):
    stored = noise()
    stored[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = volumes.read(saved(tmp_path / "a.nii", stored))
    assert volume.warnings == ("3 voxels are NaN or infinite and were read as 0",)
    np.testing.assert_array_equal(volume.voxels[0, 0, :3], 0)
    np.testing.assert_array_equal(volume.voxels[1:], stored[1:])


def test_an_orientation_left_open_is_said(tmp_path):
    path = saved(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(content)
    assert volumes.read(path).warnings == ("neither sform nor qform is set, so left and right are a guess",)


def test_other_orientations_left_open_are_said(tmp_path):
    nib.Spm99AnalyzeImage(noise(), None).to_filename(tmp_path / "a.img")
    (tmp_path / "a.mat").unlink(missing_ok=True)
    assert "an Analyze header does not say which side is left" in volumes.read(tmp_path / "a.img").warnings[0]
    image = nib.Nifti1Image(noise(), np.eye(4))
    image.set_sform(np.diag([-1.0, 1, 1, 1]), 1)
    image.set_qform(np.eye(4), 1)
    image.to_filename(tmp_path / "b.nii")
    assert "mirror images of each other" in volumes.read(tmp_path / "b.nii").warnings[0]
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    image.to_filename(tmp_path / "c.nii")
    assert volumes.read(tmp_path / "c.nii").warnings == ()


def test_a_map_holds_no_extension_of_the_scan(tmp_path):
    image = nib.Nifti1Image(noise(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe, 1970-01-01"))
    image.header["aux_file"] = b"jane_doe.txt"
    image.to_filename(tmp_path / "a.nii")
    volumes.write(tmp_path / "map.nii", noise(), volumes.read(tmp_path / "a.nii"))
    assert b"ane" not in (tmp_path / "map.nii").read_bytes()


def test_equal_maps_make_equal_bytes(tmp_path):
    volume = volumes.read(saved(tmp_path / "a.nii.gz"))
    for name in ("one.nii.gz", "two.nii.gz"):
        volumes.write(tmp_path / name, volume.voxels, volume)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


def test_masks(tmp_path):
    volume = volumes.read(saved(tmp_path / "a.nii"))
    drawn = noise() > 100
    # 0.99999997 is what int32 with a scale factor gives; truncated to an integer it would be no brain at all.
    nearly = saved(tmp_path / "mask.nii", np.where(drawn, np.float32(0.99999994), 0).astype(np.float32))
    np.testing.assert_array_equal(volumes.read_mask(nearly, volume), drawn)
    turned = saved(
        tmp_path / "turned.nii",
        drawn[::-1].astype("u1"),
        affine=np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    np.testing.assert_array_equal(volumes.read_mask(turned, volume), drawn)
    moved = saved(
        tmp_path / "moved.nii",
        drawn.astype("u1"),
        affine=np.array([[1, 0, 0, 2.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    with pytest.raises(InputError, match=r"moved.nii: lies elsewhere than .*a.nii .* by 2.5 mm"):
        volumes.read_mask(moved, volume)
    small = saved(tmp_path / "small.nii", drawn[1:].astype("u1"))
    with pytest.raises(InputError, match=r"small.nii: 3x5x6 voxels, but .*a.nii has 4x5x6"):
        volumes.read_mask(small, volume)


def write_bad(folder: Path, what: str) -> Path:
    """One file of each kind that goes wrong."""
    path = folder / "scan.nii.gz"
    packed = bytearray(saved(folder / "good.nii.gz", noise((20, 20, 20))).read_bytes())
    plain = bytearray(gzip.decompress(packed))
    (folder / "good.nii.gz").unlink()
    if what == "missing":
        return path
    if what == "folder":
        path.mkdir()
        return path
    if what in ("four axes", "colour", "complex", "two axes"):
        colour = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        shape = {"four axes": (4, 5, 6, 3), "two axes": (4, 5)}.get(what, SHAPE)
        return saved(
            path,
            {"colour": colour, "complex": noise() + 1j}.get(what, noise(shape)).astype(
                colour.dtype if what == "colour" else np.complex64 if what == "complex" else np.float32
            ),
        )
    if what == "no header":
        (folder / "scan.img").write_bytes(bytes(100))
        return folder / "scan.img"
    if what in ("cut", "header only", "offset", "packed plain"):
        path = folder / "scan.nii"
        if what == "offset":
            plain[108:112] = np.float32(1e6).tobytes()
        content = {"cut": plain[:20000], "header only": plain[:352], "offset": plain, "packed plain": packed}[what]
        path.write_bytes(content)
        return path
    if what == "all NaN":
        return saved(path, np.full(SHAPE, np.nan, np.float32))
    if what == "spacing":
        return saved(path, affine=np.diag([1.0, 1, 1000, 1]))
    if what == "MGH type":
        nib.MGHImage(noise(), np.eye(4)).to_filename(folder / "scan.mgh")
        content = bytearray((folder / "scan.mgh").read_bytes())
        content[20:24] = (113).to_bytes(4, "big")
        (folder / "scan.mgh").write_bytes(content)
        return folder / "scan.mgh"
    if what == "PNG":
        Image.fromarray(noise((9, 9), "u1")).save(folder / "a.png")
        (folder / "a.png").rename(folder / "scan.nii")
        return folder / "scan.nii"
    fields = {
        "bad magic": (344, b"abc\0"),
        "unknown type": (70, np.int16(999).tobytes()),
        "no voxels": (42, np.int16(0).tobytes()),
        "negative size": (42, np.int16(-5).tobytes()),
        "huge": (42, np.full(3, 32000, np.int16).tobytes()),
        "flat affine": (280, bytes(48)),
        "NaN affine": (280, np.full(12, np.nan, np.float32).tobytes()),
    }
    if what in fields:
        start, value = fields[what]
        plain[start : start + len(value)] = value
        path.write_bytes(gzip.compress(plain))
        return path
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    checksum = bytearray(packed)
    checksum[-6] ^= 0xFF
    content = {
        "empty": b"",
        "half": packed[: len(packed) // 2],
        "no trailer": packed[:-4],
        "checksum": checksum,
        "flipped byte": flipped,
        "short": gzip.compress(b"hello"),
        "text": gzip.compress(b"this is no scan " * 40),
        "HTML": b"<!doctype html><title>404</title>" * 20,
    }[what]
    path.write_bytes(content)
    return path


BAD = {
    "missing": "no such file",
    "folder": "is a folder",
    "empty": "is empty",
    "two axes": "has 4x5 voxels; a volume has three axes",
    "four axes": "has 4x5x6x3 voxels; extract one volume",
    "colour": "its voxels are in colour",
    "complex": "its voxels are complex",
    "no header": r"its header scan.hdr is missing",
    "half": "ends too early",
    "no trailer": "ends too early",
    "checksum": "compressed data are damaged",
    "flipped byte": "compressed data are damaged",
    "cut": "ends too early",
    "header only": "ends too early",
    "offset": "ends too early",
    "packed plain": r"compressed, but its name does not end in .gz",
    "HTML": "not compressed, though its name says so",
    "text": "not a NIfTI, MGH or Analyze volume",
    "short": "not a NIfTI, MGH or Analyze volume",
    "PNG": "not a NIfTI, MGH or Analyze volume",
    "bad magic": "not a NIfTI, MGH or Analyze volume",
    "unknown type": "cannot be read",
    "no voxels": "has 0x20x20 voxels, that is none",
    "negative size": "export it again",
    "huge": "has 32000x32000x32000 voxels, more than",
    "flat affine": "its affine has no inverse",
    "NaN affine": "its affine has no inverse",
    "spacing": "its voxels would have 1x1x1e\\+03 mm",
    "MGH type": "cannot be read",
    "all NaN": "no voxel is a finite number",
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_that_names_the_file_and_the_reason(tmp_path, what):
    path = write_bad(tmp_path, what)
    with pytest.raises(InputError, match=BAD[what]) as caught:
        volumes.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.count(str(path)) == 1


def test_the_real_scans(data):
    """P, S, R storage with a scale factor; a brain mask of 0.99999997; a background that is negative."""
    ixi = sorted((data / "ixi-t1-2mm" / "T1").glob("*.nii.gz"))[0]
    volume = volumes.read(ixi)
    image: Any = nib.load(ixi)
    assert nib.orientations.aff2axcodes(image.affine) == ("P", "S", "R")
    np.testing.assert_allclose(volume.voxels, nib.as_closest_canonical(image).get_fdata(), rtol=1e-6)
    brats = next((data / "brats2015-subset" / "train").iterdir())
    scan = volumes.read(brats / "Flair_subtrMeanDivStd.nii.gz")
    brain = volumes.read_mask(brats / "brainmask.nii.gz", scan)
    assert 1e6 < brain.sum() < 2e6
    assert scan.voxels[~brain].max() < -3
    assert scan.voxels[brain].mean() == pytest.approx(-0.1, abs=0.11)


def test_forms_that_are_turned_against_each_other_are_doubted(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([2.0, 2, 2, 1]))
    image.set_sform(np.diag([2.0, 2, 2, 1]), code=1)
    image.set_qform(np.diag([-2.0, 2, -2, 1]), code=1)
    image.to_filename(tmp_path / "a.nii")
    assert volumes.read(tmp_path / "a.nii").warnings == (
        "its sform and qform are turned against each other; the sform was taken",
    )


def test_a_pair_is_known_by_both_of_its_files(tmp_path):
    nib.Nifti1Pair(np.zeros((4, 5, 6), np.float32), np.eye(4)).to_filename(tmp_path / "a.img")
    assert [path.name for path in volumes.beside(tmp_path / "a.img")] == ["a.hdr"]
    assert volumes.beside(tmp_path / "a.nii.gz") == []

"""Volumes are read in RAS order, maps are written on the scan's grid, and damaged files are refused."""

from __future__ import annotations

import gzip
import itertools
import os
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxvae.data.volumes import gzip_files, volume_files
from jaxvae.errors import InputError
from scan_folders import head

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
def test_a_map_returns_to_the_scans_grid_bit_for_bit(tmp_path, codes):
    affine = OBLIQUE if codes == "oblique" else affine_of(codes)
    image = nib.Nifti1Image(noise(), affine)
    image.set_qform(affine, 3)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "scan.nii.gz")
    volume = volume_files.read(tmp_path / "scan.nii.gz")
    assert "".join(nib.orientations.aff2axcodes(volume.affine)) == "RAS"
    # The brightest voxel has the same world coordinates in both arrays.
    brightest = [np.unravel_index(np.argmax(array), array.shape) for array in (volume.voxels, noise())]
    places = [nib.affines.apply_affine(a, i) for a, i in zip((volume.affine, image.affine), brightest, strict=True)]
    np.testing.assert_allclose(places[0], places[1], atol=1e-4)
    if codes != "oblique":
        np.testing.assert_allclose(volume.spacing, (1, 2, 3), rtol=1e-5)
    volume_files.write(tmp_path / "map.nii.gz", volume.voxels, volume)
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


def test_axial_planes_do_not_depend_on_storage(tmp_path):
    """In a sagittal scan stored as P, S, R, the world's plane z = 2 is plane 2 of the voxels."""
    ras = np.arange(120, dtype=np.float32).reshape(SHAPE)
    stored = np.transpose(ras, (1, 2, 0))[::-1]  # axes A, S, R; then P for A
    affine = np.array([[0, 0, 1, 0], [-1, 0, 0, SHAPE[1] - 1], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    volume = volume_files.read(saved(tmp_path / "psr.nii", stored, affine))
    np.testing.assert_array_equal(volume.voxels, ras)
    np.testing.assert_array_equal(volume.affine, np.eye(4))


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", ">f4", "f8", "u2", ">f8"])
def test_types_byte_orders_and_scale_factors(tmp_path, dtype):
    stored, scaled = noise(dtype="u1").astype(dtype), noise(dtype="u1") * 0.25 - 3
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.dtype(dtype))
    header.set_sform(np.eye(4), 1)
    # Written by hand, because nibabel chooses scale factors itself.
    header.set_slope_inter(0.25, -3)
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "scan.nii").write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    volume = volume_files.read(tmp_path / "scan.nii")
    assert volume.voxels.dtype == np.dtype("=f4")
    np.testing.assert_allclose(volume.voxels, scaled, rtol=1e-6)
    volume_files.write(tmp_path / "map.nii", volume.voxels, volume)
    again = volume_files.read(tmp_path / "map.nii")
    np.testing.assert_array_equal(again.voxels, volume.voxels)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_invalid_scale_factors_count_as_one(tmp_path, slope):
    path = saved(tmp_path / "scan.nii", noise(dtype=np.int16))
    content = bytearray(path.read_bytes())
    content[112:116] = np.float32(slope).tobytes()
    path.write_bytes(content)
    np.testing.assert_array_equal(volume_files.read(path).voxels, noise(dtype=np.int16))


@pytest.mark.parametrize("kind", ["NIfTI-2", "MGH", "MGZ", "Analyze", "pair", ".NII.GZ"])
def test_every_format_is_read_and_written_as_nifti(tmp_path, kind):
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
    [path] = filter(volume_files.is_volume, tmp_path.iterdir())
    volume = volume_files.read(path)
    assert volume_files.stem(path) == "a"
    volume_files.write(tmp_path / "map.nii.gz", volume.voxels, volume)
    back = volume_files.read(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    np.testing.assert_array_equal(volume.voxels, noise()[::-1])


def test_a_single_volume_of_four_axes_and_a_single_slice(tmp_path):
    np.testing.assert_array_equal(volume_files.read(saved(tmp_path / "a.nii", noise()[..., None])).voxels, noise())
    flat = noise((4, 5, 1))
    np.testing.assert_array_equal(volume_files.read(saved(tmp_path / "b.nii", flat)).voxels, flat)


def test_nan_and_infinity_are_counted(tmp_path):
    stored = noise()
    stored[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = volume_files.read(saved(tmp_path / "a.nii", stored))
    assert volume.warnings == ("3 voxels are NaN or infinite and were read as 0",)
    np.testing.assert_array_equal(volume.voxels[0, 0, :3], 0)
    np.testing.assert_array_equal(volume.voxels[1:], stored[1:])


def test_an_unknown_orientation_is_reported(tmp_path):
    path = saved(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(content)
    assert volume_files.read(path).warnings == ("neither sform nor qform is set, so left and right are a guess",)


def test_unknown_orientations_of_other_formats_are_reported(tmp_path):
    nib.Spm99AnalyzeImage(noise(), None).to_filename(tmp_path / "a.img")
    (tmp_path / "a.mat").unlink(missing_ok=True)
    assert "an Analyze header does not say which side is left" in volume_files.read(tmp_path / "a.img").warnings[0]
    image = nib.Nifti1Image(noise(), np.eye(4))
    image.set_sform(np.diag([-1.0, 1, 1, 1]), 1)
    image.set_qform(np.eye(4), 1)
    image.to_filename(tmp_path / "b.nii")
    assert "mirror images" in volume_files.read(tmp_path / "b.nii").warnings[0]
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    image.to_filename(tmp_path / "c.nii")
    assert volume_files.read(tmp_path / "c.nii").warnings == ()


def test_a_map_holds_no_extension_of_the_scan(tmp_path):
    image = nib.Nifti1Image(noise(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe, 1970-01-01"))
    image.header["aux_file"] = b"jane_doe.txt"
    image.to_filename(tmp_path / "a.nii")
    volume_files.write(tmp_path / "map.nii", noise(), volume_files.read(tmp_path / "a.nii"))
    assert b"ane" not in (tmp_path / "map.nii").read_bytes()


def test_equal_maps_make_equal_bytes(tmp_path):
    volume = volume_files.read(saved(tmp_path / "a.nii.gz"))
    for name in ("one.nii.gz", "two.nii.gz"):
        volume_files.write(tmp_path / name, volume.voxels, volume)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


def test_masks_are_put_on_the_grid_of_the_scan(tmp_path):
    volume = volume_files.read(saved(tmp_path / "a.nii"))
    drawn = noise() > 100
    # int32 with a scale factor gives 0.99999997, which must not be truncated to 0.
    nearly = saved(tmp_path / "mask.nii", np.where(drawn, np.float32(0.99999994), 0).astype(np.float32))
    np.testing.assert_array_equal(volume_files.read_mask(nearly, volume), drawn)
    turned = saved(
        tmp_path / "turned.nii",
        drawn[::-1].astype("u1"),
        affine=np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    np.testing.assert_array_equal(volume_files.read_mask(turned, volume), drawn)
    moved = saved(
        tmp_path / "moved.nii",
        drawn.astype("u1"),
        affine=np.array([[1, 0, 0, 2.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    with pytest.raises(InputError, match=r"moved.nii: lies elsewhere than .*a.nii .* by 2.5 mm"):
        volume_files.read_mask(moved, volume)
    small = saved(tmp_path / "small.nii", drawn[1:].astype("u1"))
    with pytest.raises(InputError, match=r"small.nii: 3x5x6 voxels, but .*a.nii has 4x5x6"):
        volume_files.read_mask(small, volume)


def write_bad(folder: Path, what: str) -> Path:
    """Write a file with one kind of error."""
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
        "plain": plain,
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
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
    "HTML": "is an HTML page, despite its name; download the file itself again",
    "pointer": "is a Git LFS pointer, not the file itself; fetch it",
    "plain": "is not compressed, despite its name; rename it",
    "text": "not a NIfTI, MGH or Analyze volume",
    "short": "not a NIfTI, MGH or Analyze volume",
    "PNG": "is a PNG file, despite its name",
    "bad magic": "not a NIfTI, MGH or Analyze volume",
    "unknown type": "cannot be read",
    "no voxels": "has 0x20x20 voxels, so it is empty",
    "negative size": "export it again",
    "huge": "has 32000x32000x32000 voxels, more than",
    "flat affine": "its affine is singular",
    "NaN affine": "its affine is singular",
    "spacing": "its header says voxels of 1x1x1e\\+03 mm",
    "MGH type": "cannot be read",
    "all NaN": "no voxel is a finite number",
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_named_with_the_reason_in_one_line(tmp_path, what):
    path = write_bad(tmp_path, what)
    with pytest.raises(InputError, match=BAD[what]) as caught:
        volume_files.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.count(str(path)) == 1


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.mgh", "a.img"])
def test_a_pointer_is_refused(tmp_path, name):
    (tmp_path / "a.hdr").write_bytes(b"")
    for content, way_out in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*`git lfs pull`"),
        (b"/annex/objects/MD5E-s9--0.nii.gz\n", "git-annex pointer.*`git annex get`"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: is a {way_out}"):
            volume_files.read(tmp_path / name)


def test_voxels_of_an_img_may_begin_like_another_file(tmp_path):
    voxels = np.zeros((4, 5, 6), np.int16)
    voxels[0, 0, 0], voxels[1:] = int.from_bytes(b"BM", "little"), 7
    nib.save(nib.Nifti1Pair(voxels, np.eye(4)), tmp_path / "a.img")
    np.testing.assert_array_equal(volume_files.read(tmp_path / "a.img").voxels, voxels)


def test_real_scans_have_ras_axes_and_scaled_voxels(data):
    """P, S, R storage with a scale factor, a brain mask of 0.99999997, and a negative background."""
    ixi = sorted((data / "ixi-t1-2mm" / "T1").glob("*.nii.gz"))[0]
    volume = volume_files.read(ixi)
    image: Any = nib.load(ixi)
    assert nib.orientations.aff2axcodes(image.affine) == ("P", "S", "R")
    np.testing.assert_allclose(volume.voxels, nib.as_closest_canonical(image).get_fdata(), rtol=1e-6)
    brats = next((data / "brats2015-subset" / "train").iterdir())
    scan = volume_files.read(brats / "Flair_subtrMeanDivStd.nii.gz")
    brain = volume_files.read_mask(brats / "brainmask.nii.gz", scan)
    assert 1e6 < brain.sum() < 2e6
    assert scan.voxels[~brain].max() < -3
    assert scan.voxels[brain].mean() == pytest.approx(-0.1, abs=0.11)


def test_contradictory_forms_are_reported(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([2.0, 2, 2, 1]))
    image.set_sform(np.diag([2.0, 2, 2, 1]), code=1)
    image.set_qform(np.diag([-2.0, 2, -2, 1]), code=1)
    image.to_filename(tmp_path / "a.nii")
    assert volume_files.read(tmp_path / "a.nii").warnings == (
        "its sform and qform have different axes; the sform was taken",
    )


def test_a_pair_is_identified_by_both_files(tmp_path):
    nib.Nifti1Pair(np.zeros((4, 5, 6), np.float32), np.eye(4)).to_filename(tmp_path / "a.img")
    assert [path.name for path in volume_files.beside(tmp_path / "a.img")] == ["a.hdr"]
    assert volume_files.beside(tmp_path / "a.nii.gz") == []


def patched(path: Path, **fields: Any) -> Path:
    """A scan with both forms whose header fields are then overwritten."""
    affine = np.array([[-4.0, 0, 0, 90], [0, 4, 0, -110], [0, 0, 4, -70], [0, 0, 0, 1]])
    image = nib.Nifti1Image(noise(), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    content = bytearray(image.to_bytes())
    header = np.frombuffer(content, nib.nifti1.header_dtype, 1)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(content if path.suffix == ".nii" else gzip.compress(content))
    return path


NAN3 = [1, 4, np.nan, 4, 1, 1, 1, 1]
SOUND = {
    "long quaternion": ({"quatern_c": 1.000001}, "its quaternion has the length 1.000001 and was shortened to 1"),
    "far too long": ({"quatern_c": 1.5}, "its qform is damaged; the sform was taken"),
    "NaN quaternion": ({"quatern_b": np.nan}, "its qform is damaged; the sform was taken"),
    "NaN pixdim": ({"pixdim": NAN3}, "its qform is damaged; the sform was taken"),
    "infinite offset": ({"qoffset_x": np.inf}, "its qform is damaged; the sform was taken"),
    "NaN pixdim, no qform": ({"pixdim": NAN3, "qform_code": 0}, "its voxel size (pixdim) is damaged"),
    "NaN quaternion, no qform": ({"quatern_b": np.nan, "qform_code": 0}, ""),
    "NaN sform": ({"srow_y": np.nan}, "its sform is singular; the qform was taken"),
    "empty sform": ({"srow_x": 0, "srow_y": 0, "srow_z": 0}, "its sform is singular; the qform was taken"),
    "unknown code": ({"qform_code": 77}, "its header was repaired: qform_code 77 not valid; setting to 0"),
    "negative pixdim": ({"pixdim": [-1, -4, 4, 4, 1, 1, 1, 1]}, "its header was repaired: pixdim"),
    "handedness of 0": ({"pixdim": [0, 4, 4, 4, 1, 1, 1, 1], "qform_code": 0}, ""),
    "odd intent": ({"intent_code": 31000}, ""),
    "NaN slope": ({"scl_slope": np.nan, "scl_inter": np.nan}, ""),
    "odd unit": ({"xyzt_units": 255}, ""),
}


@pytest.mark.parametrize("what", SOUND)
def test_a_damaged_header_field_is_repaired_with_a_warning(tmp_path, capfd, what):
    fields, warning = SOUND[what]
    volume = volume_files.read(patched(tmp_path / "scan.nii.gz", **fields))
    np.testing.assert_array_equal(volume.voxels, noise()[::-1])
    np.testing.assert_allclose(volume.stored_affine, [[-4, 0, 0, 90], [0, 4, 0, -110], [0, 0, 4, -70], [0, 0, 0, 1]])
    assert len(volume.warnings) == bool(warning)
    assert "".join(volume.warnings).startswith(warning)
    # Maps of such a scan have a valid header.
    volume_files.write(tmp_path / "map.nii", volume.voxels, volume)
    written: Any = nib.load(tmp_path / "map.nii")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), noise())
    np.testing.assert_allclose(written.affine, volume.stored_affine)
    np.testing.assert_allclose(written.header.get_zooms(), 4)
    if written.header["qform_code"]:
        np.testing.assert_allclose(written.get_qform(), volume.stored_affine, atol=1e-4)
    assert volume_files.read(tmp_path / "map.nii").warnings == ()
    assert capfd.readouterr().err == ""


REFUSED = {
    "long quaternion alone": ({"quatern_c": 1.5, "sform_code": 0}, "its qform is damaged and its sform is not set"),
    "both": ({"quatern_c": 1.5, "srow_x": np.nan}, "its sform and its qform are damaged"),
    "neither": ({"sform_code": 0, "qform_code": 0, "pixdim": NAN3}, "its affine is singular"),
    "NaN intercept": ({"scl_slope": 2, "scl_inter": np.nan}, "cannot be read"),
    "NaN start": ({"vox_offset": np.nan}, "cannot be read"),
    "start within the header": ({"vox_offset": 16}, "cannot be read"),
    "start at the end": ({"vox_offset": 1e9}, "ends too early|start at byte 1,000,000,000"),
    "a billion voxels": ({"dim": [3, 1000, 1000, 1000, 1, 1, 1, 1]}, "ends too early"),
    "a trillion voxels": ({"dim": [3, 10000, 10000, 10000, 1, 1, 1, 1]}, "more than the"),
    "bits": ({"datatype": 1}, "cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_beyond_repair_is_refused(tmp_path, capfd, what, suffix):
    fields, message = REFUSED[what]
    path = patched(tmp_path / f"scan{suffix}", **fields)
    with pytest.raises(InputError, match=message) as caught:
        volume_files.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr().err == ""


def test_a_damaged_extension_does_not_hide_the_voxels(tmp_path):
    image = nib.Nifti1Image(noise(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", bytes(40)))
    content = bytearray(image.to_bytes())
    content[352:356] = np.int32(-8).tobytes()  # its length
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_array_equal(volume_files.read(tmp_path / "a.nii").voxels, noise())


@pytest.mark.parametrize("dtype", ["i8", ">u8", "i4", "f8"])
def test_wide_types_are_rounded_to_float32(tmp_path, dtype):
    stored = (noise(dtype="i8") << 33).astype(dtype) if dtype[-1] == "8" else noise(dtype=dtype)
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape(SHAPE)
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", 352, 0.1, 7
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    slope = np.float64(np.float32(0.1))
    np.testing.assert_array_equal(volume_files.read(tmp_path / "a.nii").voxels, (stored * slope + 7).astype(np.float32))


def test_a_map_equals_the_file_that_nibabel_writes(tmp_path):
    volume = volume_files.read(patched(tmp_path / "scan.nii"))
    image = nib.Nifti1Image(noise() / 3, volume.stored_affine, volume.header)
    image.header["descrip"] = b"jaxvae"
    image.header["cal_min"], image.header["cal_max"] = 0, (noise() / 3).max()
    volume_files.write(tmp_path / "map.nii", noise()[::-1] / 3, volume)
    assert (tmp_path / "map.nii").read_bytes() == image.to_bytes()


def test_other_than_regular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    (tmp_path / "b.nii").symlink_to(tmp_path / "annex" / "object")
    with pytest.raises(InputError, match=r"a.nii: is not a regular file"):
        volume_files.read(tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"b.nii: is a broken link \(.*object is missing\)"):
        volume_files.read(tmp_path / "b.nii")


def grown(path: Path, zeros: int) -> Path:
    """A compressed scan of 120 voxels, followed by `zeros` bytes that take a thousandth on the disk."""
    path.write_bytes(gzip_files.pack(gzip.decompress(saved(path).read_bytes()) + bytes(zeros)))
    return path


def test_unpacking_stops_at_the_size_in_the_header(tmp_path):
    few = grown(tmp_path / "few.nii.gz", 1 << 20)
    np.testing.assert_array_equal(volume_files.read(few).voxels, noise())
    path = grown(tmp_path / "many.nii.gz", 80 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"many.nii.gz: cannot be read .*far more than the 480 bytes"):
            volume_files.read(path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_missing_voxels_take_no_memory(tmp_path):
    for suffix in (".nii", ".nii.gz"):
        path = patched(tmp_path / f"scan{suffix}", dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InputError, match="ends too early"):
            volume_files.read(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_slightly_shifted_mask_is_accepted_with_a_notice(tmp_path):
    scan = volume_files.read(saved(tmp_path / "a.nii", affine=affine_of("LPS")))
    drawn = (noise() > 100).astype("u1")
    expected = volume_files.read_mask(saved(tmp_path / "exact.nii", drawn, affine_of("LPS")), scan)
    for apart, notices in {
        1e-4: [],
        0.09: ["its voxels are up to 0.09 voxels away from those of its scan; it was used as it is"],
    }.items():
        affine = affine_of("LPS")
        affine[2, 3] += 3 * apart  # the voxels are 3 mm high
        mask = saved(tmp_path / "mask.nii", drawn, affine)
        found, said = volume_files.mask_and_notices(mask, scan)
        np.testing.assert_array_equal(found, expected)
        assert said == notices
    affine = affine_of("LPS")
    affine[2, 3] += 3 * 0.12
    with pytest.raises(InputError, match=r"by 0.36 mm, .*: up to 0.12 voxels"):
        volume_files.read_mask(saved(tmp_path / "far.nii", drawn, affine), scan)
    affine = affine_of("LPS")
    affine[:3, :3] *= 1.03  # The far corner is 0.15 voxels away.
    with pytest.raises(InputError, match=r"up to 0.15 voxels"):
        volume_files.read_mask(saved(tmp_path / "large.nii", drawn, affine), scan)


def test_masks_with_many_values(tmp_path):
    scan, truth, _ = head(0, shape=(24, 28, 16))
    like = volume_files.read(saved(tmp_path / "scan.nii", scan))
    blurred = ndimage.gaussian_filter(truth.astype(np.float32), 0.7)
    found, notices = volume_files.mask_and_notices(saved(tmp_path / "a.nii", blurred), like, of_brain=True)
    np.testing.assert_array_equal(found, blurred >= blurred.max() / 2)
    assert notices == ["its values, from 0 to 1, are not labels; those from 0.5 upwards were taken as positive"]
    faint = np.where(truth, 1, 1e-6).astype(np.float32)
    np.testing.assert_array_equal(volume_files.read_mask(saved(tmp_path / "b.nii", faint), like), truth)
    labels = truth * (100 + np.arange(24) // 6)[:, None, None]  # a parcellation
    found, notices = volume_files.mask_and_notices(saved(tmp_path / "c.nii", labels.astype("i2")), like, of_brain=True)
    np.testing.assert_array_equal(found, truth)
    assert notices == []


@pytest.mark.parametrize("stored", ["f4", "i2", "u1"])
def test_a_scan_given_as_brain_mask_is_refused(tmp_path, stored):
    scan, _, _ = head(0, shape=(24, 28, 16))
    like = volume_files.read(saved(tmp_path / "scan.nii", scan))
    with pytest.raises(InputError, match=r"t1.nii: has many values, as a scan does; name a brain mask"):
        volume_files.mask_and_notices(saved(tmp_path / "t1.nii", scan.astype(stored)), like, of_brain=True)


def test_an_mgh_header_without_orientation_is_reported(tmp_path):
    nib.MGHImage(noise(), np.diag([-1.0, 1, 1, 1])).to_filename(tmp_path / "a.mgh")
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    content[28:30] = bytes(2)  # goodRASFlag
    content[90:284] = b"\xff" * 194  # has no meaning
    (tmp_path / "a.mgh").write_bytes(content)
    volume = volume_files.read(tmp_path / "a.mgh")
    assert "goodRASFlag does not say which side is left" in volume.warnings[0]
    np.testing.assert_array_equal(
        nib.orientations.apply_orientation(noise(), nib.io_orientation(volume.stored_affine)), volume.voxels
    )


@pytest.mark.parametrize("suffix", [".img", ".img.gz"])
def test_other_files_beside_a_pair_are_ignored(tmp_path, suffix):
    nib.Nifti1Pair(noise(), np.eye(4)).to_filename(tmp_path / f"[a]{suffix}")
    (tmp_path / "[a].nii.gz").write_bytes(gzip_files.pack(bytes(3 << 20)))
    np.testing.assert_array_equal(volume_files.read(tmp_path / f"[a]{suffix}").voxels, noise())


def test_the_header_of_a_pair_is_unpacked_with_a_limit(tmp_path):
    nib.Nifti1Pair(noise(), np.eye(4)).to_filename(tmp_path / "a.img.gz")
    (tmp_path / "a.hdr.gz").write_bytes(gzip_files.pack(bytes(3 << 20)))
    with pytest.raises(InputError, match=r"a.hdr.gz: is too large for a header"):
        volume_files.read(tmp_path / "a.img.gz")


def test_an_empty_file_beside_a_volume_is_refused(tmp_path):
    nib.Spm99AnalyzeImage(np.ones((3, 4, 5), np.float32), np.diag([2, 3, 4, 1])).to_filename(tmp_path / "a.img")
    volume_files.read(tmp_path / "a.img")
    (tmp_path / "a.mat").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.mat: is empty; copy it again"):
        volume_files.read(tmp_path / "a.img")

"""Laws of reading and writing volumes, over formats, types, byte orders, orientations and affines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
from hypothesis import assume, given

from jaxvae.data.volumes import volume_files
from jaxvae.data.volumes.headers import SHORTEST_SIDE
from jaxvae.data.volumes.volume_files import Volume
from jaxvae.errors import InputError

# Per file name: the class of nibabel that writes it, and the types that the format has.
NIFTI_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
FORMATS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a.nii": (nib.Nifti1Image, NIFTI_TYPES),
    "b.nii.gz": (nib.Nifti1Image, NIFTI_TYPES),
    "c.nii": (nib.Nifti2Image, (*NIFTI_TYPES, "i8")),
    "d.img": (nib.Nifti1Pair, NIFTI_TYPES),
    "e.mgh": (nib.MGHImage, ("u1", "i2", "i4", "f4")),
    "f.mgz": (nib.MGHImage, ("u1", "i2", "i4", "f4")),
    "g.img": (nib.Spm99AnalyzeImage, ("u1", "i2", "i4", "f4", "f8")),
}
ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


class Stored(NamedTuple):
    """A volume as it is in its file."""

    path: Path
    values: np.ndarray
    affine: np.ndarray


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any order and direction of the axes, any voxel size, turned by up to 20 degrees, anywhere."""
    order, signs = draw(st.sampled_from(ORDERS))
    spacing = draw(st.lists(st.sampled_from((0.25, 0.9375, 1.0, 2.0, 5.5)), min_size=3, max_size=3))
    angle, axis = draw(st.floats(-0.35, 0.35)), draw(st.integers(0, 2))
    turn = np.eye(3)
    first, second = (i for i in range(3) if i != axis)
    turn[[first, second], [first, second]] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, list(order)] @ np.diag(np.multiply(spacing, signs))
    affine[:3, 3] = draw(st.lists(st.integers(-300, 300), min_size=3, max_size=3))
    return affine


@st.composite
def arrays(draw: st.DrawFn, types: tuple[str, ...]) -> np.ndarray:
    """[X, Y, Z] of 1 to 5 voxels per axis; whole numbers that every type holds, and float32 does exactly."""
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    dtype = np.dtype(draw(st.sampled_from(types)))
    values = np.random.default_rng(draw(st.integers(0, 99))).permutation(125)[: np.prod(shape)].reshape(shape)
    return values.astype(dtype)


def save(folder: Path, name: str, values: np.ndarray, affine: np.ndarray, *, byte_order: str = "<") -> Stored:
    kind = FORMATS[name][0]
    # MGH is big-endian always, and its header takes no other.
    header = kind.header_class() if kind is nib.MGHImage else kind.header_class(endianness=byte_order)
    header.set_data_dtype(values.dtype)
    kind(values, affine, header).to_filename(folder / name)
    return Stored(folder / name, values, affine)


def in_millimetres(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine itself; 1000 times that for a scan under a millimetre, which is taken for one in metres."""
    longest = (np.linalg.norm(affine[:3, :3], axis=0) * shape).max()
    # Files round their affine, so a scan whose longest side is at the limit counts as either.
    assume(abs(longest - SHORTEST_SIDE) > 1e-4)
    return affine if longest >= SHORTEST_SIDE else np.diag([1000, 1000, 1000, 1]) @ affine


def places(volume: Volume, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """For each voxel of the file, in its order, the index of the voxel of `volume` at the same millimetres."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    back = np.linalg.inv(volume.affine) @ affine
    found = index @ back[:3, :3].T + back[:3, 3]
    np.testing.assert_allclose(found, np.round(found), atol=1e-3)
    return tuple(np.round(found).astype(int).T)


@given(st.data(), st.sampled_from(sorted(FORMATS)), affines(), st.sampled_from("<>"))
def test_every_voxel_keeps_its_value_and_its_place_in_millimetres(tmp_path, data, name, affine, byte_order):
    stored = save(tmp_path, name, data.draw(arrays(FORMATS[name][1])), affine, byte_order=byte_order)
    volume = volume_files.read(stored.path)
    assert volume.voxels.dtype == np.float32
    assert sorted(volume.voxels.shape) == sorted(stored.values.shape)
    found = volume.voxels[places(volume, in_millimetres(affine, stored.values.shape), stored.values.shape)]
    np.testing.assert_array_equal(found, stored.values.ravel().astype(np.float32))


@given(st.data(), st.sampled_from(sorted(FORMATS)), affines())
def test_every_volume_is_read_in_ras_order(tmp_path, data, name, affine):
    stored = save(tmp_path, name, data.draw(arrays(FORMATS[name][1])), affine)
    volume, expected = volume_files.read(stored.path), in_millimetres(affine, stored.values.shape)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    np.testing.assert_allclose(sorted(volume.spacing), sorted(np.linalg.norm(expected[:3, :3], axis=0)), rtol=1e-4)
    assert any("its unit of length is" in warning for warning in volume.warnings) == (expected is not affine)


@given(st.data(), st.sampled_from(sorted(FORMATS)), affines(), st.sampled_from(("map.nii", "map.nii.gz")))
def test_a_written_map_is_read_again_bit_for_bit(tmp_path, data, name, affine, out):
    stored = save(tmp_path, name, data.draw(arrays(FORMATS[name][1])), affine)
    volume = volume_files.read(stored.path)
    values = np.random.default_rng(0).normal(size=volume.voxels.shape).astype(np.float32) * 1e-6
    volume_files.write(tmp_path / out, values, volume)
    again = volume_files.read(tmp_path / out)
    np.testing.assert_array_equal(again.voxels, values)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-3)
    # Another reader finds it in the order and at the place of the scan.
    seen: Any = nib.load(tmp_path / out)
    assert seen.shape == stored.values.shape
    np.testing.assert_allclose(seen.affine, affine, atol=1e-3)
    np.testing.assert_array_equal(seen.get_fdata().ravel(), values[places(volume, affine, seen.shape)])


@given(st.data(), st.sampled_from(sorted(FORMATS)), affines())
def test_a_written_mask_is_read_again_as_that_mask(tmp_path, data, name, affine):
    volume = volume_files.read(save(tmp_path, name, data.draw(arrays(FORMATS[name][1])), affine).path)
    mask = np.random.default_rng(data.draw(st.integers(0, 9))).random(volume.voxels.shape) < 0.5
    volume_files.write(tmp_path / "mask.nii.gz", mask, volume)
    np.testing.assert_array_equal(volume_files.read_mask(tmp_path / "mask.nii.gz", volume), mask)


@given(
    st.sampled_from(("u1", "i1", "u2", "i2", "u4", "i4")),
    st.sampled_from((0.5, -2.0, 0.25, 1 / 3, 1e-6, 1e6)),
    st.sampled_from((0.0, -1024.0, 0.125)),
    st.sampled_from("<>"),
)
def test_scale_factors_are_applied_to_the_whole_range_of_a_type(tmp_path, dtype, slope, offset, byte_order):
    limits = np.iinfo(dtype)
    stored = np.array([limits.min, limits.min + 1, 0, 1, limits.max // 2, limits.max], dtype).reshape(1, 2, 3)
    header = nib.Nifti1Header(endianness=byte_order)
    header.set_data_shape(stored.shape)
    header.set_data_dtype(np.dtype(dtype))
    header.set_sform(np.eye(4), 1)
    header.set_slope_inter(slope, offset)
    header["magic"], header["vox_offset"] = b"n+1", 352
    content = stored.astype(np.dtype(dtype).newbyteorder(byte_order)).tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + content)
    expected = stored.astype(np.float64) * np.float32(slope).astype(np.float64) + offset
    np.testing.assert_allclose(
        volume_files.read(tmp_path / "a.nii").voxels, expected, rtol=3e-7, atol=3e-7 * abs(offset)
    )


@given(st.data(), st.sampled_from(sorted(FORMATS)), st.floats(0, 1))
def test_a_file_that_was_cut_is_refused_or_read_whole(tmp_path, data, name, share):
    stored = save(tmp_path, name, data.draw(arrays(FORMATS[name][1])), np.eye(4))
    damaged(stored.path, lambda content: content[: int(share * len(content))])


@given(st.data(), st.sampled_from([name for name in sorted(FORMATS) if name.endswith("z")]), st.integers(0, 10**6))
def test_flipped_bits_in_gzip_are_detected(tmp_path, data, name, place):
    stored = save(tmp_path, name, data.draw(arrays(FORMATS[name][1])), np.eye(4))

    def flipped(content: bytes) -> bytes:
        at = place % len(content)
        return content[:at] + bytes([content[at] ^ 1 << place % 8]) + content[at + 1 :]

    damaged(stored.path, flipped)


def damaged(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Damages a file and sees it refused in one line, or read as the good one."""
    good = volume_files.read(path)
    path.write_bytes(damage(path.read_bytes()))
    again = outcome(path)
    if isinstance(again, str):
        assert again.startswith(f"{path}: ")
        assert "\n" not in again
    else:
        np.testing.assert_array_equal(again.voxels, good.voxels)
        np.testing.assert_array_equal(again.affine, good.affine)


def outcome(path: Path) -> Volume | str:
    """The volume, or why it is refused."""
    try:
        return volume_files.read(path)
    except InputError as error:
        return str(error)

"""The formats that jaxvae reads: a good sample of each, ways to damage it, and a function that reads and checks it."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_mutations as mutations
import nibabel as nib
import numpy as np
from fuzz_mutations import Damage, Draw
from PIL import Image

from jaxvae.data.fashion_mnist import read_idx
from jaxvae.data.images import image_files
from jaxvae.data.volumes import volume_files

Damager = Callable[[Draw, bytes], Damage]


class Format(NamedTuple):
    """One kind of file.

    Args:
      files: a good sample, by path within its folder.
      damage: functions that damage a field, by the suffix of the file; files with other suffixes stay unchanged.
      read: reads the sample from its folder, returns the content, and fails if it is unsound.
      whole: the format can tell a truncated file from a good one.
      checked: the format has checksums, so a flipped bit is detected or changes nothing.
    """

    files: dict[str, bytes]
    damage: dict[str, list[Damager]]
    read: Callable[[Path], Any]
    whole: bool = True
    checked: bool = False


def formats(scratch: Path) -> dict[str, Format]:
    """All formats by name. `scratch` is a folder for making the samples."""
    from fuzz_records import records

    return {**_volumes(scratch), **_images(scratch), "idx": _idx(), **records(scratch)}


def sample(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by path within it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def damaged(draw: Draw, form: Format) -> tuple[dict[str, bytes], str, bool]:
    """(sample with one damaged file, description, whether it must be refused or read as the good one)."""
    targets = [name for name in form.files if any(name.endswith(suffix) for suffix in form.damage)]
    name = draw.choice(targets)
    content = form.files[name]
    fields = next(fields for suffix, fields in form.damage.items() if name.endswith(suffix))
    packed = content[:2] == b"\x1f\x8b"
    if packed and draw.random() < 0.03:
        begin = gzip.compress(gzip.decompress(content)[: draw.choice((0, 400, len(content)))])
        return {**form.files, name: begin + mutations.bomb()}, f"{name}: unpacks to 2 GB", False
    if fields and draw.random() < 0.6:
        damage = draw.choice(fields)(draw, gzip.decompress(content) if packed else content)
        return {**form.files, name: gzip.compress(damage.content, 1) if packed else damage.content}, damage.what, False
    damage = mutations.at_random(draw, content)
    flipped = form.checked and damage.what.startswith("flip")
    return {**form.files, name: damage.content}, f"{name}: {damage.what}", (damage.cut and form.whole) or flipped


def _volumes(scratch: Path) -> dict[str, Format]:
    affine = np.array([[-1.5, 0, 0, 10], [0, 0.1, 2, -5], [0, 1, -0.2, 3], [0, 0, 0, 1]])
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) - 7
    whole = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nifti = [*mutations.NIFTI1, *[_nifti_of_many_voxels] * 4]
    kinds: dict[str, tuple[Any, Any, str, list[Damager]]] = {
        "nifti": (nib.Nifti1Image, whole, "a.nii", nifti),
        "nifti gz": (nib.Nifti1Image, values, "a.nii.gz", nifti),
        "nifti2": (nib.Nifti2Image, values, "a.nii", mutations.NIFTI2),
        "nifti pair": (nib.Nifti1Pair, whole, "a.img", nifti),
        "analyze": (nib.Spm99AnalyzeImage, whole, "a.img", mutations.ANALYZE),
        "mgh": (nib.MGHImage, values, "a.mgh", mutations.MGH),
        "mgz": (nib.MGHImage, values, "a.mgz", mutations.MGH),
    }
    found = {}
    for name, (kind, array, file, fields) in kinds.items():
        folder = scratch / name
        folder.mkdir()
        kind(array, affine).to_filename(folder / file)
        damage: dict[str, list[Damager]] = {Path(file).suffix: fields}
        if file == "a.img":
            damage = {".hdr": fields, ".img": [], ".mat": []}
        found[name] = Format(sample(folder), damage, _volume_reader(file), checked=file.endswith("z"))
    return found


def _nifti_of_many_voxels(draw: Draw, content: bytes) -> Damage:
    """A header that claims up to 1e13 voxels."""
    sides = [draw.choice((1000, 1024, 10_000, 32_767)) for _ in range(3)]
    return Damage(content[:42] + struct.pack("<3h", *sides) + content[48:], f"dim = {sides}")


def _volume_reader(file: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        volume = volume_files.read(folder / file)
        assert volume.voxels.dtype == np.float32, volume.voxels.dtype
        assert volume.voxels.ndim == 3, volume.voxels.shape
        assert np.isfinite(volume.voxels).all()
        assert np.isfinite(volume.affine).all()
        assert min(volume.spacing) > 0, volume.spacing
        volume_files.write(folder / "map.nii.gz", volume.voxels, volume)
        again = volume_files.read(folder / "map.nii.gz")
        np.testing.assert_array_equal(again.voxels, volume.voxels)
        return volume.voxels

    return read


def _images(scratch: Path) -> dict[str, Format]:
    import tifffile

    grey = (np.arange(20 * 24) % 251).astype(np.uint8).reshape(20, 24)
    colour = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    deep = grey.astype(np.uint16) * 257
    real = grey.astype(np.float32) / 7

    def saved(suffix: str, array: np.ndarray, **options: Any) -> dict[str, bytes]:
        file = io.BytesIO()
        Image.fromarray(array).save(file, suffix, **options)
        return {f"a.{suffix}": file.getvalue()}

    def tiff(array: np.ndarray, **options: Any) -> dict[str, bytes]:
        file = io.BytesIO()
        tifffile.imwrite(file, array, metadata=None, **options)
        return {"a.tif": file.getvalue()}

    def arrays(array: np.ndarray) -> dict[str, bytes]:
        file = io.BytesIO()
        np.save(file, array)
        return {"a.npy": file.getvalue()}

    palette = io.BytesIO()
    Image.fromarray(colour).quantize(16).save(palette, "png")
    pngs = {"png grey": saved("png", grey), "png colour": saved("png", colour), "png 16 bits": saved("png", deep)}
    tiffs = {
        "tiff": tiff(real, photometric="minisblack"),
        "tiff strips": tiff(colour, photometric="rgb", compression="zlib", rowsperstrip=3, predictor=True),
        "tiff tiles": tiff(deep, photometric="minisblack", tile=(16, 16), byteorder=">"),
        "tiff lzw": saved("tiff", grey, compression="tiff_lzw"),
        "tiff lzw strips": saved("tiff", colour, compression="tiff_lzw", tiffinfo={278: 3}),
        "tiff stack": tiff(np.stack([grey] * 3), photometric="minisblack"),
    }
    plain = {
        "png palette": {"a.png": palette.getvalue()},
        **{f"npy {array.dtype}": arrays(array) for array in (real, colour)},
        "jpeg": saved("jpeg", colour),
        "webp": saved("webp", colour, lossless=True),
        "bmp": saved("bmp", colour),
    }
    found = {}
    for name, files in {**pngs, **plain, **tiffs}.items():
        [file] = files
        if file == "a.tiff":
            files, file = {"a.tif": files[file]}, "a.tif"
        fields = {"png": [mutations.png], "tif": [mutations.tiff], "npy": [mutations.npy], "bmp": mutations.BMP}
        kind = file.removeprefix("a.")
        found[name] = Format(files, {kind: fields.get(kind, [])}, _image_reader(file), checked=kind == "png")
    return found


def _image_reader(file: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        image = image_files.read(folder / file)
        assert image.ndim == 3, image.shape
        assert image.dtype in (np.uint8, np.float32), image.dtype
        assert np.isfinite(image).all()
        assert image.size
        return image

    return read


def _idx() -> Format:
    images = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8)
    content = struct.pack(">4i", 0x803, 2, 28, 28) + images.tobytes()
    files = {"a-idx3-ubyte": content, "a-idx3-ubyte.gz": gzip.compress(content)}

    def read(folder: Path) -> Any:
        found = [read_idx(folder / file) for file in files]
        assert all(array.dtype == np.uint8 for array in found)
        return found

    return Format(files, {"ubyte": mutations.IDX, ".gz": mutations.IDX}, read)

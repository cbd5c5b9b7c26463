"""TIFF files have equal pixels for every compression, depth, byte order and layout, without imagecodecs."""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxvae.data.images import image_files
from jaxvae.errors import InputError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (37, 45), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (37, 45, 3), dtype=np.uint8)
# Kinds of pixels: the array tifffile writes, its options, and the expected image.
KINDS = {
    "bool": (GREY > 99, {}, (GREY > 99) * 255),
    "grey": (GREY, {}, GREY),
    "0 is white": (GREY, {"photometric": "miniswhite"}, 255 - GREY),
    "16 bits": (GREY * np.uint16(251), {}, GREY * np.uint16(251) / 65535),
    "16 bits, 0 is white": (GREY * np.uint16(251), {"photometric": "miniswhite"}, 1 - GREY * np.uint16(251) / 65535),
    "rgb": (RGB, {"photometric": "rgb"}, RGB),
    "rgb, 16 bits": (RGB * np.uint16(251), {"photometric": "rgb"}, RGB * np.uint16(251) / 65535),
    "planes": (np.moveaxis(RGB, -1, 0).copy(), {"photometric": "rgb", "planarconfig": "separate"}, RGB),
    "float": (RGB[..., 0] / np.float32(7), {}, RGB[..., 0] / np.float32(7)),
    "double": (RGB[..., 0] / 7, {}, (RGB[..., 0] / 7).astype(np.float32)),
    "palette": (
        GREY % 4,
        {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 85},
        np.stack([(np.arange(256) + 256 * i) * 85 // 256 for i in range(3)], axis=-1)[GREY % 4],
    ),
}  # fmt: skip


def lzw(data: bytes) -> bytes:
    """Valid LZW without repetition: literal codes of 9 bits, and a clear code before they need 10."""
    codes = [code for start in range(0, len(data), 250) for code in (256, *data[start : start + 250])] + [257]
    digits = ((np.array(codes)[:, None] >> np.arange(9)[::-1]) & 1).astype(np.uint8)
    return np.packbits(digits).tobytes()


def recompressed(path, pack, compression: int, *, predictor: int = 1):
    """Pack the strip of an uncompressed file, append it, and point the tags to it."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
    content = path.read_bytes()
    strips = [pack(content[offset : offset + count]) for offset, count in zip(offsets, counts, strict=True)]
    with path.open("ab") as file:
        places = []
        for strip in strips:
            places.append(file.tell())
            file.write(strip)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages.first.tags
        tags["Compression"].overwrite(compression)
        tags["StripOffsets"].overwrite(places)
        tags["StripByteCounts"].overwrite([len(strip) for strip in strips])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_lzw_has_equal_pixels(tmp_path, kind, byteorder):
    array, how, wanted = KINDS[kind]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, byteorder=byteorder, **how)
    plain = image_files.read(path)
    np.testing.assert_allclose(plain.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-7)
    recompressed(path, lzw, 5)
    packed = image_files.read(path)
    np.testing.assert_array_equal(packed, plain)
    assert packed.dtype == plain.dtype


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tiffcp") is None, reason="tiffcp is not installed (libtiff-tools)")
@pytest.mark.parametrize("layout", ["", "-t -w 16 -l 32", "-r 5", "-p separate", "-B", "-f lsb2msb -r 7"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_written_by_libtiff_have_equal_pixels(tmp_path, kind, layout):
    array, how, _ = KINDS[kind]
    tifffile.imwrite(tmp_path / "a.tif", array, **how)
    plain = image_files.read(tmp_path / "a.tif")
    tried = 0
    for compression in (
        "none",
        "lzw",
        "lzw:2",
        "lzw:3",
        "zip",
        "zip:2",
        "zip:3",
        "packbits",
        "zstd:2",
        "lzma",
        "g3:2d",
        "g4",
    ):
        command = ["tiffcp", "-c", compression, *layout.split(), str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or "rror" in done.stderr or (":3" in compression and layout == "-B"):
            continue  # libtiff cannot: groups 3 and 4 are for 1 bit, predictor 3 is for floating point.
        tried += 1
        packed = image_files.read(tmp_path / "b.tif")
        np.testing.assert_array_equal(packed, plain, err_msg=compression)
        assert packed.dtype == plain.dtype
    assert tried >= 5 or layout == "-p separate"  # tiffcp separates 8 bits only.


def test_a_predictor_of_differences_is_undone(tmp_path):
    deep = RGB * np.uint16(251)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", predictor=True, compression="zlib")
    np.testing.assert_allclose(image_files.read(tmp_path / "a.tif"), deep / 65535, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 6, 7, 10, 12, 14])
def test_unusual_depths_are_scaled_to_0_to_1(tmp_path, bits):
    """Packed by hand, the highest bit first, each row starting at a new byte."""
    values = RANDOM.integers(0, 2**bits, (5, 7))
    values[0, :2] = 0, 2**bits - 1
    digits = ((values[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).reshape(5, -1)
    data = np.packbits(digits, axis=1).tobytes()
    tags = {256: 7, 257: 5, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 5, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    image = image_files.read(tmp_path / "a.tif")[..., 0]
    unit = 255 if image.dtype == np.uint8 else 1
    np.testing.assert_allclose(image / unit, values / (2**bits - 1), atol=2e-3 if bits < 8 else 1e-5)
    assert (image[0, 0], image[0, 1]) == (0, unit)


@pytest.mark.parametrize(
    ("shape", "how", "axes"),
    [
        ((4, 20, 30), {"imagej": True, "metadata": {"axes": "ZYX"}}, "ZYX"),
        ((4, 20, 30), {"imagej": True, "metadata": {"axes": "TYX"}}, "TYX"),
        ((4, 2, 20, 30), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "ZCYX"),
        ((4, 20, 30), {"ome": True, "metadata": {"axes": "ZYX"}}, "ZYX"),
        ((3, 20, 30), {"ome": True, "metadata": {"axes": "TYX"}}, "TYX"),
        ((3, 20, 30), {"metadata": {"axes": "ZYX"}}, "ZYX"),
    ],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_stacks_of_planes_or_times_are_refused(tmp_path, shape, how, axes, compression):
    values = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", compression=compression, **how)
    with pytest.raises(InputError, match=rf"a\.tif: is a stack of .*\({axes}.*save each plane in its own file"):
        image_files.read(tmp_path / "a.tif")


@pytest.mark.parametrize("how", [{"imagej": True}, {"ome": True}, {}])
def test_channels_and_stacks_of_one_plane_are_images(tmp_path, how):
    values = RANDOM.integers(0, 256, (3, 20, 30), dtype=np.uint8)
    for axes, array in (("CYX", values), ("ZCYX", values[None]), ("TZCYX", values[None, None])):
        metadata = {"metadata": {"axes": axes}}
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **how, **metadata)
        np.testing.assert_array_equal(image_files.read(tmp_path / "a.tif"), np.moveaxis(values, 0, -1))


def test_a_tiff_of_several_kinds_of_pages_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for image in (GREY[:4, :4], GREY):
            file.write(image, photometric="minisblack")
    with pytest.raises(InputError, match=r"a\.tif: holds 2 images of different kinds"):
        image_files.read(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_rotated_tiff_is_refused(tmp_path, compression):
    Image.fromarray(GREY).save(tmp_path / "a.tif", compression=compression, tiffinfo={274: 6})
    with pytest.raises(InputError, match=r"a.tif: is stored rotated.*; save it upright"):
        image_files.read(tmp_path / "a.tif")


def test_jpeg_in_tiff_does_not_need_imagecodecs(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    for array, photometric in ((smooth, 1), (255 - smooth, 0), (np.stack([smooth] * 3, axis=-1), None)):
        info = {} if photometric is None else {262: photometric}
        Image.fromarray(array).save(tmp_path / "a.tif", compression="jpeg", quality=95, tiffinfo=info)
        with Image.open(tmp_path / "a.tif") as image:
            expected = np.asarray(image)
        np.testing.assert_array_equal(image_files.read(tmp_path / "a.tif").squeeze(), expected)


def test_a_missing_codec_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(34712)
    with pytest.raises(InputError, match=r"a\.tif: .*(JPEG2000 compression; `pip install imagecodecs`|cannot be read)"):
        image_files.read(tmp_path / "a.tif")


def test_a_big_endian_predictor_of_floating_point_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY / np.float32(7), byteorder=">", compression="zlib", predictor=False)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages.first.tags["SampleFormat"].offset
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + 12] = struct.pack(">HHII", 317, 3, 1, 3 << 16)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif: "):
        image_files.read(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_no_strip_is_unpacked_beyond_its_size(tmp_path, compression):
    """A megabyte of deflate can become a gigabyte."""
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    bomb = GREY.tobytes() + bytes(1 << 26)
    pack, number = {"zlib": (zlib.compress, 8), "lzma": (lzma.compress, 34925)}[compression]
    recompressed(tmp_path / "a.tif", lambda strip: pack(bomb), number)
    tracemalloc.start()
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.tif")[..., 0], GREY)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_strip_without_data_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["StripByteCounts"].overwrite(0)
    with pytest.raises(InputError, match=r"a\.tif: its strip 0 has no data"):
        image_files.read(tmp_path / "a.tif")


def test_lzw_that_ends_too_early_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    recompressed(tmp_path / "a.tif", lambda strip: lzw(strip)[:300], 5)
    with pytest.raises(InputError, match=r"a\.tif: cannot be read"):
        image_files.read(tmp_path / "a.tif")
